"""Mapping files: from a source's types and relations to the scheme's, as data.

What enters is a YAML file or the name of a shipped one, what leaves is a checked ``TypeMapping``.
The rules are in docs/formats.md.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedmedlora.corpus.files import read_text
from fedmedlora.errors import ConfigError
from fedmedlora.faults import describe_faults
from fedmedlora.schema import Scheme
from fedmedlora.strict_yaml import load_yaml

#: What to do with a span of several fragments: leave it out, take everything from its first to its
#: last character, or take its first or its last fragment.
Discontinuous = Literal["skip", "cover", "first", "last"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EntityRule(_Strict):
    """What becomes of the spans of one source type.

    Attributes:
        type: their type in the scheme; without one a span is skipped unless a relation says it.
        by_head: main entity type -> the span's type where it modifies such a head.
    """

    type: str | None = None
    by_head: dict[str, str] = Field(default_factory=dict)


class RelationRule(_Strict):
    """Which relations of the source say whose a modifier is.

    Attributes:
        type: the relation's type in the source.
        head: the role of the main entity ("Arg2" where brat writes modifier first).
        tail: the role of the modifier.
        heads: source types that the head may have; ``None``: any.
        tails: source types that the tail may have; ``None``: any.
        becomes: the modifier's type, where the relation and not the span says it.
    """

    type: str
    head: str = "head"
    tail: str = "tail"
    heads: tuple[str, ...] | None = None
    tails: tuple[str, ...] | None = None
    becomes: str | None = None


class TypeMapping(_Strict):
    """How a source is read into the scheme.

    Attributes:
        description: for people.
        discontinuous: what to do with spans of several fragments.
        unmapped: what to do with a source type that no rule names: "skip" counts it, "refuse"
            raises.
        entities: source type -> its rule; a plain type is short for ``{type: ...}``.
        relations: the first rule that fits a relation holds; one that none fits is skipped.
        covers: the types that the source's annotators looked for, after mapping.
    """

    description: str = ""
    discontinuous: Discontinuous = "cover"
    unmapped: Literal["skip", "refuse"] = "skip"
    entities: dict[str, EntityRule]
    relations: tuple[RelationRule, ...] = ()
    covers: frozenset[str] | None = None

    @field_validator("entities", mode="before")
    @classmethod
    def _long_form(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {k: {"type": v} if isinstance(v, str) else v for k, v in value.items()}


def shipped_mappings() -> tuple[str, ...]:
    """The names of the mappings that come with the package."""
    folder = resources.files("fedmedlora.corpus").joinpath("mappings")
    names = (item.name for item in folder.iterdir())
    return tuple(sorted(n.removesuffix(".yaml") for n in names if n.endswith(".yaml")))


def load_mapping(name_or_path: str | Path, *, scheme: Scheme) -> TypeMapping:
    """A shipped mapping by its name, or a mapping file by its path.

    Raises:
        ConfigError: no such mapping, broken YAML, an unknown or repeated key, or a type that the
            scheme does not have; the message names the key.
    """
    if str(name_or_path) in shipped_mappings():
        folder = resources.files("fedmedlora.corpus").joinpath("mappings")
        text = folder.joinpath(f"{name_or_path}.yaml").read_text(encoding="utf-8")
    elif Path(name_or_path).is_file():
        text = read_text(Path(name_or_path))
    else:
        raise ConfigError(
            f"no mapping {str(name_or_path)!r}: neither a file nor one of the shipped "
            f"({', '.join(shipped_mappings())})"
        )
    try:
        content = load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"mapping {name_or_path}{line}: {problem}") from None
    try:
        mapping = TypeMapping.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"mapping {name_or_path}: {describe_faults(error)}") from None
    _check_targets(mapping, name_or_path, scheme=scheme)
    return mapping


def _check_targets(mapping: TypeMapping, name: str | Path, *, scheme: Scheme) -> None:
    def check(value: str | None, known: tuple[str, ...], key: str) -> None:
        if value is not None and value not in known:
            raise ConfigError(
                f"mapping {name}: {key}: {value!r} is not in the scheme; use one of "
                f"{', '.join(known)}"
            )

    modifiers = tuple(scheme.modifiers)
    for source, rule in mapping.entities.items():
        check(rule.type, scheme.types, f"entities.{source}")
        for head, modifier in rule.by_head.items():
            check(head, tuple(scheme.mains), f"entities.{source}.by_head")
            check(modifier, modifiers, f"entities.{source}.by_head.{head}")
    for number, relation in enumerate(mapping.relations):
        check(relation.becomes, modifiers, f"relations.{number}.becomes")
    for covered in sorted(mapping.covers or ()):
        check(covered, scheme.types, "covers")
