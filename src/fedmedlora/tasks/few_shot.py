"""Few-shot prompts: questions and training notes in, questions with worked examples in them out.

A demonstration is an example of a training note, its gold answer included. All questions of one
kind get the same ones: those of a task, and where one head is marked, of a type of head; apart are
only questions whose documents ask for other types.

What a site did not look for must not look absent. So a demonstration is asked for those types of
the question alone that its own site (and document) covers, and its answer has no others. If some
demonstrations cover every type of the question, only these are drawn; what they say is what the
question's instruction asks. Else those are drawn that cover some of the types, and each comes with
an instruction of its own, which says which.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fedmedlora.errors import ConfigError
from fedmedlora.schema import Document, Scheme
from fedmedlora.seeds import derive_seed
from fedmedlora.tasks.build import build_examples
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.markup import TAG
from fedmedlora.tasks.parse import parse_opening
from fedmedlora.tasks.prompts import split_prompt
from fedmedlora.tasks.settings import TaskSettings

#: Of the demonstrations, the one that has nothing to mark: the third, if there are three.
_BLANK = 2


@dataclass(frozen=True, slots=True)
class TrainingNotes:
    """What a site lends demonstrations from.

    Attributes:
        site: its name.
        documents: training notes, with gold annotation.
        covers: the types that its annotators looked for.
    """

    site: str
    documents: Sequence[Document]
    covers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Kind:
    """What questions must have in common to get the same demonstrations.

    Attributes:
        task: ``"entities"`` or ``"modifiers"``.
        head: type of the one head that is marked; None for entities and numbered heads.
        types: the types asked for, in the order of the prompt.
        instruction: what the prompt says before the text.
    """

    task: str
    head: str | None
    types: tuple[str, ...]
    instruction: str


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A worked example, and the site whose note it shows."""

    site: str
    example: Example


def kind_of(question: Example) -> Kind:
    """The kind of a question, or of a demonstration's example."""
    parts = split_prompt(question.prompt, task=question.task)
    marked = question.openings and parse_opening(question.openings[0])[1] is None
    head = question.heads[0].type if question.heads and marked else None
    return Kind(question.task, head, parts.types, parts.instruction)


def draw_demonstrations(
    questions: Iterable[Example],
    notes: Sequence[TrainingNotes],
    *,
    k: int,
    scheme: Scheme,
    settings: TaskSettings,
    seed: int,
) -> dict[Kind, tuple[Demonstration, ...]]:
    """Up to ``k`` demonstrations for each kind of question, the most telling first.

    They are drawn greedily, each the one that shows most types which those before it do not show;
    when all types that occur are shown, from the beginning; chance decides between equals. The
    third is one without annotation, if there is one. Fewer are a beginning of more: with a smaller
    ``k`` the first of them are drawn. Several that look alike count as one.

    Args:
        questions: as built, without demonstrations.
        notes: of the sites that lend them, in an order that decides with the seed; ids of
            documents need not differ between sites.
        k: 0 or more.
        scheme: as the questions were built with.
        settings: as the questions were built with.
        seed: of the study.

    Raises:
        ConfigError: ``k`` is negative.
    """
    if k < 0:
        raise ConfigError(f"the number of demonstrations, {k}, must not be negative")
    drawn = {}
    for kind in dict.fromkeys(kind_of(question) for question in questions):
        candidates = _candidates(kind, notes, scheme=scheme, settings=settings)
        purpose = ("few-shot", kind.task, kind.head or "", *kind.types)
        random.Random(derive_seed(seed, *purpose)).shuffle(candidates)
        drawn[kind] = _choose(candidates, k)
    return drawn


def show_demonstrations(
    questions: Iterable[Example], drawn: Mapping[Kind, Sequence[Demonstration]]
) -> list[Example]:
    """The questions with the demonstrations of their kind in their prompts, all else unchanged.

    Each demonstration is its text and its answer, under the headings of the question. The most
    telling one stands last, next to the question. An instruction is said once for all that follow
    it up to another.

    Raises:
        KeyError: nothing was drawn for a question's kind.
    """
    before = {kind: _write(kind, demonstrations) for kind, demonstrations in drawn.items()}
    shown = []
    for question in questions:
        parts = split_prompt(question.prompt, task=question.task)
        prompt = before[kind_of(question)] + parts.question
        shown.append(replace(question, prompt=prompt))
    return shown


def count_fitting(
    questions: Iterable[Example],
    drawn: Mapping[Kind, Sequence[Demonstration]],
    *,
    count_tokens: Callable[[str], int],
    limit: int,
) -> int:
    """How many demonstrations at most every question can have: the prompts fit into ``limit``.

    Args:
        questions: as built, without demonstrations.
        drawn: for their kinds.
        count_tokens: of a prompt.
        limit: tokens that a prompt may have; leave room for the answer.

    Returns:
        A number up to that of the longest list drawn; 0 too if not even bare prompts fit.
    """
    fitting = max((len(demonstrations) for demonstrations in drawn.values()), default=0)
    for question in questions:
        while fitting:
            kind = kind_of(question)
            [shown] = show_demonstrations([question], {kind: drawn[kind][:fitting]})
            if count_tokens(shown.prompt) <= limit:
                break
            fitting -= 1
    return fitting


def _candidates(
    kind: Kind, notes: Iterable[TrainingNotes], *, scheme: Scheme, settings: TaskSettings
) -> list[Demonstration]:
    """Those that may be shown to a kind of question; each prompt once."""
    settings = replace(settings, tasks=(kind.task,))
    found: dict[str, Demonstration] = {}
    for site in notes:
        covers = site.covers.intersection(kind.types)
        made, _ = build_examples(site.documents, covers=covers, scheme=scheme, settings=settings)
        for example in made:
            if kind_of(example).head == kind.head:
                found.setdefault(example.prompt, Demonstration(site.site, example))
    whole = [one for one in found.values() if kind_of(one.example) == kind]
    return whole or list(found.values())


def _choose(candidates: Sequence[Demonstration], k: int) -> tuple[Demonstration, ...]:
    """``k`` of them in the order of their worth; of equals the first."""
    types = {one: _types_shown(one.example) for one in candidates}
    blank = [one for one in candidates if not types[one]]
    telling = [one for one in candidates if types[one]]
    chosen: list[Demonstration] = []
    shown: set[str] = set()
    while telling and len(chosen) < k:
        best = max(telling, key=lambda one: len(types[one] - shown))
        if types[best] <= shown:
            shown = set()
            continue
        telling.remove(best)
        chosen.append(best)
        shown |= types[best]
    return (*chosen[:_BLANK], *blank[:1], *chosen[_BLANK:], *blank[1:])[:k]


def _types_shown(example: Example) -> set[str]:
    """The types that an example's gold answer marks."""
    tags = [tag.group() for tag in TAG.finditer(example.answer) if not tag["close"]]
    return {name for name, _ in map(parse_opening, tags) if name is not None}


def _write(kind: Kind, demonstrations: Sequence[Demonstration]) -> str:
    """All that comes before the text of a question of this kind."""
    written: list[str] = []
    said = ""
    for one in reversed(demonstrations):
        parts = split_prompt(one.example.prompt, task=kind.task)
        if parts.instruction != said:
            written.append(parts.instruction)
            said = parts.instruction
        written += [parts.question, one.example.answer, "\n"]
    if kind.instruction != said:
        written.append(kind.instruction)
    return "".join(written)
