"""What the files of a run folder hold, as checked records; what they hold besides is ignored.

A number that is not finite (the loss of a training that diverged) is ``None``.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fedmedlora.evaluation.tally import Matching, Task

MethodKind = Literal[
    "untrained",
    "dictionary",
    "single",
    "federated",
    "personal",
    "adapted",
    "new-site",
    "centralised",
]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
Count = Annotated[int, Field(ge=0)]
#: How many, or which: then they are counted.
Many = Annotated[Count | None, BeforeValidator(lambda v: len(v) if isinstance(v, list) else v)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Method(_Record):
    """A row of the study's tables.

    Attributes:
        label: its name everywhere in the run folder.
        kind: what it stands for in a comparison.
        method: what it is called in a study file; "" where a run does not say.
        site: of which site it is, if of one.
        of: label of the method that it started from.
        notes: local notes that it was trained on, of a new site.
    """

    label: str
    kind: MethodKind
    method: str = ""
    site: str | None = None
    of: str | None = None
    notes: Count | None = None


class SiteRound(_Record):
    """One site in one round; see ``federation.records.SiteRecord``."""

    status: str = "ok"
    weight: Number = None
    loss_first: Number = None
    loss_last: Number = None
    validation_loss: Number = None
    bytes_down: Count = 0
    bytes_up: Count = 0


class Round(_Record):
    """One round of one method; see ``federation.records.RoundRecord``."""

    round: Count
    method: str
    sites: dict[str, SiteRound]


class Cost(_Record):
    """What a method that asks a service used and cost."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    requests: Count = 0
    usd: Number = None


class PrivateSite(_Record):
    """What a site spent; see ``study.privacy``."""

    epsilon: Number = None
    noise: Number = None
    rate: Number = None
    steps: Count = 0
    units: Count = 0


class Privacy(_Record):
    """A method's promise, and all that its number means nothing without."""

    epsilon: Number = None
    budget: Number = None
    delta: Number = None
    unit: str = ""
    neighbours: str = ""
    sampling: str = ""
    accountant: str = ""
    max_grad_norm: Number = None
    adversary: str = ""
    covers: str = ""
    sites: dict[str, PrivateSite] = {}


class Done(_Record):
    """What was noted when a method ended: wall time, memory, sizes in parameters, rounds."""

    seconds: Number = None
    peak_memory_mb: Number = None
    backbone_parameters: Count | None = None
    adapter_parameters: Count | None = None
    encoder: str | None = None
    rounds: tuple[Round, ...] = ()
    cost: Cost | None = None
    privacy: Privacy | None = None


class Membership(_Record):
    """How well losses tell training notes; see ``leakage.records``."""

    method: str
    site: str
    against: str
    unit: str
    members: Count
    others: Count
    score: str
    auc: float
    low: float
    high: float
    tpr: Number = None
    tpr_low: Number = None
    tpr_high: Number = None


class Exposed(_Record):
    """By how many bits planted secrets stand out; see ``leakage.records``."""

    method: str
    kind: str
    repetitions: Count
    canaries: Count
    candidates: Count
    bits: float
    low: Number = None
    high: Number = None
    most: float


class RareWords(_Record):
    """How well rare words of a site can be told from a round; see ``leakage.records``."""

    method: str
    site: str
    round: Count
    seen: str
    question: str
    members: Count
    others: Count
    auc: float
    low: float
    high: float
    precision: float
    chance: float


class Leakage(_Record):
    """leakage.json: what attacks on the run's adapters found."""

    membership: tuple[Membership, ...] = ()
    exposure: tuple[Exposed, ...] = ()
    words: tuple[RareWords, ...] = ()
    missing: tuple[str, ...] = ()


class Comparison(_Record):
    """F1 of ``first`` minus F1 of ``second`` on the same notes, with its paired interval."""

    question: str
    site: str | None = None
    cohort: str
    task: Task
    matching: Matching
    type: str = "micro"
    first: str
    second: str
    f1: Number = None
    low: Number = None
    high: Number = None
    p: Number = None


class ValidationRound(_Record):
    """F1 of a method on validation notes after a round."""

    method: str
    round: Count
    task: Task
    matching: Matching
    f1: Number = None


class Variant(_Record):
    """Another run of the same study, in a folder of its own inside this one."""

    name: str
    kind: Literal["seeds", "scaling", "variant"]
    folder: str
    seed: int | None = None
    sites: Many = None


class SeedScore(_Record):
    """F1 of a method by seed, their mean and its interval."""

    method: str
    cohort: str
    task: Task
    matching: Matching
    type: str = "micro"
    seeds: tuple[int, ...]
    f1: tuple[Number, ...]
    mean: Number = None
    low: Number = None
    high: Number = None


class Part(_Record):
    """A site or a cohort, as data.json describes it."""

    train: Count | None = None
    validation: Count | None = None
    documents: Count | None = None
    tasks: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    annotates: dict[str, str] | None = None
    training_examples: dict[str, Count] = {}
    withheld: Count = 0
    canaries: Count = 0


class Data(_Record):
    """data.json: sites and cohorts by name, in the study's order."""

    sites: dict[str, Part] = {}
    cohorts: dict[str, Part] = {}
