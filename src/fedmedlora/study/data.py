"""A study's data: its configuration in, sites and cohorts as documents out."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmedlora.config import Cohort, Site, Study, covered
from fedmedlora.corpus.read import check_splits, read_documents
from fedmedlora.corpus.synthetic import make_sites
from fedmedlora.errors import ConfigError, DataError
from fedmedlora.schema import Document, Scheme, observed_types
from fedmedlora.seeds import derive_seed

POOLED = "pooled"
"""The name of the one site that centralised training has."""


@dataclass(frozen=True, slots=True)
class SiteData:
    """A site's notes and the types that its annotators looked for."""

    name: str
    train: tuple[Document, ...]
    validation: tuple[Document, ...]
    covers: frozenset[str]


@dataclass(frozen=True, slots=True)
class CohortData:
    """Test notes and the types that their annotators looked for."""

    name: str
    documents: tuple[Document, ...]
    covers: frozenset[str]


@dataclass(frozen=True, slots=True)
class StudyData:
    """All notes of a study; cohorts are the sites' test notes, then the study's own."""

    sites: tuple[SiteData, ...]
    cohorts: tuple[CohortData, ...]
    server_validation: tuple[Document, ...] = ()

    def site(self, name: str) -> SiteData:
        """The site of this name.

        Raises:
            KeyError: there is none.
        """
        for site in self.sites:
            if site.name == name:
                return site
        raise KeyError(name)


def load_data(study: Study) -> StudyData:
    """Read every file that the study names, check the splits and draw the samples.

    Raises:
        DataError: a file is missing or malformed, or a document is in two splits.
        ConfigError: a site has nothing of a type that it is said to annotate.
    """
    scheme = study.make_scheme()
    sites, cohorts = [], []
    for name, site in study.sites.items():
        splits = _read_site(name, site, root=Path(study.root))
        check_splits(splits)
        covers = _coverage(name, site.annotates, splits["train"], scheme=scheme)
        drawn = {
            split: _draw(study.seed, documents, getattr(site.sample, split), name, split)
            for split, documents in splits.items()
        }
        sites.append(SiteData(name, drawn["train"], drawn["validation"], covers))
        cohorts.append(CohortData(name, drawn["test"], covers))
    for name, cohort in study.cohorts.items():
        cohorts.append(_read_cohort(name, cohort, study, scheme=scheme))
    server = (
        ()
        if study.server_validation is None
        else tuple(read_documents(Path(study.root) / study.server_validation))
    )
    return StudyData(tuple(sites), tuple(cohorts), server)


def _read_site(name: str, site: Site, *, root: Path) -> Mapping[str, Sequence[Document]]:
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
        documents = read_documents(root / str(file))
        if not documents:
            raise DataError(f"site {name!r} has no {split} notes", path=root / str(file))
        splits[split] = documents
    return splits


def _read_cohort(name: str, cohort: Cohort, study: Study, *, scheme: Scheme) -> CohortData:
    documents = read_documents(Path(study.root) / cohort.test)
    covers = covered(cohort.annotates)
    if covers is None:
        covers = observed_types(documents) & set(scheme.types)
    drawn = _draw(study.seed, documents, cohort.sample.test, name, "test")
    return CohortData(name, drawn, covers)


def _coverage(
    name: str,
    annotates: Mapping[str, str] | Sequence[str] | None,
    train: Sequence[Document],
    *,
    scheme: Scheme,
) -> frozenset[str]:
    observed = observed_types(train) & set(scheme.types)
    covers = covered(annotates)
    if covers is None:
        covers = observed
    missing = sorted(covers - observed)
    if missing:
        raise ConfigError(
            f"sites.{name}.annotates: {', '.join(missing)} never occurs in its training notes; a "
            "type that nobody marked must not be asked for: leave it out or say none"
        )
    if not covers:
        raise ConfigError(f"sites.{name}: no annotation of any type of the scheme")
    return covers


def _draw(
    seed: int, documents: Sequence[Document], count: int | None, *purpose: str
) -> tuple[Document, ...]:
    """``count`` documents by the study's seed, in their own order; all if there are no more."""
    if count is None or count >= len(documents):
        return tuple(documents)
    rng = random.Random(derive_seed(seed, "sample", *purpose))
    return tuple(documents[i] for i in sorted(rng.sample(range(len(documents)), count)))
