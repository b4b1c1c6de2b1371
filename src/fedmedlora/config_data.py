"""Whose notes a study has: sites, cohorts, new sites, and how they are shared anew."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedmedlora.config_base import Coverage, Label, Place, Positive, Rank, Section, TaskName


class SyntheticData(Section):
    """Notes made by ``corpus.synthetic``: how many of each split."""

    style: Literal["icu", "outpatient", "discharge"]
    train: Positive
    validation: Positive
    test: Positive
    seed: int = 1


class Sample(Section):
    """How many documents of each split to use, drawn by the study's seed; None is all."""

    train: Positive | None = None
    validation: Positive | None = None
    test: Positive | None = None


class Cohort(Section):
    """Notes to be scored on that no site trains on: an external cohort, or a new site's."""

    test: Place
    annotates: dict[str, Coverage] | list[str] | None = None
    sample: Sample = Sample()


class SiteAdapter(Section):
    """A rank of a site's own, at most the study's; see ``AdapterConfig``."""

    rank: Rank
    alpha: Annotated[float, Field(gt=0)]


class Site(Section):
    """A site's notes. Its test notes are a cohort of the same name.

    Attributes:
        train, validation, test: files or folders in any format that ``corpus.read`` knows,
            relative to the study's ``root``.
        annotates: type -> exhaustive, partial or none, or a list of the types annotated; by
            default the types that occur in the training notes.
        synthetic: instead of files. A site that has neither is elsewhere: only a federation over
            machines can train there.
        sample: see ``Sample``.
        strip: types whose annotation is taken away from the training and validation notes, as if
            its annotators had never looked for them. Test notes keep theirs.
        tasks: the study's tasks that this site takes part in; by default all.
        adapter: rank and alpha of its own, for methods that combine mixed ranks.
    """

    train: Place | None = None
    validation: Place | None = None
    test: Place | None = None
    synthetic: SyntheticData | None = None
    annotates: dict[str, Coverage] | list[str] | None = None
    sample: Sample = Sample()
    strip: tuple[str, ...] = ()
    tasks: tuple[TaskName, ...] | None = None
    adapter: SiteAdapter | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Site:
        files = [self.train, self.validation, self.test]
        if self.synthetic is None and any(files) and None in files:
            raise ValueError("give the files train, validation and test, or synthetic")
        if self.synthetic is not None and any(files):
            raise ValueError("give either files or synthetic, not both")
        return self

    @property
    def elsewhere(self) -> bool:
        """Whether its notes are not here."""
        return self.synthetic is None and self.train is None


class NewSite(Site):
    """A site that did not take part, with a few notes of its own.

    Its test notes are a cohort. Every adapter of ``of`` is trained further on the first n of its
    training notes, in an order drawn by the seed.

    Attributes:
        notes: each n.
        of: the labels of trained methods to start from; by default every federated one.
        from_scratch: whether to train from nothing on the same notes as well.
    """

    notes: Annotated[tuple[Positive, ...], Field(min_length=1)]
    of: tuple[Label, ...] | None = None
    from_scratch: bool = True


class PartitionConfig(Section):
    """The sites' training and validation notes pooled and shared anew among equal sites.

    Attributes:
        sites: how many.
        by: ``even`` deals documents at random, ``group`` keeps groups whole, ``dirichlet`` draws
            label shares (uneven sites) and keeps groups whole.
        alpha: of the Dirichlet distribution; small is uneven.
    """

    sites: Positive
    by: Literal["even", "group", "dirichlet"] = "even"
    alpha: Annotated[float, Field(ge=1e-4, le=1e6)] = 0.5
