"""The ledger of a site: what was spent of its notes' privacy, over all runs.

One chained log (``fedmedlora.chain``) a site, in a folder that the site gives: a new run folder
finds it as the last run left it. Entries:

    begun      whose it is
    counts     what counts as one in it, said once, with the first plan
    planned    how a run trains here: noise, sampling rate, steps a round
    reserved   a round is about to be trained; on disk before the notes are touched
    confirmed  its result is about to leave, or the word that it failed
    unprotected  a row is about to be trained on the same notes without noise

What is reserved is spent. A round that was reserved and not confirmed left nothing, since its
process was killed: who trains it again does so on the same reservation. Several processes may use
a ledger, one after another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fedmedlora.chain import BEGUN, OpenLog, open_log, read_log
from fedmedlora.errors import PrivacyError, RunError
from fedmedlora.privacy.accounting import (
    Accountant,
    Mechanism,
    Unit,
    epsilon_of,
    merged,
)

FORMAT = 2
_EDITED = (
    "the ledger was edited: nothing is trained with it; bring both of its files back from a copy"
)


@dataclass(frozen=True)
class Budget:
    """What a site's data may cost, over everything that its ledger holds.

    Attributes:
        epsilon: > 0.
        delta: in (0, 1).
        accountant: by which it is counted.
    """

    epsilon: float
    delta: float
    accountant: Accountant = "prv"

    def spent(self, mechanisms: tuple[Mechanism, ...]) -> float:
        """Epsilon of mechanisms at this delta."""
        return epsilon_of(mechanisms, delta=self.delta, accountant=self.accountant)


@dataclass(frozen=True)
class Plan:
    """How a run trains at a site; the same in all of its rounds.

    Attributes:
        run: marks the run.
        noise, rate: see ``Mechanism``.
        steps: of a round.
        rounds: how many were planned.
        units: how many the site has.
    """

    run: str
    noise: float
    rate: float
    steps: int
    rounds: int
    units: int

    @property
    def a_round(self) -> Mechanism:
        """What a round does."""
        return Mechanism(self.noise, self.rate, self.steps)

    @property
    def all_rounds(self) -> Mechanism:
        """What the run does."""
        return Mechanism(self.noise, self.rate, self.steps * self.rounds)


class Ledger:
    """An open ledger; nobody else has it open.

    Args:
        log: open.
        site: whose it is.
        unit: what counts as one; None to look, or to note what is unprotected.
        of: hash of all that decides what a unit is made of, if not the notes alone; "" if they do.

    Raises:
        RunError: somebody edited it.
        PrivacyError: it is another site's, or counts something else.
    """

    def __init__(self, log: OpenLog, *, site: str, unit: Unit | None, of: str = "") -> None:
        self._log, self._counts = log, {"unit": unit, "of": of}
        path, read = log.path, read_log(log.path)
        if read.faults:
            raise RunError(f"{path}: {read.faults[0]}; {_EDITED}")
        self._entries = list(read.entries)
        first = self._entries[0]
        if first["kind"] != BEGUN or first.get("format") != FORMAT:
            raise PrivacyError(f"{path} is no privacy ledger of this version")
        if first["site"] != site:
            raise PrivacyError(f"{path} is the ledger of site {first['site']}, not of {site}")
        before = next(self._of("counts"), None)
        if unit is None or before is None:
            return
        if before["unit"] != unit:
            raise PrivacyError(
                f"{path} counts a {before['unit']} as one, and privacy.unit is {unit}: what was "
                "spent cannot be added up; keep the unit"
            )
        if before["of"] != of:
            raise PrivacyError(
                f"{path} counts an example as one, and here an example is made in another way "
                "(task, scheme, training.max_tokens or what the site annotates differ): what was "
                "spent cannot be added up; keep these"
            )

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """All that was ever reserved, merged."""
        return merged(_mechanism(entry) for entry in self._of("reserved"))

    @property
    def runs(self) -> int:
        """How many runs reserved something."""
        return len({entry["run"] for entry in self._of("reserved")})

    @property
    def unprotected(self) -> tuple[str, ...]:
        """Rows that were trained on the same notes without noise, as they were noted."""
        return tuple(entry["row"] for entry in self._of("unprotected"))

    def note_unprotected(self, row: str) -> None:
        """Note, once, that a row is about to be trained without noise."""
        if row not in self.unprotected:
            self._append("unprotected", row=row)

    def plan_of(self, run: str) -> Plan | None:
        """How a run that was planned before trains here."""
        for entry in self._of("planned"):
            if entry["run"] == run:
                return Plan(**{field.name: entry[field.name] for field in fields(Plan)})
        return None

    def plan(self, plan: Plan, budget: Budget) -> None:
        """Note how a run will train.

        Raises:
            PrivacyError: all of its rounds do not fit into what is left.
        """
        spent = budget.spent(self.mechanisms)
        whole = budget.spent((*self.mechanisms, plan.all_rounds))
        if whole > budget.epsilon:
            raise PrivacyError(
                f"{plan.rounds} rounds of {plan.steps} steps with noise {plan.noise:.3f} would "
                f"bring epsilon from {spent:.3f} to {whole:.3f}, and the budget is "
                f"{budget.epsilon:g}: more noise, fewer steps or a smaller batch cost less"
            )
        if next(self._of("counts"), None) is None:
            self._append("counts", **self._counts)
        self._append("planned", **asdict(plan))

    def reserve(self, plan: Plan, round: int, budget: Budget) -> int:
        """Spend what a round costs, before it is trained.

        Returns:
            the number of the reservation: an earlier one of this round if it was not confirmed.

        Raises:
            PrivacyError: the budget would be overspent.
        """
        found = self.open_reservation(plan, round)
        if found is not None:
            return found
        after = budget.spent((*self.mechanisms, plan.a_round))
        if after > budget.epsilon:
            spent = budget.spent(self.mechanisms)
            raise PrivacyError(
                f"round {round} would overspend the budget: epsilon {spent:.3f} is spent, "
                f"{after:.3f} would be, and the budget is {budget.epsilon:g} at delta "
                f"{budget.delta:g}; nothing was trained"
            )
        facts = asdict(plan.a_round)
        return self._append("reserved", run=plan.run, round=round, **facts)

    def open_reservation(self, plan: Plan, round: int) -> int | None:
        """The reservation of a round that is not confirmed: nothing of it left."""
        confirmed = {entry["reserved"] for entry in self._of("confirmed")}
        for entry in self._of("reserved"):
            same = (entry["run"], entry["round"]) == (plan.run, round)
            if same and entry["n"] not in confirmed and _mechanism(entry) == plan.a_round:
                return int(entry["n"])
        return None

    def confirm(self, reservation: int) -> None:
        """Note that what a reserved round made, or that it failed, is about to leave."""
        self._append("confirmed", reserved=reservation)

    def _append(self, kind: str, **facts: Any) -> int:
        """Add an entry; its number."""
        number = self._log.append(kind, **facts).entries
        self._entries.append({**facts, "n": number, "kind": kind})
        return number

    def _of(self, kind: str) -> Iterator[Mapping[str, Any]]:
        return (entry for entry in self._entries if entry["kind"] == kind)


@contextmanager
def open_ledger(path: Path, *, site: str, unit: Unit | None, of: str = "") -> Iterator[Ledger]:
    """Open a site's ledger, or begin it; waits while another process has it open.

    Args:
        path: of the ledger.
        site, unit, of: see ``Ledger``.

    Raises:
        RunError: it cannot be written or locked, or somebody edited it.
        PrivacyError: see ``Ledger``.
    """
    facts = {"site": site, "format": FORMAT}
    with open_log(path, begun=lambda: facts, advice=_EDITED) as log:
        yield Ledger(log, site=site, unit=unit, of=of)


def _mechanism(entry: Mapping[str, Any]) -> Mechanism:
    return Mechanism(entry["noise"], entry["rate"], entry["steps"])
