"""Surface words alone do not suffice: a dictionary of the training mentions stays behind."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest

from fedmedlora.corpus.synthetic import held_out_vocabulary, make_sites
from fedmedlora.schema import DEFAULT_SCHEME, Document

Span = tuple[str, int, int]
_TOKEN = re.compile(r"\w+|[^\w\s]")


@pytest.fixture(scope="module")
def sites():
    return make_sites(23, train=300, validation=0, test=100)


def dictionary_of(documents: Iterable[Document]) -> dict[tuple[str, ...], str]:
    """Mention -> its most frequent type."""
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for note in documents:
        for e in note.entities:
            counts[tuple(_TOKEN.findall(note.text[e.start : e.end].lower()))][e.type] += 1
    return {mention: types.most_common(1)[0][0] for mention, types in counts.items()}


def longest_matches(note: Document, dictionary: dict[tuple[str, ...], str]) -> set[Span]:
    tokens = [(m[0].lower(), m.start(), m.end()) for m in _TOKEN.finditer(note.text)]
    longest = max(map(len, dictionary))
    found: set[Span] = set()
    at = 0
    while at < len(tokens):
        for size in range(min(longest, len(tokens) - at), 0, -1):
            kind = dictionary.get(tuple(token for token, _, _ in tokens[at : at + size]))
            if kind:
                found.add((kind, tokens[at][1], tokens[at + size - 1][2]))
                at += size
                break
        else:
            at += 1
    return found


def strict_f1(
    documents: Iterable[Document], dictionary: dict[tuple[str, ...], str], types: Iterable[str]
) -> float:
    types = set(types)
    hits = both = 0
    for note in documents:
        gold = {(e.type, e.start, e.end) for e in note.entities if e.type in types}
        found = {span for span in longest_matches(note, dictionary) if span[0] in types}
        hits += len(gold & found)
        both += len(gold) + len(found)
    return 2 * hits / both


def test_a_dictionary_finds_no_held_out_main_entity(sites):
    dictionary = dictionary_of(note for site in sites.values() for note in site.train)
    held_out = held_out_vocabulary()
    asked = 0
    for note in (note for site in sites.values() for note in site.test):
        found = longest_matches(note, dictionary)
        for e in note.entities:
            if e.type in DEFAULT_SCHEME.mains and note.text[e.start : e.end].lower() in held_out:
                asked += 1
                assert (e.type, e.start, e.end) not in found
    assert asked > 1000


def test_a_dictionary_of_all_sites_stays_below_three_quarters(sites):
    dictionary = dictionary_of(note for site in sites.values() for note in site.train)
    test = [note for site in sites.values() for note in site.test]
    assert strict_f1(test, dictionary, DEFAULT_SCHEME.types) < 0.75
    assert strict_f1(test, dictionary, DEFAULT_SCHEME.mains) < 0.65


def test_one_site_knows_too_little_for_all_of_them(sites):
    test = [note for site in sites.values() for note in site.test]
    mains = DEFAULT_SCHEME.mains
    pooled = dictionary_of(note for site in sites.values() for note in site.train)
    for site in sites.values():
        alone = strict_f1(test, dictionary_of(site.train), mains)
        assert alone < strict_f1(test, pooled, mains) - 0.1


def test_the_same_words_are_a_drug_here_and_a_test_or_nothing_there(sites):
    types: dict[str, set[str]] = defaultdict(set)
    notes = [note for site in sites.values() for note in site.train]
    for note in notes:
        for e in note.entities:
            types[note.text[e.start : e.end].lower()].add(e.type)
    assert {"drug", "test"} <= types["potassium"]
    amounts = [mention for mention, kinds in types.items() if {"strength", "dosage"} <= kinds]
    assert len(amounts) > 20
    spans = [mention for mention, kinds in types.items() if {"duration", "temporal"} <= kinds]
    assert spans
    assert any(re.search(r"follow up in the [\w ]+ clinic", n.text.lower()) for n in notes)
