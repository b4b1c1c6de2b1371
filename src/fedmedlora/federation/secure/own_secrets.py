"""What a site keeps of secure aggregation, in files of its own (mode 0600); none of it is sent.

FEDERATION/own/SITE/secure/attempt.json    secrets of the attempt at work; removed at its end
FEDERATION/own/SITE/secure/ledger.json     attempts seen, sums it helped to unmask, what it sent
FEDERATION/own/SITE/secure/lock            held while a step is taken

Between two messages of a round a site may be another process, so nothing is kept in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedmedlora.durable import open_private, private_folder, replace_private, wait_for_lock
from fedmedlora.errors import FederationError, RunError
from fedmedlora.federation.own_rounds import own_folder
from fedmedlora.federation.secure.options import Terms
from fedmedlora.federation.secure.roster import Advertisement, Attempt, Roster, Survivors
from fedmedlora.federation.secure.site import Held, SiteState
from fedmedlora.federation.signing import make_key, public_key, read_key

_STATE, _LEDGER, _LOCK = "attempt.json", "ledger.json", "lock"


@dataclass
class Ledger:
    """What must outlive an attempt.

    Attributes:
        nonces: of all attempts that the site has begun.
        unmasked: "run/round" -> the survivors whose sum it has helped to unmask.
        parts: "run/round" -> what it sent last in that round: weight, norm, whether they were cut.
    """

    nonces: list[str] = field(default_factory=list)
    unmasked: dict[str, list[str]] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def bound(self, attempt: Attempt) -> tuple[str, ...]:
        """The only survivors whose sum the site would unmask in a round; empty if it is free.

        A site trains alike in every attempt at a round: the sums of two different sets of sites
        would give away their difference.
        """
        return tuple(self.unmasked.get(_round(attempt), ()))

    def begin(self, attempt: Attempt) -> None:
        """Note an attempt.

        Raises:
            FederationError: it was begun before.
        """
        if attempt.nonce in self.nonces:
            raise FederationError("this attempt at a round was begun before: it is replayed")
        self.nonces.append(attempt.nonce)

    def check_bound(self, attempt: Attempt, survivors: Sequence[str]) -> None:
        """Refuse a sum beside which an earlier one of the same round would give somebody away.

        Raises:
            FederationError: it is one.
        """
        bound = self.bound(attempt)
        if bound and set(bound) != set(survivors):
            raise FederationError(
                f"this site has helped to unmask the sum of {', '.join(bound)} in an earlier "
                "attempt at this round; the difference to the sum of other sites would be one "
                "site's own update"
            )

    def unmask(self, attempt: Attempt, survivors: Sequence[str]) -> None:
        """Note whose sum the site helps to unmask."""
        self.unmasked[_round(attempt)] = list(survivors)

    def note(self, attempt: Attempt, **facts: Any) -> None:
        """Note what the site sends in a round, for its own people."""
        self.parts[_round(attempt)] = facts


class OwnSecrets:
    """One site's files.

    Args:
        folder: of this site and federation; made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def one_step(self) -> Iterator[None]:
        """Hold off every other process of this site until the block is over.

        A step reads what was taken before it and writes that it was taken: two at a time would both
        find it not taken, and a coordinator that asks twice at once would get two answers.

        Raises:
            RunError: the lock cannot be had.
        """
        with ExitStack() as stack:
            try:
                file = stack.enter_context(open_private(self._folder / _LOCK))
                wait_for_lock(file)
            except OSError as error:
                raise RunError(f"cannot lock {self._folder}: {error.strerror}") from error
            yield

    def ledger(self) -> Ledger:
        """What is kept for good.

        Raises:
            RunError: it is damaged: a site that forgot what it unmasked must not go on.
        """
        content = self._read(_LEDGER)
        try:
            return Ledger() if content is None else Ledger(**content)
        except TypeError as error:
            raise RunError(f"{self._folder / _LEDGER} is broken") from error

    def keep_ledger(self, ledger: Ledger) -> None:
        """Keep it.

        Raises:
            RunError: it cannot be written.
        """
        self._write(_LEDGER, asdict(ledger))

    def keep(self, state: SiteState) -> None:
        """Keep the state of the attempt at work; that of one that is done is removed.

        Raises:
            RunError: it cannot be written.
        """
        if state.stage == "done":
            self._remove()
            return
        survivors = state.survivors
        roster = None if state.roster is None else [asdict(one) for one in state.roster.entries]
        content = {
            "attempt": asdict(state.attempt),
            "stage": state.stage,
            **{name: getattr(state, name).hex() for name in ("channel", "mask", "seed")},
            "roster": roster,
            "held": {site: [one.seed.hex(), one.mask.hex()] for site, one in state.held.items()},
            "asked": state.asked,
            "survivors": None if survivors is None else [survivors.shared, survivors.sites],
        }
        self._write(_STATE, content)

    def recall(self, terms: Terms, attempt: Attempt) -> SiteState:
        """The state of an attempt.

        Raises:
            FederationError: no such attempt is at work: it never was, is done, or another began.
            RunError: it is damaged.
        """
        content = self._read(_STATE)
        if content is None or content.get("attempt") != asdict(attempt):
            raise FederationError("no such attempt at a round is at work here, or not any more")
        try:
            return _state(content, terms, attempt)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"{self._folder / _STATE} is broken") from error

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self._folder / name
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read") from error
        if not isinstance(content, dict):
            raise RunError(f"{path} is broken")
        return content

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        try:
            private_folder(self._folder)
            self._folder.chmod(0o700)  # of one that was there
        except OSError as error:
            raise RunError(f"cannot write {self._folder}: {error.strerror}") from error
        replace_private(self._folder / name, json.dumps(content).encode())

    def _remove(self) -> None:
        try:
            (self._folder / _STATE).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"cannot remove {self._folder / _STATE}: {error.strerror}") from error


def one_machines_keys(
    federation: Path, sites: Sequence[str]
) -> tuple[dict[str, Path], tuple[tuple[str, str], ...]]:
    """Long-term keys of sites that are all on one machine, made at the first call.

    Between machines every site makes its own.

    Returns:
        site -> file of its private key, and (site, public key) as a plan has them.

    Raises:
        RunError: they cannot be written.
        ConfigError: what is there cannot be read.
    """
    files = {site: own_folder(federation, site, "secure") / "signing.key" for site in sites}
    for file in files.values():
        if not file.exists():
            make_key(file)
    public = tuple((site, public_key(read_key(file))) for site, file in files.items())
    return files, public


def _round(attempt: Attempt) -> str:
    return f"{attempt.run}/{attempt.round}"


def _state(content: Mapping[str, Any], terms: Terms, attempt: Attempt) -> SiteState:
    roster = survivors = None
    if content["roster"] is not None:
        roster = Roster(terms, attempt, tuple(Advertisement(**one) for one in content["roster"]))
        if content["survivors"] is not None:
            shared, sites = map(tuple, content["survivors"])
            survivors = Survivors(roster, shared, sites, content["asked"])
    held = {
        site: Held(*(bytes.fromhex(share) for share in shares))
        for site, shares in content["held"].items()
    }
    return SiteState(
        attempt,
        content["stage"],
        channel=bytes.fromhex(content["channel"]),
        mask=bytes.fromhex(content["mask"]),
        seed=bytes.fromhex(content["seed"]),
        roster=roster,
        held=held,
        asked=content["asked"],
        survivors=survivors,
    )
