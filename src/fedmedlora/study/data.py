"""A study's data: its configuration in, sites and cohorts as documents out."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from fedmedlora.config import Study, covered
from fedmedlora.config_data import Cohort, NewSite, Site
from fedmedlora.corpus.read import check_splits, read_documents
from fedmedlora.corpus.synthetic import make_sites
from fedmedlora.errors import ConfigError, DataError
from fedmedlora.schema import Document, Scheme, observed_types
from fedmedlora.seeds import derive_seed
from fedmedlora.study.partition import (
    partition_by_dirichlet,
    partition_by_group,
    partition_evenly,
    withhold_notes,
)
from fedmedlora.tasks.canaries import Canary, draw_canaries, plant

POOLED = "pooled"
"""The name of the one site that centralised training has."""


@dataclass(frozen=True, slots=True)
class SiteData:
    """A site's notes, the types that its annotators looked for, and the tasks it takes part in.

    ``withheld`` are training notes that nothing is trained on, ``canaries`` what was planted in
    the others: for the leakage meter.
    """

    name: str
    train: tuple[Document, ...]
    validation: tuple[Document, ...]
    covers: frozenset[str]
    tasks: tuple[str, ...]
    withheld: tuple[Document, ...] = ()
    canaries: tuple[Canary, ...] = ()


@dataclass(frozen=True, slots=True)
class CohortData:
    """Test notes and the types that their annotators looked for."""

    name: str
    documents: tuple[Document, ...]
    covers: frozenset[str]


@dataclass(frozen=True, slots=True)
class StudyData:
    """All notes of a study; cohorts are the test notes of sites, new sites and the study's own."""

    sites: tuple[SiteData, ...]
    cohorts: tuple[CohortData, ...]
    new_sites: tuple[SiteData, ...] = ()
    server_validation: tuple[Document, ...] = ()

    def site(self, name: str) -> SiteData:
        """The site, or new site, of this name.

        Raises:
            KeyError: there is none.
        """
        for site in (*self.sites, *self.new_sites):
            if site.name == name:
                return site
        raise KeyError(name)


def load_data(study: Study) -> StudyData:
    """Read every file that the study names, check the splits and draw the samples.

    Raises:
        DataError: a file is missing or malformed, or a document is in two splits.
        ConfigError: a site has nothing of a type that it is said to annotate, or the notes cannot
            be shared among so many sites.
    """
    scheme = study.make_scheme()
    sites, cohorts = [], []
    for name, site in study.sites.items():
        made, cohort = _load_site(name, site, study, scheme=scheme)
        sites.append(made)
        cohorts.append(cohort)
    new_sites = []
    for name, new in study.new_sites.items():
        made, cohort = _load_site(name, new, study, scheme=scheme)
        new_sites.append(made)
        cohorts.append(cohort)
        if max(new.notes) > len(made.train):
            raise ConfigError(
                f"new_sites.{name}.notes: {max(new.notes)} is more than its {len(made.train)} "
                "training notes"
            )
    for name, external in study.cohorts.items():
        cohorts.append(_read_cohort(name, external, study, scheme=scheme))
    if study.partition is not None:
        sites = _share(sites, study, scheme=scheme)
    sites = _for_the_meter(sites, study)
    server = (
        ()
        if study.server_validation is None
        else tuple(_read_once(Path(study.root) / study.server_validation))
    )
    return StudyData(tuple(sites), tuple(cohorts), tuple(new_sites), server)


def _for_the_meter(sites: Sequence[SiteData], study: Study) -> list[SiteData]:
    """Training notes withheld and canaries planted, as the study's leakage section says."""
    wanted, scheme, seed = study.leakage, study.make_scheme(), _data_seed(study)
    made = list(sites)
    if wanted.withhold:
        for place, site in enumerate(sites):
            kept, out = withhold_notes(
                site.train, wanted.withhold, seed=derive_seed(seed, "withhold", site.name)
            )
            made[place] = replace(site, train=kept, withheld=out)
    if wanted.canaries:
        mains = {site.name: [m for m in scheme.mains if m in site.covers] for site in made}
        drawn = draw_canaries(
            mains, count=wanted.canaries, repetitions=wanted.repetitions, seed=study.seed
        )
        for place, site in enumerate(made):
            own = tuple(one for one in drawn if one.site == site.name)
            train = plant(site.train, own, seed=study.seed)
            made[place] = replace(site, train=train, canaries=own)
    return made


def _read_once(path: Path) -> tuple[Document, ...]:
    """The documents of a file or folder; the runs of one study share those of a file."""
    if not path.is_file():
        return tuple(read_documents(path))
    status = path.stat()
    return _read_file(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _read_file(path: Path, changed: int, size: int) -> tuple[Document, ...]:
    return tuple(read_documents(path))


def first_notes(site: SiteData, count: int, *, seed: int) -> SiteData:
    """A site with the first ``count`` of its training notes, in an order drawn by the seed.

    Fewer notes are always among more of them.
    """
    order = list(range(len(site.train)))
    random.Random(derive_seed(seed, "notes", site.name)).shuffle(order)
    return replace(site, train=tuple(site.train[place] for place in sorted(order[:count])))


def _load_site(
    name: str, site: Site, study: Study, *, scheme: Scheme
) -> tuple[SiteData, CohortData]:
    place = f"{'new_sites' if isinstance(site, NewSite) else 'sites'}.{name}"
    splits = _read_site(name, site, place=place, root=Path(study.root))
    check_splits(splits)
    covers = _coverage(place, site, splits["train"], scheme=scheme)
    drawn = {
        split: _draw(_data_seed(study), documents, getattr(site.sample, split), name, split)
        for split, documents in splits.items()
    }
    # A new site's few notes may lack a type that its annotators do mark.
    kept = (covers & observed_types(splits["train"])) - set(site.strip)
    if not kept:
        raise ConfigError(f"{place}.strip: nothing that it annotates is left")
    train, validation = (
        tuple(strip_types(document, frozenset(site.strip)) for document in drawn[split])
        for split in ("train", "validation")
    )
    tasks = study.task.tasks
    if site.tasks is not None:
        tasks = tuple(task for task in tasks if task in site.tasks)
        if not tasks:
            raise ConfigError(f"{place}.tasks: none of them is a task of the study")
    elif len(tasks) > 1 and not _says_whose(splits["train"], scheme):
        tasks = tuple(task for task in tasks if task != "modifiers")
    made = SiteData(name, train, validation, kept, tasks)
    return made, CohortData(name, drawn["test"], covers)


def _says_whose(documents: Sequence[Document], scheme: Scheme) -> bool:
    """Whether modifiers, if there are any, belong to something anywhere in these notes.

    Where they never do, nobody looked for whose they are, and examples would teach that nobody has
    any.
    """
    modifiers = any(e.type in scheme.modifiers for one in documents for e in one.entities)
    return not modifiers or any(one.relations for one in documents)


def _data_seed(study: Study) -> int:
    return study.seed if study.data_seed is None else study.data_seed


def strip_types(document: Document, types: frozenset[str]) -> Document:
    """A document as if nobody had looked for ``types``; relations at what is gone go with it."""
    if not types:
        return document
    entities = tuple(entity for entity in document.entities if entity.type not in types)
    left = {entity.id for entity in entities}
    return replace(
        document,
        entities=entities,
        relations=tuple(r for r in document.relations if r.head in left and r.tail in left),
        covers=None if document.covers is None else document.covers - types,
    )


def asked_of(
    site: SiteData, sites: Sequence[SiteData], *, absent: str
) -> tuple[SiteData, frozenset[str]]:
    """A site's notes as they train, and the types that are asked for in them.

    Args:
        site: the site.
        sites: all that train.
        absent: ``unknown`` asks for what the site annotates; ``negative`` for whatever any site
            does, as if what is not marked had been looked for.
    """
    if absent == "unknown":
        return site, site.covers
    covers = frozenset().union(*(one.covers for one in sites))
    train, validation = (
        tuple(replace(document, covers=None) for document in documents)
        for documents in (site.train, site.validation)
    )
    return replace(site, train=train, validation=validation), covers


def with_covers(document: Document, covers: frozenset[str]) -> Document:
    """A document that says by itself what was looked for in it."""
    return document if document.covers is not None else replace(document, covers=covers)


def _renamed(document: Document, site: str) -> Document:
    """Documents and groups of several sources may have the same names."""
    group = None if document.group is None else f"{site}/{document.group}"
    return replace(document, id=f"{site}/{document.id}", group=group)


_SHARE = {"even": partition_evenly, "group": partition_by_group}


def _share(sites: Sequence[SiteData], study: Study, *, scheme: Scheme) -> list[SiteData]:
    """The sites' notes shared anew; every document goes on saying what was looked for in it."""
    wanted = study.partition
    assert wanted is not None
    splits = {
        split: [
            _renamed(with_covers(document, site.covers), site.name)
            for site in sites
            for document in getattr(site, split)
        ]
        for split in ("train", "validation")
    }
    seed = derive_seed(_data_seed(study), "partition")
    if wanted.by == "dirichlet":
        mains = frozenset(scheme.mains)
        parts = partition_by_dirichlet(
            splits, wanted.sites, alpha=wanted.alpha, seed=seed, types=mains
        )
    else:
        parts = _SHARE[wanted.by](splits, wanted.sites, seed=seed)
    return [
        SiteData(
            name,
            part["train"],
            part["validation"],
            frozenset().union(*(document.covers or () for document in part["train"])),
            study.task.tasks,
        )
        for name, part in zip(study.site_names, parts, strict=True)
    ]


def _read_site(
    name: str, site: Site, *, place: str, root: Path
) -> Mapping[str, Sequence[Document]]:
    if site.elsewhere:
        raise ConfigError(
            f"{place}: its notes are not here; give the files train, validation and test, or "
            "synthetic. A study whose notes stay at the hospitals is for `fedmedlora federation`"
        )
    if site.synthetic is not None:
        wanted = site.synthetic
        made = make_sites(
            wanted.seed,
            train=wanted.train,
            validation=wanted.validation,
            test=wanted.test,
            sites=(wanted.style,),
        )[wanted.style]
        return {"train": made.train, "validation": made.validation, "test": made.test}
    files = {"train": site.train, "validation": site.validation, "test": site.test}
    splits = {}
    for split, file in files.items():
        documents = _read_once(root / str(file))
        if not documents:
            raise DataError(f"site {name!r} has no {split} notes", path=root / str(file))
        splits[split] = documents
    return splits


def _read_cohort(name: str, cohort: Cohort, study: Study, *, scheme: Scheme) -> CohortData:
    documents = _read_once(Path(study.root) / cohort.test)
    covers = covered(cohort.annotates)
    if covers is None:
        covers = observed_types(documents) & set(scheme.types)
    drawn = _draw(_data_seed(study), documents, cohort.sample.test, name, "test")
    return CohortData(name, drawn, covers)


def _coverage(
    place: str, site: Site, train: Sequence[Document], *, scheme: Scheme
) -> frozenset[str]:
    observed = observed_types(train) & set(scheme.types)
    covers = covered(site.annotates)
    if covers is None:
        covers = observed
    missing = [] if isinstance(site, NewSite) else sorted(covers - observed)
    if missing:
        raise ConfigError(
            f"{place}.annotates: {', '.join(missing)} never occurs in its training notes; a "
            "type that nobody marked must not be asked for: leave it out or say none"
        )
    if not covers:
        raise ConfigError(f"{place}: no annotation of any type of the scheme")
    return covers


def _draw(
    seed: int, documents: Sequence[Document], count: int | None, *purpose: str
) -> tuple[Document, ...]:
    """``count`` documents by the study's seed, in their own order; all if there are no more."""
    if count is None or count >= len(documents):
        return tuple(documents)
    rng = random.Random(derive_seed(seed, "sample", *purpose))
    return tuple(documents[i] for i in sorted(rng.sample(range(len(documents)), count)))
