"""A run folder in, a ``Run`` out: everything that a report is made from, read and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from fedmedlora.corpus.files import storable
from fedmedlora.corpus.jsonl import read_jsonl
from fedmedlora.errors import DataError, NoRunError, RunError, SchemaError
from fedmedlora.evaluation.records import SCORED_OF, ScoreRecord
from fedmedlora.evaluation.tables import last_rounds
from fedmedlora.faults import describe_faults
from fedmedlora.report.methods import derive_method
from fedmedlora.report.records import (
    Comparison,
    Data,
    Done,
    Leakage,
    Method,
    Round,
    SeedScore,
    ValidationRound,
    Variant,
)
from fedmedlora.schema import DEFAULT_SCHEME, Document, Scheme
from fedmedlora.strict_yaml import load_yaml

_T = TypeVar("_T")

#: Beside the scores, what a reader must know to compare two runs.
_FINGERPRINTED = ("study.yaml", "versions.json", "data.json", "rounds.jsonl", "scores.json")
_RESCORE = "make it again with rescore"
_RERUN = "remove it and run the study again on this folder"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: the folder.
        study: study.yaml as plain data; ``study_text`` as it is written.
        scheme: the study's types.
        include_text: whether the study lets the notes' text into reports.
        methods: in the order of the tables.
        scores: of each method's last round, all documents.
        done: method -> what was noted when it ended, for those that were trained or asked.
        unfinished: labels of methods that the study asks for and that have no scores yet.
        leakage: what attacks on the adapters found, if they were tried.
        fingerprint: SHA-256 (hex) over the files that say what was run and what came out.
    """

    path: Path
    study: Mapping[str, Any]
    study_text: str
    scheme: Scheme
    include_text: bool
    methods: tuple[Method, ...]
    scores: tuple[ScoreRecord, ...]
    data: Data
    done: Mapping[str, Done]
    rounds: tuple[Round, ...]
    comparisons: tuple[Comparison, ...]
    validation: tuple[ValidationRound, ...]
    variants: tuple[Variant, ...]
    seeds: tuple[SeedScore, ...]
    versions: Mapping[str, str]
    fingerprint: str
    unfinished: tuple[str, ...]
    leakage: Leakage | None
    by_key: Mapping[tuple[str, str, str, str, str], ScoreRecord] = field(repr=False)

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.study.get("name", self.path.name))

    @property
    def cohorts(self) -> tuple[str, ...]:
        """Names of the cohorts, in the order of the scores, without the pool."""
        return tuple(dict.fromkeys(r.cohort for r in self.scores if r.cohort != "all"))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that have gold somewhere."""
        return tuple(dict.fromkeys(r.task for r in self.scores if r.gold))

    def method(self, label: str) -> Method | None:
        """The method of this label, if there is one."""
        return next((method for method in self.methods if method.label == label), None)

    def score(
        self, label: str, cohort: str, task: str, *, matching: str = "strict", type: str = "micro"
    ) -> ScoreRecord | None:
        """A typed score; ``None`` if it was not made or gold has nothing of the kind."""
        record = self.by_key.get((label, cohort, task, matching, type))
        return record if record is not None and record.gold else None

    def trains(self, method: Method, task: str) -> bool:
        """Whether a site's own model was trained for what is scored as ``task``.

        True of all other methods, and where data.json does not say.
        """
        part = self.data.sites.get(method.site or "")
        if method.kind != "single" or part is None or not part.tasks:
            return True
        return any(task in SCORED_OF.get(asked, ()) for asked in part.tasks)

    def gold(self, cohort: str) -> list[Document] | None:
        """The gold documents of a cohort; ``None`` if the run did not keep them.

        Raises:
            RunError: the file is broken.
        """
        return self._documents(f"gold/{cohort}.jsonl")

    def predictions(self, label: str, task: str, cohort: str) -> list[Document] | None:
        """What a method predicted when asked for ``task``; as ``gold``."""
        return self._documents(f"predictions/{label}/{task}/{cohort}.jsonl")

    def _documents(self, name: str) -> list[Document] | None:
        file = _inside(self.path, name)
        if not file.is_file():
            return None
        try:
            return read_jsonl(file)
        except (DataError, SchemaError) as error:
            raise RunError(f"{error}; {_RESCORE}") from error


def read_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        NoRunError: it is no run.
        RunError: the run is not finished, or a file is not what a run writes there.
    """
    if not (path / "study.yaml").is_file():
        raise NoRunError(f"{path} is no run folder: it has no study.yaml")
    if not (path / "scores.json").is_file():
        raise RunError(
            f"{path} is not finished: it has no scores.json; run the study again on this folder, "
            "it goes on where it stopped"
        )
    study_text, study = _study(path)
    scores = last_rounds(_read(path, "scores.json", list[ScoreRecord], advice=_RESCORE) or [])
    if not scores:
        raise RunError(f"{path / 'scores.json'} has no scores; {_RESCORE}")
    chosen = tuple(r for r in scores if r.level == "typed" and r.document_class is None)
    labels = dict.fromkeys(record.method for record in chosen)
    listed = _read(path, "methods.json", list[Method]) or []
    known = {method.label for method in listed}
    methods = [m for m in listed if m.label in labels]
    methods += [derive_method(label) for label in labels if label not in known]
    return Run(
        path=path,
        study=study,
        study_text=study_text,
        scheme=_scheme(study, path / "study.yaml"),
        include_text=_include_text(study, path / "study.yaml"),
        methods=tuple(methods),
        scores=chosen,
        data=_read(path, "data.json", Data) or Data(),
        done={
            method.label: done
            for method in methods
            if (done := _read(path, f"answers/{method.label}/done.json", Done)) is not None
        },
        rounds=_rounds(path),
        comparisons=tuple(_read(path, "comparisons.json", list[Comparison], advice=_RESCORE) or ()),
        validation=tuple(_read(path, "validation_rounds.json", list[ValidationRound]) or ()),
        variants=tuple(_read(path, "variants.json", list[Variant]) or ()),
        seeds=tuple(_read(path, "seeds.json", list[SeedScore], advice=_RESCORE) or ()),
        versions=_read(path, "versions.json", dict[str, str]) or {},
        leakage=_read(path, "leakage.json", Leakage, advice="measure again with leakage"),
        fingerprint=_fingerprint(path),
        unfinished=tuple(m.label for m in listed if m.label not in labels),
        by_key={(r.method, r.cohort, r.task, r.matching, r.type): r for r in chosen},
    )


def read_variants(run: Run, kind: str) -> list[tuple[Variant, Run]]:
    """The further runs of a kind, those that are finished.

    Raises:
        RunError: variants.json points outside the run folder, or a file of one is broken.
    """
    return [
        (variant, read_run(folder))
        for variant, folder in _variant_folders(run, kind)
        if (folder / "scores.json").is_file()
    ]


def unfinished_variants(run: Run, kind: str) -> list[str]:
    """Names of the further runs of a kind that have no scores yet.

    Raises:
        RunError: variants.json points outside the run folder.
    """
    return [
        variant.name
        for variant, folder in _variant_folders(run, kind)
        if not (folder / "scores.json").is_file()
    ]


def _variant_folders(run: Run, kind: str) -> list[tuple[Variant, Path]]:
    chosen = [variant for variant in run.variants if variant.kind == kind]
    return [(variant, _inside(run.path, variant.folder)) for variant in chosen]


def _inside(path: Path, name: str) -> Path:
    """A file of the folder; names come from files, which may say anything."""
    file = path / name
    if not storable(name) or not file.resolve().is_relative_to(path.resolve()):
        raise RunError(f"{path}: {name[:80]!r} is not inside the run folder; it was tampered with")
    return file


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"{file} is not UTF-8 text; {_RERUN}") from error
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}") from error


def _read(path: Path, name: str, kind: type[_T], *, advice: str = _RERUN) -> _T | None:
    """A JSON file of the folder, checked; ``None`` if it is not there."""
    file = _inside(path, name)
    if not file.is_file():
        return None
    return _checked(_json(_text(file), file, advice), file, kind, advice=advice)


def _json(text: str, file: Path, advice: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file} is not whole JSON (half written?); {advice}") from error


def _checked(content: Any, file: Path, kind: type[_T], *, advice: str) -> _T:
    try:
        return TypeAdapter(kind).validate_python(content)
    except (ValidationError, RecursionError) as error:
        told = describe_faults(error) if isinstance(error, ValidationError) else "nested too deep"
        raise RunError(f"{file} is not what a run writes there: {told}; {advice}") from error


def _rounds(path: Path) -> tuple[Round, ...]:
    file = path / "rounds.jsonl"
    if not file.is_file():
        return ()
    lines = [(n, line) for n, line in enumerate(_text(file).split("\n"), start=1) if line.strip()]
    return tuple(
        _checked(_json(line, Path(f"{file}:{n}"), _RERUN), file, Round, advice=_RERUN)
        for n, line in lines
    )


def _study(path: Path) -> tuple[str, Mapping[str, Any]]:
    file = path / "study.yaml"
    text = _text(file)
    try:
        content = load_yaml(text)
    except yaml.YAMLError as error:
        raise RunError(f"{file} is not YAML any more; take the study's file again") from error
    if not isinstance(content, dict):
        raise RunError(f"{file} is no study: it must be a mapping of keys")
    return text, content


def _scheme(study: Mapping[str, Any], file: Path) -> Scheme:
    content = study.get("scheme")
    if content is None:
        return DEFAULT_SCHEME
    try:
        return Scheme(
            content["mains"],
            content.get("modifiers", {}),
            {main: tuple(types) for main, types in content.get("pairs", {}).items()},
        )
    except (KeyError, TypeError, AttributeError, SchemaError) as error:
        raise RunError(f"{file}: scheme is not what a run writes there") from error


def _include_text(study: Mapping[str, Any], file: Path) -> bool:
    section = study.get("report", {})
    value = section.get("include_text", False) if isinstance(section, dict) else None
    if not isinstance(value, bool):
        raise RunError(f"{file}: report.include_text must be true or false")
    return value


def _fingerprint(path: Path) -> str:
    total = hashlib.sha256()
    for name in _FINGERPRINTED:
        if (path / name).is_file():
            content = hashlib.sha256((path / name).read_bytes()).hexdigest()
            total.update(f"{name} {content}\n".encode())
    return total.hexdigest()
