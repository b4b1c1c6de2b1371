"""Gold answers over the open corpora are read back; skipped where the folder is absent."""

import os
from pathlib import Path

import pytest
from task_notes import SCHEME

from fedmedlora.corpus.jsonl import read_jsonl
from fedmedlora.schema import observed_types
from fedmedlora.tasks.build import build_examples
from fedmedlora.tasks.reading import predict_documents
from fedmedlora.tasks.settings import TaskSettings

SHARED = Path(
    os.environ.get("FEDMEDLORA_SHARED", Path(__file__).resolve().parents[2] / ".." / "shared")
)
FILES = [
    "case_reports/validation",
    "trial_eligibility/validation",
    "pharmacovigilance/validation",
    "drug_labels/validation",
    "chemical_disease/test",
]

pytestmark = pytest.mark.corpora


def read_corpus(name, most=100):
    path = SHARED / "corpora" / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"the open corpora are not at {SHARED}")
    return read_jsonl(path)[:most]


@pytest.mark.parametrize("heads", ["marked", "numbered"])
@pytest.mark.parametrize("name", FILES)
def test_real_annotation_survives_the_way_to_answers_and_back(name, heads):
    documents = read_corpus(name)
    examples, report = build_examples(
        documents,
        covers=observed_types(documents),
        scheme=SCHEME,
        settings=TaskSettings(heads=heads, prompt="compact"),
    )
    answers = [(example, example.answer) for example in examples]
    result = predict_documents(documents, answers, scheme=SCHEME, tasks=("entities", "modifiers"))
    read = sum(len(d.entities) for d in result["entities"].documents)
    lost = report.entities_cut + report.entities_crossing + report.entities_repeated
    assert read == report.entities - lost
    related = sum(len(d.relations) for d in result["modifiers"].documents)
    unsaid = report.relations_invalid + report.relations_cut + report.relations_apart
    unsaid += report.relations_crossing + report.relations_repeated
    assert related == report.relations - unsaid
    gold = {(d.id, e.type, e.start, e.end) for d in documents for e in d.entities}
    for reading in result.values():
        found = {(d.id, e.type, e.start, e.end) for d in reading.documents for e in d.entities}
        assert found <= gold
        assert reading.counts.accepted == reading.counts.spans
    # Windows of forty words cut few: less than one entity in a hundred, one relation in twenty.
    assert lost <= report.entities / 100
    assert unsaid <= report.relations / 20


def test_lower_cased_answers_with_other_white_space_keep_every_offset():
    documents = read_corpus("case_reports/validation", most=5)
    examples, _ = build_examples(
        documents,
        covers=observed_types(documents),
        scheme=SCHEME,
        settings=TaskSettings(tasks=("entities",)),
    )
    exact = [(example, example.answer) for example in examples]
    changed = [(example, " ".join(example.answer.split()).lower()) for example in examples]
    first, second = (
        predict_documents(documents, answers, scheme=SCHEME)["entities"]
        for answers in (exact, changed)
    )
    assert first.documents == second.documents
    assert second.counts.changed == len(examples)
    assert second.counts.accepted == first.counts.accepted > 250
