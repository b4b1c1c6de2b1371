"""MACCROBAT2020 through the shipped mapping: exact counts, and how far another mapping agrees."""

import time
from collections import Counter

import pytest

from fedmedlora.corpus.brat import read_brat, write_brat
from fedmedlora.corpus.jsonl import read_jsonl
from fedmedlora.corpus.mapping import load_mapping
from fedmedlora.schema import DEFAULT_SCHEME

pytestmark = pytest.mark.corpora


@pytest.fixture(scope="module")
def reading(corpora):
    start = time.perf_counter()
    mapping = load_mapping("maccrobat", scheme=DEFAULT_SCHEME)
    documents, report = read_brat(corpora / "raw_brat/maccrobat2020", mapping)
    return documents, report, time.perf_counter() - start


@pytest.fixture(scope="module")
def gold(corpora):
    """The same documents as a neutral JSONL that was mapped by other hands."""
    splits = ("train", "validation", "test")
    documents = [d for s in splits for d in read_jsonl(corpora / f"case_reports/{s}.jsonl")]
    return {d.id.removeprefix("maccrobat-"): d for d in documents}


def test_everything_read_is_mapped_or_skipped_for_a_reason(reading):
    documents, report, seconds = reading
    assert seconds < 10
    assert report.documents == len(documents) == 200
    assert report.balanced
    # the numbers of T, R, E, A, # and * lines of the corpus
    assert report.spans.totals() == (25_189, 19_371, 5_818)
    assert report.relations.totals() == (16_307, 5_540, 10_767)
    assert sum(report.events.values()) == 14_368
    assert sum(report.attributes.values()) == 1_416
    assert sum(report.notes.values()) == 335
    assert sum(report.equivalences.values()) == 2_023
    assert sum(report.invalid_pairs.values()) == 1_880


def test_without_a_mapping_every_span_and_relation_is_kept(corpora):
    _, report = read_brat(corpora / "raw_brat/maccrobat2020")
    assert report.spans.totals() == (25_189, 25_189, 0)
    assert report.relations.totals() == (16_307, 16_307, 0)
    assert report.discontinuous == {"covering span": 39, "joined over line breaks": 5}


def test_spans_agree_with_the_other_mapping(reading, gold):
    documents, _, _ = reading
    both = ours = theirs = 0
    for document in documents:
        other = gold[document.id]
        assert document.text == other.text
        a = Counter((e.type, e.start, e.end) for e in document.entities)
        b = Counter((e.type, e.start, e.end) for e in other.entities)
        both, ours, theirs = both + (a & b).total(), ours + a.total(), theirs + b.total()
    # theirs also types some Detailed_description, Dosage and Administration spans by their words
    assert (both, ours, theirs) == (19_314, 19_371, 19_643)


def test_relations_other_than_times_agree_with_the_other_mapping(reading, gold):
    documents, _, _ = reading
    both = ours = theirs = 0
    for document in documents:
        a, b = Counter(_relations(document)), Counter(_relations(gold[document.id]))
        both, ours, theirs = both + (a & b).total(), ours + a.total(), theirs + b.total()
    # theirs also ties times to heads by OVERLAP groups of a sentence, which are no relations
    assert (both, ours, theirs) == (5_416, 5_456, 5_719)


def _relations(document):
    places = {e.id: (e.type, e.start, e.end) for e in document.entities}
    for relation in document.relations:
        if relation.type not in ("temporal", "duration"):
            yield places[relation.head], places[relation.tail]


def test_the_corpus_written_and_read_again_is_the_same(reading, tmp_path):
    documents, _, _ = reading
    write_brat(documents, tmp_path / "out")
    found, report = read_brat(tmp_path / "out")
    assert found == documents
    assert report.balanced
