"""The run folder: what a study leaves behind, written so that an interruption spoils nothing.

study.yaml        the study as resolved         versions.json   of the packages used
data.json         what was read, made and cut   rounds.jsonl    one line a round and method
scores.json       see docs/scoring.md           readings.json   what became of the raw answers
methods.json      every row of the tables       comparisons.json  paired differences in F1
variants.json     further runs, seeds.json their mean
validation_rounds.json                          F1 by round, if it is asked for
gold/COHORT.jsonl                               what is scored against
variants/NAME/                                  a run folder of its own
answers/METHOD/COHORT.jsonl                     raw answers, always kept
predictions/METHOD/TASK/COHORT.jsonl            documents as read from them
adapters/METHOD/                                opens with PeftModel.from_pretrained
federation/METHOD/                              checkpoints, to resume from
leakage.json, releases/METHOD/                  what attacks found; what was released
federation/.first-rounds/                       until the run is complete: what methods share
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from fedmedlora.config import Study, check_study
from fedmedlora.corpus.files import write_text
from fedmedlora.corpus.jsonl import as_record, read_jsonl
from fedmedlora.durable import clear_leftovers, refuse_below_file
from fedmedlora.errors import ConfigError, DataError, NoRunError, RunError, SchemaError
from fedmedlora.schema import Document
from fedmedlora.strict_yaml import load_yaml
from fedmedlora.study.run_lock import locked
from fedmedlora.tasks.example import Example

_PACKAGES = (
    "fedmedlora", "torch", "transformers", "peft", "trl", "flwr", "tokenizers", "safetensors",
    "numpy", "scipy", "sentencex", "opacus",
)  # fmt: skip
#: Where and how a study runs may change between an interruption and its resumption.
_FREE = ("runtime", "root", "report", "variants", "scaling")
#: What scoring makes from the answers alone.
_SCORED = ("scores.json", "readings.json", "comparisons.json", "seeds.json")
_GO_ON = "what is complete stays: the same command goes on from there"
#: What a study that failed at once (a misspelt backbone) does not leave behind.
_WORK = ("answers", "federation", "adapters", "predictions", "variants", "scores.json")


class RunFolder:
    """Paths and formats of one run folder.

    Args:
        path: the folder; made if need be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, study: Study) -> None:
        """Write the resolved study; ``check`` comes first.

        Raises:
            NoRunError: the folder holds something else.
            RunError: it cannot be written.
        """
        self.check(study)
        content = study.model_dump(mode="json", exclude_none=True)
        self.write("study.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        self.write_json("versions.json", _versions())

    def check(self, study: Study) -> None:
        """Refuse a folder that a study cannot be run into; nothing is written.

        Raises:
            NoRunError: the folder holds something else than a run of this study.
            MisnamedError: no folder can be made there.
        """
        refuse_below_file(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise NoRunError(f"{self.path} is a file; a run needs a folder of its own")
        file = self.path / "study.yaml"
        if file.is_file():
            before, now = self.study(), study
            changed = _changed(before, now)
            if changed and self._holds_work():
                raise NoRunError(
                    f"{self.path} holds a run of another study (it differs in "
                    f"{', '.join(changed)}); give another --out, or remove the folder"
                )
        elif self.path.is_dir() and not all(
            # Of a run that was killed while it wrote the very first file.
            path.match(".*.partial")
            for path in self.path.iterdir()
        ):
            raise NoRunError(f"{self.path} is not empty and holds no run; give another --out")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from running into the same folder until the block ends.

        Raises:
            RunError: one does already.
        """
        with locked(self.path):
            # What a killed process left: nobody else writes here now.
            clear_leftovers(self.path)
            yield

    def _holds_work(self) -> bool:
        """Whether something would be lost if another study took the folder."""
        return any((self.path / name).exists() for name in _WORK)

    def study(self) -> Study:
        """The study of this run.

        Raises:
            NoRunError: the folder is no run folder.
            RunError: its study cannot be read.
        """
        file = self.path / "study.yaml"
        try:
            content = load_yaml(file.read_text(encoding="utf-8"))
            return check_study(content, source=str(file))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NoRunError(f"{self.path} is no run folder: it has no study.yaml") from error
        except OSError as error:
            raise RunError(f"{file} cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, ConfigError, ValueError) as error:
            raise RunError(
                f"{file} was changed and is no study any more; take another --out"
            ) from error

    def write(self, name: str, text: str) -> None:
        """Write a file of the folder, whole or not at all.

        Raises:
            RunError: the disk refuses it; whoever frees it can resume.
        """
        file = self.path / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, text)
        except DataError as error:
            raise RunError(f"{error}; {_GO_ON}") from error
        except OSError as error:
            raise RunError(f"{file}: cannot be written: {error.strerror}; {_GO_ON}") from error

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file; as ``write``."""
        self.write(name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def remove(self, *names: str) -> None:
        """Remove files of the folder, those that are there.

        Raises:
            RunError: the disk refuses it.
        """
        for file in (self.path / name for name in names):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise RunError(f"{file}: cannot be removed: {error.strerror}") from error

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the folder.

        Raises:
            RunError: it is missing or broken.
        """
        file = self.path / name
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._missing(file) from error
        except (ValueError, RecursionError) as error:
            again = (
                f"make it again with `fedmedlora rescore {self.path}`"
                if name in _SCORED
                else "remove it and run again"
            )
            raise RunError(f"{file} is not JSON any more (half written?); {again}") from error

    def _missing(self, file: Path) -> RunError:
        if not (self.path / "study.yaml").is_file():
            return NoRunError(f"{self.path} is no run folder: it has no study.yaml")
        if (file.parent / "done.json").is_file():
            return RunError(f"{file} is missing; remove the folder {file.parent} and run again")
        return RunError(
            f"{file} is missing: the run has not come that far; run the study again on this folder"
        )

    def write_answers(
        self, method: str, cohort: str, answers: Iterable[tuple[Example, str]]
    ) -> None:
        """Keep the raw answers of a method on a cohort; as ``write``."""
        lines = [
            json.dumps({"example": example.id, "answer": answer}, ensure_ascii=False)
            for example, answer in answers
        ]
        self.write(f"answers/{method}/{cohort}.jsonl", "".join(line + "\n" for line in lines))

    def read_answers(
        self, method: str, cohort: str, examples: Sequence[Example]
    ) -> list[tuple[Example, str]]:
        """The raw answers to ``examples``.

        Raises:
            RunError: there is none for some example: the run is incomplete or its data changed.
        """
        file = self.path / "answers" / method / f"{cohort}.jsonl"
        try:
            records = [
                json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line
            ]
            by_id = {str(record["example"]): record["answer"] for record in records}
            if not all(isinstance(answer, str) for answer in by_id.values()):
                raise TypeError
        except FileNotFoundError as error:
            raise self._missing(file) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(
                f"{file} is broken; remove the folder {file.parent} and run again"
            ) from error
        missing = [example.id for example in examples if example.id not in by_id]
        if missing:
            raise RunError(
                f"{file} has no answer to {len(missing)} of {len(examples)} examples, the first "
                f"{missing[0]!r}: the data or the task changed since"
            )
        return [(example, by_id[example.id]) for example in examples]

    def read_gold(self, cohort: str) -> list[Document]:
        """The documents that answers about a cohort are scored against.

        Raises:
            RunError: they are missing or broken.
        """
        file = self.path / "gold" / f"{cohort}.jsonl"
        if not file.is_file():
            raise self._missing(file)
        try:
            return read_jsonl(file)
        except DataError as error:
            raise RunError(f"{error}; remove it and run again") from error

    def write_predictions(
        self, method: str, task: str, cohort: str, documents: Iterable[Document]
    ) -> None:
        """Keep the documents that were read from a method's answers, as neutral JSONL."""
        lines = [json.dumps(as_record(document), ensure_ascii=False) for document in documents]
        text = "".join(line + "\n" for line in lines)
        self.write(f"predictions/{method}/{task}/{cohort}.jsonl", text)

    def read_predictions(self, method: str, task: str, cohort: str) -> list[Document]:
        """The documents that ``write_predictions`` kept.

        Raises:
            RunError: they are missing or broken.
        """
        file = self.path / "predictions" / method / task / f"{cohort}.jsonl"
        try:
            return read_jsonl(file)
        except (DataError, SchemaError) as error:
            raise RunError(
                f"{error}; make the scores of all rows again with `fedmedlora rescore {self.path}`"
            ) from error

    def further_runs(self) -> list[dict[str, Any]]:
        """What variants.json says of the study's further runs; none for a run before there were.

        Raises:
            RunError: it is broken.
        """
        if not (self.path / "variants.json").is_file():
            return []
        content = self.read_json("variants.json")
        if not isinstance(content, list) or not all(
            isinstance(one, dict) and {"name", "kind", "folder"} <= set(one) for one in content
        ):
            raise RunError(f"{self.path / 'variants.json'} is not what a run writes there")
        return content

    def done(self, method: str) -> dict[str, Any] | None:
        """What was noted when a method ended, or None."""
        file = self.path / "answers" / method / "done.json"
        if not file.is_file():
            return None
        content: dict[str, Any] = self.read_json(f"answers/{method}/done.json")
        rounds = content.get("rounds") if isinstance(content, dict) else None
        if not isinstance(rounds, list) or not all(isinstance(one, dict) for one in rounds):
            raise RunError(f"{file} is not what a run writes there; remove it and run again")
        return content

    def check_base(self, fingerprint: str, *, tagger: bool = False) -> None:
        """Refuse to put answers of one backbone (or encoder) beside those of another.

        Raises:
            RunError: a method that is done had another one.
        """
        kind = "encoder" if tagger else "backbone"
        for file in sorted((self.path / "answers").rglob("done.json")):
            content = self.done(str(file.parent.relative_to(self.path / "answers")))
            if content is not None and content.get(kind) not in (None, fingerprint):
                raise RunError(
                    f"{file.parent} has answers of a {kind} whose weights were others; "
                    "take another folder"
                )


def _changed(before: Study, now: Study) -> list[str]:
    """What keeps a run from going on: everything but what is free, and methods that are new."""
    old, new = (
        {
            **one.model_dump(exclude={*_FREE, "methods", "seeds"}),
            # Said or not: a study that is given more seeds keeps its first one's notes.
            "data_seed": one.seed if one.data_seed is None else one.data_seed,
        }
        for one in (before, now)
    )
    for settings in (old, new):  # how much memory a site takes changes nothing that it makes
        settings["training"] = {**settings["training"], "gradient_checkpointing": None}
    changed = sorted(key for key in new if new[key] != old.get(key))
    wanted = {entry.label: entry for entry in now.methods}
    changed += [
        f"methods ({entry.label})" for entry in before.methods if wanted.get(entry.label) != entry
    ]
    return changed


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
