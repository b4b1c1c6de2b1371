"""docs/study.md has every key of a study file with its default, and its examples are valid."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from fedmedlora.config import Study, check_study
from fedmedlora.config_data import NewSite, Site
from fedmedlora.config_sections import Method, MethodEntry
from fedmedlora.study.arms import study_arms
from fedmedlora.study.variants import further_runs

_FILE = Path(__file__).resolve().parents[2] / "docs" / "study.md"
PAGE = _FILE.read_text(encoding="utf-8").split("## The run folder")[0]
#: Sections that the page explains in one row.
ONE_ROW = ("synthetic", "sample", "adapter")


def model_of(annotation) -> type[BaseModel] | None:
    """The section that a field holds: itself, or under names, or one of several."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
        if one is not annotation and (found := model_of(one)) is not None:
            return found
    return None


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every key with its field."""
    own = set(NewSite.model_fields) - set(Site.model_fields) if model is NewSite else None
    for name, field in model.model_fields.items():
        if own is not None and name not in own:
            continue
        inner = model_of(field.annotation)
        if inner is None or (prefix.count(".") == 2 and name in ONE_ROW):
            yield prefix + name, field
        elif inner is MethodEntry and prefix == "":
            yield from keys_of(inner, "methods[].")
        elif inner is MethodEntry:
            yield prefix + name, field
        else:
            named = "NAME." if "dict" in str(field.annotation) else ""
            yield from keys_of(inner, f"{prefix}{name}.{named}")


FIELDS = dict(keys_of(Study))
ROWS = dict(re.findall(r"^\| `([a-z_0-9A-Z.\[\]]+)` \|(.*?)\|", PAGE, flags=re.M))


def test_every_key_is_in_a_table_and_nothing_else_is():
    methods = set(get_args(Method))
    assert {key for key in ROWS if key not in methods} == set(FIELDS)


def test_every_method_has_a_row():
    table = PAGE.split("## Methods")[1].split("**Was joining")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, flags=re.M)
    assert {name for cell in cells for name in re.findall(r"`(.*?)`", cell)} == set(
        get_args(Method)
    )


@pytest.mark.parametrize("key", [key for key in FIELDS if key != "methods[].label"])
def test_every_default_is_the_codes(key):
    field, told = FIELDS[key], ROWS[key].strip()
    if field.is_required():
        assert told == ""
        return
    default = field.get_default(call_default_factory=True)
    value = yaml.safe_load(told.strip("`"))
    if isinstance(default, BaseModel):
        assert type(default).model_validate(value) == default
    else:
        assert value == to_jsonable_python(default)


SITE = {"train": "a.jsonl", "validation": "b.jsonl", "test": "c.jsonl"}
BASE = {"name": "toy", "sites": {"a": SITE, "b": SITE}, "methods": ["fed-medlora+", "centralised"]}
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.S)


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_is_part_of_a_valid_study(text):
    study = check_study({**BASE, **yaml.safe_load(text)}, source="docs/study.md")
    assert study_arms(study)
    for run in further_runs(study):
        assert study_arms(run.study)
