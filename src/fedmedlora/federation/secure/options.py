"""What secure aggregation is asked to do, and what all parties of it must have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from fedmedlora.aggregation.methods import METHODS, Method
from fedmedlora.aggregation.ring import Ring
from fedmedlora.canonical import canonical, sha256
from fedmedlora.errors import ConfigError, FederationError
from fedmedlora.federation.signing import is_public_key

#: With two, each knows the other's update from the sum.
LEAST_SITES = 3


@dataclass(frozen=True, slots=True)
class SecureOptions:
    """How a federation aggregates securely.

    Attributes:
        threshold: t; so many sites together can unmask, fewer cannot, and a sum is of so many at
            least; ``None`` is two thirds of the sites, rounded down, and one. At most n - t may
            fall silent: of three sites none. Fewer than t sites together with a coordinator that
            keeps to the protocol learn nothing of one other site; with one that does not, fewer
            than 2t - n.
        largest_weight: W > 0; a larger weight of a site is cut to it.
        largest_norm: C > 0; a longer update is cut to it.
        reference_loss: L_0 of the weights by loss; see ``weights.unnormalised_weight``.
    """

    threshold: int | None = None
    largest_weight: float = 1e7
    largest_norm: float = 1e3
    reference_loss: float = 0.0

    def threshold_of(self, sites: int) -> int:
        """t for so many sites.

        Raises:
            ConfigError: there are fewer than three, or t is not more than half of them.
        """
        if sites < LEAST_SITES:
            raise ConfigError(
                f"federation.secure_aggregation: {sites} sites are too few: of two, each knows the "
                f"other's update from the sum; {LEAST_SITES} are needed"
            )
        threshold = 2 * sites // 3 + 1 if self.threshold is None else self.threshold
        if not sites < 2 * threshold <= 2 * sites:
            raise ConfigError(
                f"federation.secure_aggregation.threshold: {threshold} of {sites} sites; it must "
                f"be more than half of them ({sites // 2 + 1} at least): else two halves could be "
                "unmasked one by one, and more than all never are"
            )
        return threshold


@dataclass(frozen=True)
class Terms:
    """What every party of a secure aggregation holds, and signs the hash of.

    Attributes:
        run: id of the federation's run.
        public_keys: (site, long-term Ed25519 key in hexadecimal) of all sites, in the plan's order.
        threshold: t.
        largest_weight, largest_norm, reference_loss: see ``SecureOptions``.
        method: a name of ``aggregation.methods.METHODS``.
        size: what a site's data size counts.
        beta, tau: of weights by loss.

    Raises:
        ConfigError: a key that is none, two sites with one key, or a threshold, bound or method
            that cannot be.
    """

    run: str
    public_keys: tuple[tuple[str, str], ...]
    threshold: int
    largest_weight: float
    largest_norm: float
    reference_loss: float = 0.0
    method: str = "fed-medlora"
    size: Literal["tokens", "examples"] = "tokens"
    beta: float = 1.0
    tau: float = 1.0

    def __post_init__(self) -> None:
        keys = [key for _, key in self.public_keys]
        if not all(map(is_public_key, keys)) or len(set(keys)) < len(keys):
            raise ConfigError(
                "secure aggregation needs the public key of every site, another one of each"
            )
        SecureOptions(self.threshold).threshold_of(len(keys))
        if self.method not in METHODS:
            raise ConfigError(f"secure aggregation: there is no method {self.method!r}")
        self.ring  # noqa: B018  # its bounds are checked where it is made

    @classmethod
    def of(
        cls,
        options: SecureOptions,
        *,
        run: str,
        public_keys: Sequence[tuple[str, str]],
        **weighing: Any,
    ) -> Terms:
        """The terms of a federation.

        Args:
            options: that it has.
            run: id of its run.
            public_keys: of all sites, in the plan's order.
            weighing: ``method``, ``size``, ``beta``, ``tau``.

        Raises:
            ConfigError: as of the class, and of ``SecureOptions.threshold_of``.
        """
        return cls(
            run,
            tuple(public_keys),
            options.threshold_of(len(public_keys)),
            largest_weight=options.largest_weight,
            largest_norm=options.largest_norm,
            reference_loss=options.reference_loss,
            **weighing,
        )

    def need(self, found: int, done: str) -> None:
        """Refuse to go on with fewer sites than the threshold.

        Args:
            found: so many are left.
            done: what they have done.

        Raises:
            FederationError: they are too few.
        """
        if found < self.threshold:
            count = len(self.public_keys)
            raise FederationError(
                f"{found} sites {done}, {self.threshold} are needed (by secure_aggregation."
                f"threshold {count - self.threshold} of {count} may fall silent)"
            )

    @property
    def sites(self) -> tuple[str, ...]:
        """Their names; a site's place, from 1, is the number of its shares."""
        return tuple(site for site, _ in self.public_keys)

    @property
    def rules(self) -> Method:
        """What the method has sites train and send, and how it weighs them."""
        return METHODS[self.method]

    @property
    def ring(self) -> Ring:
        """What rows are made in."""
        return Ring(len(self.public_keys), self.largest_weight, self.largest_norm)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of all of it."""
        return sha256(canonical(asdict(self)))
