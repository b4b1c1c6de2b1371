"""Open medical text in (MedQuAD), segments of words and lists of names out.

A segment is one sentence, or a few list lines, of 4 to 60 words. Words are what the tokenizer
also sees as words: runs of letters, runs of digits, single punctuation marks, line breaks.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

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


def _clean_name(name: str, kind: str) -> tuple[str, ...]:
    name = re.split(r" - |\(|,", name)[0]
    if kind == "Drug":
        name = _DOSE_FORM.sub("", name)
    return tuple(words_of(name))


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
            kind = (record["semantic_types"] or ["other"])[0]
            for name in (record["focus"], *record["synonyms"]):
                names.add(Name(_clean_name(name, kind), kind))
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
            record = json.loads(line)
            kind = (record["semantic_types"] or [record["category"]])[0]
            for name in (record["focus"], *record["synonyms"]):
                names.add(Name(_clean_name(name, kind), kind))
    names |= {Name(words, "phenotype") for words, n in phenotypes.items() if n >= 3}
    usable = sorted(
        (n for n in names if n.words and 1 <= len(n.words) <= 7 and len("".join(n.words)) > 3),
        key=lambda n: (n.words, n.kind),
    )
    return OpenText(segments, usable, documents, words)
