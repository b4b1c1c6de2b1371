"""Documents shared among sites: each once, groups whole, equal seeds alike, alpha as it should."""

from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedlora.errors import ConfigError
from fedmedlora.schema import Document, Entity
from fedmedlora.study.partition import (
    partition_by_dirichlet,
    partition_by_group,
    partition_evenly,
)


def note(name: str, kinds: str = "", group: str | None = None) -> Document:
    """A document with one entity of each letter's type."""
    entities = tuple(Entity(f"T{n}", kind, n, n + 1) for n, kind in enumerate(kinds))
    return Document(name, "x" * max(1, len(kinds)), entities, group=group)


def ids(part) -> dict[str, list[str]]:
    return {split: [d.id for d in documents] for split, documents in part.items()}


def sizes(parts, split: str = "train") -> list[int]:
    return [len(part[split]) for part in parts]


def by_dirichlet(splits, sites, *, seed):
    return partition_by_dirichlet(splits, sites, alpha=0.3, seed=seed)


EVERY = [partition_evenly, partition_by_group, by_dirichlet]
WHOLE = [partition_by_group, by_dirichlet]


@st.composite
def split_of(draw, prefix: str) -> list[Document]:
    groups = draw(st.lists(st.none() | st.sampled_from("pqrst"), min_size=4, max_size=25))
    kinds = st.sampled_from(["", "a", "b", "aab", "abb", "c"])
    documents = [note(f"{prefix}{n}", draw(kinds), group) for n, group in enumerate(groups)]
    # four groups at the least
    return documents + [note(f"{prefix}own{n}", "a") for n in range(4)]


_SPLITS = st.fixed_dictionaries({"train": split_of("t"), "validation": split_of("v")})


@pytest.mark.parametrize("partition", EVERY)
@given(splits=_SPLITS, sites=st.integers(1, 4), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_every_document_goes_to_one_site_in_its_order_and_no_site_is_empty(
    partition, splits, sites, seed
):
    parts = partition(splits, sites, seed=seed)
    assert len(parts) == sites
    for split, documents in splits.items():
        order = {d.id: n for n, d in enumerate(documents)}
        found = [[order[d.id] for d in part[split]] for part in parts]
        assert sorted(n for site in found for n in site) == list(range(len(documents)))
        assert all(site and site == sorted(site) for site in found)
    assert parts == partition(splits, sites, seed=seed)


@pytest.mark.parametrize("partition", WHOLE)
@given(splits=_SPLITS, sites=st.integers(1, 4), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_a_group_is_at_one_site(partition, splits, sites, seed):
    parts = partition(splits, sites, seed=seed)
    for split in splits:
        at = [{d.group for d in part[split] if d.group is not None} for part in parts]
        assert sum(map(len, at)) == len(set().union(*at))


@given(count=st.integers(3, 30), sites=st.integers(1, 3), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_even_sites_differ_by_one_document_at_most(count, sites, seed):
    parts = partition_evenly({"train": [note(str(n)) for n in range(count)]}, sites, seed=seed)
    assert max(sizes(parts)) - min(sizes(parts)) <= 1


@pytest.mark.parametrize("partition", EVERY)
def test_another_seed_shares_otherwise(partition):
    splits = {"train": [note(str(n), "a") for n in range(40)]}
    assert partition(splits, 2, seed=1) != partition(splits, 2, seed=2)


def test_the_largest_group_goes_first_and_each_to_the_smallest_site():
    # groups of 5, 4, 3, 2: 5 and 4 open the two sites, 3 joins 4, 2 joins 5
    sizes_of = {"p": 2, "q": 5, "r": 3, "s": 4}
    documents = [note(f"{g}{n}", group=g) for g, size in sizes_of.items() for n in range(size)]
    parts = partition_by_group({"train": documents}, 2, seed=7)
    assert sizes(parts) == [7, 7]
    assert [{d.group for d in part["train"]} for part in parts] == [{"p", "q"}, {"r", "s"}]


def test_a_document_without_group_is_one_of_its_own():
    documents = [note("a", group="p"), note("b"), note("c", group="p"), note("d")]
    parts = partition_by_group({"train": documents}, 2, seed=7)
    assert sorted(map(sorted, (ids(part)["train"] for part in parts))) == [["a", "c"], ["b", "d"]]


def test_sites_are_alike_where_alpha_is_large():
    # shares of very nearly a quarter of 80 and of 40
    documents = [note(f"a{n}", "a") for n in range(80)] + [note(f"b{n}", "b") for n in range(40)]
    parts = partition_by_dirichlet({"train": documents}, 4, alpha=1e6, seed=3)
    for part in parts:
        kinds = [d.entities[0].type for d in part["train"]]
        assert 19 <= kinds.count("a") <= 21
        assert 9 <= kinds.count("b") <= 11


def test_a_class_is_at_one_site_where_alpha_is_small_and_no_site_is_left_empty():
    documents = [note(f"a{n}", "a") for n in range(30)]
    for seed in range(20):
        parts = partition_by_dirichlet({"train": documents}, 3, alpha=1e-4, seed=seed)
        # one site gets all 30 and gives one each to the empty two
        assert sorted(sizes(parts)) == [1, 1, 28]


def test_sites_differ_less_where_alpha_is_larger():
    documents = [note(f"{kind}{n}", kind) for kind in "abc" for n in range(40)]

    def largest_share(alpha: float) -> float:
        """The mean, over seeds and classes, of the share at the site that has most of it."""
        found = []
        for seed in range(60):
            parts = partition_by_dirichlet({"train": documents}, 3, alpha=alpha, seed=seed)
            for kind in "abc":
                counts = [sum(d.entities[0].type == kind for d in p["train"]) for p in parts]
                found.append(max(counts) / 40)
        return mean(found)

    shares = [largest_share(alpha) for alpha in (0.1, 1.0, 100.0)]
    # a third is even; one is all
    assert shares[0] > shares[1] + 0.1 > shares[2] + 0.2
    assert shares[2] < 0.42


def test_validation_notes_have_the_shares_of_training_notes():
    def documents(prefix: str, count: int) -> list[Document]:
        return [note(f"{prefix}{kind}{n}", kind) for kind in "ab" for n in range(count)]

    splits = {"train": documents("t", 200), "validation": documents("v", 100)}
    for seed in range(10):
        parts = partition_by_dirichlet(splits, 3, alpha=0.5, seed=seed)
        for part in parts:
            for kind in "ab":
                train, validation = (
                    sum(d.entities[0].type == kind for d in part[split]) for split in splits
                )
                # as laid end to end, each share is cut to within one document; one may be moved
                assert abs(train / 2 - validation) <= 3


def test_the_class_of_a_group_is_the_type_that_it_has_most_of():
    # alpha so small that a class is at one site; group p has three a and two b: it goes with a
    documents = [
        *(note(f"a{n}", "a") for n in range(10)),
        *(note(f"b{n}", "b") for n in range(10)),
        note("p1", "bb", "p"),
        note("p2", "aaa", "p"),
    ]
    apart = 0
    for seed in range(20):
        parts = partition_by_dirichlet({"train": documents}, 2, alpha=1e-4, seed=seed)
        found = [set(ids(part)["train"]) for part in parts]
        if sorted(map(len, found)) != [10, 12]:
            continue  # both classes at one site
        apart += 1
        assert {"a0", "p1", "p2"} <= max(found, key=len)
    assert apart >= 5


def test_only_the_types_asked_for_make_classes():
    documents = [note(f"n{n}", "ab" if n % 2 else "abb") for n in range(12)]
    split = {"train": documents}
    only = partition_by_dirichlet(split, 2, alpha=1e-4, seed=1, types=["a"])
    # one class, all at one site, but for the one that the empty site is given
    assert sorted(sizes(only)) == [1, 11]
    same = [note(d.id, "a") for d in documents]
    assert list(map(ids, only)) == [
        ids(part) for part in partition_by_dirichlet({"train": same}, 2, alpha=1e-4, seed=1)
    ]


@pytest.mark.parametrize(
    ("partition", "count"), [(partition_evenly, 3), (partition_by_group, 2), (by_dirichlet, 2)]
)
def test_more_sites_than_there_is_something_for_are_refused(partition, count):
    documents = [note("a", "a", "p"), note("b", "a", "p"), note("c", "b")]
    partition({"validation": documents}, count, seed=1)
    with pytest.raises(ConfigError, match=f"validation: {count} .* among {count + 1} sites"):
        partition({"validation": documents}, count + 1, seed=1)
    with pytest.raises(ConfigError, match="0 sites"):
        partition({"train": documents}, 0, seed=1)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf"), 1e-9, 1e9])
def test_an_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ConfigError, match="alpha"):
        partition_by_dirichlet({"train": [note("a"), note("b")]}, 2, alpha=alpha, seed=1)
