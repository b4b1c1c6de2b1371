"""Prompts: asked types and a text in, everything before the answer out.

A prompt's beginning is the same for all windows that ask for the same types, so that its
computation can be kept; the text comes last, and the prompt ends where the answer begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedmedlora.schema import Scheme
from fedmedlora.tasks.example import CLOSING
from fedmedlora.tasks.markup import opening_tag

_INPUT = "### Input Text:\n"
_OUTPUT = "\n### Output Text:\n"
_COMPACT_INPUT = "### text:\n"
_COMPACT_OUTPUT = "\n### marked:\n"
#: In every task of a full prompt, right before the list of types, which a full stop ends.
_TYPES = "of these types: "

_ENTITIES = (
    "Copy the input text unchanged as HTML and mark up every entity of these types: {types}. "
    "Put each entity into a <span> tag whose class is its type."
)
_MARKED = (
    "One {head} is marked in the input text. Copy the text unchanged as HTML, without that mark, "
    "and mark up every modifier of this {head}, of these types: {types}. Put each modifier into a "
    "<span> tag whose class is its type."
)
_NUMBERED = (
    "Entities are marked and numbered in the input text. Copy the text unchanged as HTML, without "
    "these marks, and mark up every modifier of an entity, of these types: {types}. Put each "
    "modifier into a <span> tag whose class is its type and whose head is the number of the "
    "entity that it belongs to; into one tag for each entity if it belongs to several."
)


@dataclass(frozen=True, slots=True)
class PromptParts:
    """A prompt taken apart; ``instruction + question`` is the prompt.

    Attributes:
        instruction: what is said before the text, the same for all windows of one question.
        types: the types that it asks for, in its order.
        question: the text, after its heading and before that of the answer.
    """

    instruction: str
    types: tuple[str, ...]
    question: str


def split_prompt(prompt: str, *, task: str) -> PromptParts:
    """The parts of a prompt that this module made for ``task``, either style."""
    full = prompt.startswith("### Task:")
    heading = _INPUT if full else _COMPACT_INPUT
    before, _, after = prompt.partition(f"\n{heading}")
    if full:
        types = before.partition(_TYPES)[2].partition(".")[0].split(", ")
    else:
        types = before.removeprefix("mark: ").split(" ")[1 if task == "modifiers" else 0 :]
    return PromptParts(before + "\n", tuple(types), heading + after)


def entities_prompt(types: Sequence[str], text: str, *, style: str, scheme: Scheme) -> str:
    """The prompt that asks for main entities of ``types`` in ``text``."""
    if style == "compact":
        return _compact("entities", types, text)
    task = _ENTITIES.format(types=", ".join(types))
    guide = [f"{name}: {opening_tag(name)}...{CLOSING}" for name in types]
    return _full(task, guide, types, text, scheme)


def marked_prompt(types: Sequence[str], text: str, *, head: str, style: str, scheme: Scheme) -> str:
    """The prompt that asks for modifiers of the one ``head`` (a type) marked in ``text``."""
    if style == "compact":
        return _compact("modifiers", types, text)
    task = _MARKED.format(head=head, types=", ".join(types))
    guide = [f"{name}: {opening_tag(name)}...{CLOSING}" for name in types]
    return _full(task, guide, types, text, scheme)


def numbered_prompt(types: Sequence[str], text: str, *, style: str, scheme: Scheme) -> str:
    """The prompt that asks for the modifiers of all entities that are numbered in ``text``."""
    if style == "compact":
        return _compact("modifiers", types, text)
    task = _NUMBERED.format(types=", ".join(types))
    guide = [f"{name} of entity 1: {opening_tag(name, head=1)}...{CLOSING}" for name in types]
    return _full(task, guide, types, text, scheme)


def _compact(task: str, types: Sequence[str], text: str) -> str:
    # The form of the embedded backbone's exercises; what it knows of these types is in its card.
    of = "of " if task == "modifiers" else ""
    return f"mark: {of}{' '.join(types)}\n{_COMPACT_INPUT}{text}{_COMPACT_OUTPUT}"


def _full(task: str, guide: Sequence[str], types: Sequence[str], text: str, scheme: Scheme) -> str:
    definitions = {**scheme.mains, **scheme.modifiers}
    lines = [
        "### Task:",
        task,
        "### Markup Guide:",
        *guide,
        "### Definitions:",
        *(f"{name}: {definitions[name]}" for name in types),
    ]
    return "\n".join(lines) + f"\n{_INPUT}{text}{_OUTPUT}"
