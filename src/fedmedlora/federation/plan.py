"""What a federation is given: the plan, and the sites' interface.

No Flower and no torch here: a site implements ``SiteWorker``; what comes of it is in ``records``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fedmedlora.aggregation.methods import METHODS, Part
from fedmedlora.aggregation.outliers import ScreeningOptions
from fedmedlora.aggregation.robust import RobustOptions
from fedmedlora.aggregation.server_optimiser import ServerOptions
from fedmedlora.errors import ConfigError
from fedmedlora.federation.secure.options import SecureOptions, Terms
from fedmedlora.federation.signing import is_public_key
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.packing import WIRES, Wire


@dataclass(frozen=True)
class FederationPlan:
    """One federated training.

    Attributes:
        run_id: marks every message; a reply of another run is refused.
        sites: their names, each once; the order of every sum.
        rounds: >= 1.
        method: a name of ``aggregation.methods.METHODS``.
        beta: exponent of the data size in Fed-MedLoRA+, >= 0.
        tau: temperature of the loss in Fed-MedLoRA+, > 0.
        validation: who scores the sites' adapters in Fed-MedLoRA+.
        size: what counts as a site's data size n_k; the authors count training tokens.
        wire: how sites send what they trained; see ``model.packing``.
        seed: recorded; the sites and the initial adapter derive theirs from the study's.
        ranks: (site, rank, alpha) of sites whose adapters have ranks of their own, no larger than
            the global adapter's; for methods that can combine them.
        server: how the server steps towards the average; by default all the way.
        screening: which well-formed replies are suspect, and what becomes of them.
        robust: what stands for the average, for methods that average.
        refactor_every: rounds between FedSVD's new factors; ``None`` for other methods.
        min_sites: fewer good replies than this end the run; ``None`` is all sites.
        base_model: name or path of the backbone, written into saved adapters.
        processes: worker processes for the sites; 1 calls them in this process, one after
            another.
        timeout_s: seconds to wait for the replies of one phase; ``None`` waits for ever. Sites in
            this process or its children are always waited for.
        connect_s: seconds to wait for all sites before round 1.
        public_keys: (site, Ed25519 key in hexadecimal) of every site, or of none; where they are,
            a reply counts only if its site signed it.
        keep_replies: keep what the sites sent, so that ``verify`` can make every round again.
        secure: aggregate securely: the server learns the sum of weighted updates and of weights.
            It needs all sites' keys, and nothing that looks at one site's update.

    Raises:
        ConfigError: a value out of range; the message names it.
    """

    run_id: str
    sites: tuple[str, ...]
    rounds: int
    method: str = "fed-medlora"
    beta: float = 1.0
    tau: float = 1.0
    validation: Literal["server", "sites"] = "sites"
    size: Literal["tokens", "examples"] = "tokens"
    wire: Wire = "bf16"
    seed: int = 0
    ranks: tuple[tuple[str, int, float], ...] = ()
    server: ServerOptions = field(default_factory=ServerOptions)
    screening: ScreeningOptions = field(default_factory=ScreeningOptions)
    robust: RobustOptions = field(default_factory=RobustOptions)
    refactor_every: int | None = None
    min_sites: int | None = None
    base_model: str = ""
    processes: int = 1
    timeout_s: float | None = None
    connect_s: float = 120.0
    public_keys: tuple[tuple[str, str], ...] = ()
    keep_replies: bool = False
    secure: SecureOptions | None = None

    def __post_init__(self) -> None:
        self._check_secure()
        rules = {
            "run_id": bool(self.run_id),
            "sites": bool(self.sites) and all(self.sites),
            "sites (each once)": len(set(self.sites)) == len(self.sites),
            "rounds": self.rounds >= 1,
            "method": self.method in METHODS,
            "beta": math.isfinite(self.beta) and self.beta >= 0,
            "tau": math.isfinite(self.tau) and self.tau > 0,
            "validation": self.validation in ("server", "sites"),
            "size": self.size in ("tokens", "examples"),
            "wire": self.wire in WIRES,
            "ranks": all(site in self.sites and r >= 1 and a > 0 for site, r, a in self.ranks),
            "ranks (the method has one for all sites)": not self.ranks
            or self.method not in METHODS
            or METHODS[self.method].mixed_ranks,
            "robust (the method does not average)": self.robust.rule == "none"
            or self.method not in METHODS
            or METHODS[self.method].averages,
            f"robust ({self.robust.least_sites} sites or more are needed)": self.robust.fits(
                len(self.sites), quorum=self.quorum
            ),
            "min_sites": self.min_sites is None or 1 <= self.min_sites <= len(self.sites),
            "refactor_every": self.refactor_every is None or self.refactor_every >= 1,
            "processes": self.processes >= 1,
            "public_keys (one for every site, or none)": not self.public_keys
            or sorted(site for site, _ in self.public_keys) == sorted(self.sites),
            "public_keys (64 hexadecimal digits each)": all(
                is_public_key(key) for _, key in self.public_keys
            ),
            "timeout_s": self.timeout_s is None or self.timeout_s > 0,
        }
        for name, holds in rules.items():
            if not holds:
                value = getattr(self, name.split()[0])
                raise ConfigError(f"federation: {name} is out of range: {value!r}")

    def _check_secure(self) -> None:
        if self.secure is None:
            return
        method = METHODS.get(self.method)
        refused = {
            "method": method is None or not method.linear,
            "validation": method is not None and method.scored and self.validation == "server",
            "wire": self.wire != "fp32",
            "ranks": bool(self.ranks),
            "screening": not self.screening.is_off,
            "robust": self.robust.rule != "none",
        }
        for name, is_there in refused.items():
            if is_there:
                value = getattr(self, name)
                raise ConfigError(f"federation: {name} {value!r} cannot be with secure_aggregation")
        threshold = self.secure.threshold_of(len(self.sites))
        if self.quorum < threshold:
            raise ConfigError(
                f"federation: min_sites is {self.quorum}, and secure_aggregation cannot unmask "
                f"with fewer than {threshold}"
            )

    @property
    def terms(self) -> Terms:
        """What all parties of its secure aggregation have in common.

        Raises:
            ConfigError: it has none, or they cannot be.
        """
        if self.secure is None:
            raise ConfigError("federation: secure_aggregation is off")
        keys = dict(self.public_keys)
        return Terms.of(
            self.secure,
            run=self.run_id,
            public_keys=[(site, keys.get(site, "")) for site in self.sites],
            method=self.method,
            size=self.size,
            beta=self.beta,
            tau=self.tau,
        )

    @property
    def quorum(self) -> int:
        """The least number of sites whose replies are good enough to go on."""
        return len(self.sites) if self.min_sites is None else self.min_sites

    @property
    def ttl_s(self) -> float:
        """How long a message stays valid, in seconds: twice the time limit, so that answers that
        come a little late are known of; a week if there is none."""
        return 7 * 24 * 3600.0 if self.timeout_s is None else 2 * self.timeout_s


@dataclass(frozen=True)
class Order:
    """What a site is asked to do with the adapter that it got.

    Attributes:
        round: from 1.
        trains: the factors to train; the others are frozen.
        returns: the factors to send back; what else was trained is the site's own to keep.
        initial: SHA-256 of the adapter that round 1 began with, if the site is to complete what it
            got: a site makes that adapter from the study's seed.
        residual: a second low-rank pair, frozen and added to the backbone.
    """

    round: int
    trains: Part = "AB"
    returns: Part = "AB"
    initial: str = ""
    residual: Adapter | None = None


@dataclass(frozen=True)
class SiteUpdate:
    """What a site makes of the global adapter in one round.

    Attributes:
        adapter: trained, or those of its factors that were asked for; its manifest is the order's.
        examples: training examples used, > 0.
        tokens: training tokens used, > 0.
        loss_first: mean training loss of the first logged step, ``None`` if not known.
        loss_last: likewise of the last.
        seconds: wall time of the training; 0 of a private site.
        counts: further numbers for the record (rows cut, steps); names and numbers only.
    """

    adapter: Adapter
    examples: int
    tokens: int
    loss_first: float | None
    loss_last: float | None
    seconds: float
    counts: Mapping[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Declared:
    """The most that a site trains on in one round, and scores on, said when it joins.

    Attributes:
        examples: > 0.
        tokens: > 0.
        validation: tokens of its validation notes; 0 if it scores nothing.
    """

    examples: int
    tokens: int
    validation: int = 0


@dataclass(frozen=True)
class SiteLosses:
    """What a site finds of the candidate adapters.

    Attributes:
        losses: mean loss a token of each candidate on the site's own validation notes.
        tokens: how many tokens that mean was taken over, > 0.
    """

    losses: Sequence[float]
    tokens: int


class SiteWorker(Protocol):
    """A site, as the federation sees it.

    A worker may be built anew for a call (in another process): the adapter, losses and sizes that
    it returns depend on its site's data and its arguments alone, never on earlier calls.
    """

    name: str

    def declared(self) -> Declared:
        """The most that ``train`` and ``losses`` will say they used."""
        ...

    def train(self, adapter: Adapter, order: Order) -> SiteUpdate:
        """Train a copy of the global adapter on the site's own examples."""
        ...

    def losses(self, adapters: Sequence[Adapter]) -> SiteLosses:
        """Score candidate adapters on the site's own validation notes."""
        ...


#: Makes a site's worker by name. With worker processes or Flower's simulation it is sent to other
#: processes: a module's function, or ``functools.partial`` of one, with small arguments.
SiteFactory = Callable[[str], SiteWorker]
Workers = SiteFactory | Mapping[str, SiteWorker]
ServerLosses = Callable[[Sequence[Adapter]], Sequence[float]]


class OnEvent(Protocol):
    """Told of progress.

    ``kind`` is set-aside, log-gap, joined, round, reply, late, scoring, name-taken, not-believed,
    turned-away, round-done or round-failed.
    """

    def __call__(self, kind: str, /, **facts: object) -> None: ...
