"""Open medical text in (MedQuAD), segments of words and lists of names out.

A segment is one sentence, or a few list lines, of 4 to 60 words. Words are what the tokenizer
also sees as words: runs of letters, runs of digits, single punctuation marks, line breaks.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .heads import class_of_head

WORD = re.compile(r"\d+|[^\W\d_]+|\n|[^\w\s]|_")
_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+(?=[A-Z\d(])")
#: Rows of the Human Phenotype Ontology tables in the text: "Cleft palate 90%".
_PHENOTYPE_ROW = re.compile(r"([A-Z][A-Za-z/,\- ]{3,70}?)\s+(\d+(?:\.\d+)?%|-(?=\s[A-Z]))")
_MAX_REPEATS = 2


@dataclass(frozen=True)
class Name:
    """A name of a topic and what kind of thing it names."""

    words: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class OpenText:
    """Segments of the open text, the names it defines, and phrases of its phenotype tables."""

    segments: list[str]
    names: list[Name]
    documents: int
    words: int


def words_of(text: str) -> list[str]:
    """The words of ``text``, lower-cased."""
    return WORD.findall(text.lower())


def _segments(answer: str) -> list[str]:
    found = []
    for line in answer.split("\n"):
        line = re.sub(r"\s+", " ", line).strip()
        for sentence in _SENTENCE_END.split(line):
            count = len(sentence.split())
            if 4 <= count <= 60:
                found.append(sentence)
            elif count > 60:
                pieces = sentence.split()
                found += [" ".join(pieces[i : i + 40]) for i in range(0, len(pieces) - 4, 40)]
    return found


_DOSE_FORM = re.compile(
    r"\b(injection|oral|topical|ophthalmic|inhalation|nasal|otic|vaginal|rectal|transdermal|"
    r"transdermal patch|buccal|intravitreal|implant|spray|and)\b.*",
    re.IGNORECASE,
)


_OF_A_TEST = re.compile(r"\b((blood|urine|csf|stool|serum|plasma) )?(test|tests|testing|level)$")


def _topic_names(record: dict[str, Any]) -> Iterator[Name]:
    """Every name of a topic and, of one without semantic type, what kind its names tell."""
    kind = (record["semantic_types"] or [record.get("category", "other")])[0]
    written = [record["focus"], *record["synonyms"]]
    if kind in ("Other", "other"):
        if any(name.lower().endswith(" overdose") for name in written):
            kind = "Drug"
            written = [re.sub(r" overdose$", "", name, flags=re.IGNORECASE) for name in written]
        else:
            heads = {class_of_head(words[-1]) for n in written if (words := _clean_name(n, kind))}
            told = heads & {"exam", "operation"}
            # A synonym is of its topic's kind even where its own words do not tell.
            kind = told.pop() if len(told) == 1 else kind
    for name in written:
        words = _clean_name(name, kind)
        yield Name(words, kind)
        if kind == "exam":
            yield Name(tuple(_OF_A_TEST.sub("", " ".join(words)).split()), kind)


def _clean_name(name: str, kind: str) -> tuple[str, ...]:
    name = re.split(r" - |\(|,", name)[0]
    if kind == "Drug":
        name = _DOSE_FORM.sub("", name)
    return tuple(words_of(name))


def _tells(name: Name, disorders: set[tuple[str, ...]]) -> bool:
    if not name.words or name.words in disorders:
        return False
    return class_of_head(name.words[-1]) in (None, name.kind)


def read_open_text(folder: Path) -> OpenText:
    """Read ``medquad.jsonl.gz`` and ``medquad_names.jsonl.gz`` of ``folder``.

    Raises:
        FileNotFoundError: one of the files is not there.
    """
    segments: list[str] = []
    repeats: Counter[str] = Counter()
    names: set[Name] = set()
    phenotypes: Counter[tuple[str, ...]] = Counter()
    documents = words = 0
    with gzip.open(folder / "medquad.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            documents += 1
            names.update(_topic_names(record))
            for qa in record["qa"]:
                words += len(qa["answer"].split())
                for match in _PHENOTYPE_ROW.finditer(qa["answer"]):
                    if qa["type"] == "symptoms":
                        phenotypes[tuple(words_of(match.group(1)))] += 1
                for segment in _segments(qa["answer"]):
                    repeats[segment] += 1
                    if repeats[segment] <= _MAX_REPEATS:
                        segments.append(segment)
    with gzip.open(folder / "medquad_names.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            names.update(_topic_names(json.loads(line)))
    names |= {Name(words, "phenotype") for words, n in phenotypes.items() if n >= 3}
    # "Osteoarthritis - surgery" does not make osteoarthritis a kind of surgery.
    disorders = {name.words for name in names if re.match(r"T\d", name.kind)}
    names = {n for n in names if n.kind not in ("exam", "operation") or _tells(n, disorders)}
    usable = sorted(
        (n for n in names if n.words and 1 <= len(n.words) <= 7 and len("".join(n.words)) > 3),
        key=lambda n: (n.words, n.kind),
    )
    return OpenText(segments, usable, documents, words)
