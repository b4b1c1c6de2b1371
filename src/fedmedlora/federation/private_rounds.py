"""A site's private rounds: the ledger first, then the notes, then what leaves.

    what was asked before -> the same answer
    ledger opened -> planned (once a run) -> reserved -> trained -> kept -> confirmed -> answer
                                                      -> failed -> confirmed -> a word

The ledger stays open, and so closed to other processes, while the round is trained. What leaves is
the adapter, how many units there are, and what was spent: no loss, no count of rows or tokens, and
not how long it took.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from fedmedlora.canonical import sha256
from fedmedlora.durable import replace_private
from fedmedlora.errors import ConfigError, Ended, PrivacyError, RunError
from fedmedlora.federation.first_rounds import FirstRounds
from fedmedlora.federation.plan import Order, SiteUpdate
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.private_training import NoiseSettings, private_steps
from fedmedlora.model.training import TrainingSettings
from fedmedlora.privacy.accounting import Unit, find_noise
from fedmedlora.privacy.ledger import Budget, Ledger, Plan, open_ledger

#: Trains a round with this noise; the unit of each row is given.
PrivateTrainer = Callable[[NoiseSettings, Sequence[int]], SiteUpdate]
_RUN = "run-id"


@dataclass(frozen=True)
class PrivacyTerms:
    """What a study asks of every site.

    Attributes:
        budget: of each site, over everything that its ledger holds.
        unit: what counts as one.
        max_grad_norm: to which a unit's gradient is clipped.
        batch: units expected in a step.
        unit_rows: rows of a unit in a step, at most.
        noise: in clipping norms; None finds what the budget asks for.
        of: hash of what decides how an example is made; "" where the unit is a note or a patient.
    """

    budget: Budget
    unit: Unit
    max_grad_norm: float
    batch: int
    unit_rows: int
    noise: float | None = None
    of: str = ""

    def check(self, *, site: str, units: int) -> None:
        """Refuse what means nothing for a site of so many units.

        Raises:
            ConfigError: delta is more than 1 / units, or the batch more than all units.
        """
        if self.budget.delta > 1 / units:
            raise ConfigError(
                f"privacy.delta: {self.budget.delta:g} is more than 1 / {units}, and site {site} "
                f"has {units} units (unit: {self.unit}): one of them could be published whole; set "
                f"a delta well below {1 / units:.2g}"
            )
        if self.batch > units:
            raise ConfigError(
                f"privacy.batch: {self.batch} units are expected in a step, and site {site} has "
                f"{units} (unit: {self.unit}); set a smaller batch"
            )


class PrivateRounds:
    """One site in one run.

    Args:
        site: its name.
        terms: of the study.
        units: of each training row, the name of its unit.
        rounds: of the run.
        ledger: file of the site's ledger.
        own: folder of what the site keeps of this run.

    Raises:
        ConfigError: delta is more than 1 / units, or the batch more than all units.
    """

    def __init__(
        self,
        site: str,
        terms: PrivacyTerms,
        *,
        units: Sequence[str],
        rounds: int,
        ledger: Path,
        own: Path,
    ) -> None:
        numbers = {name: number for number, name in enumerate(dict.fromkeys(units))}
        self.count = len(numbers)
        self._units = [numbers[name] for name in units]
        self._site, self._terms, self._rounds = site, terms, rounds
        self._ledger, self._own = ledger, own
        terms.check(site=site, units=self.count)

    def prepare(self, settings: TrainingSettings) -> None:
        """Refuse what the ledger will not let through, before anything is trained.

        Raises:
            PrivacyError: the budget is spent, or all rounds do not fit into what is left.
            RunError: the ledger cannot be used, or was edited.
        """
        with self._open() as ledger:
            self._plan(ledger, settings)

    def train(
        self, adapter: Adapter, order: Order, *, settings: TrainingSettings, trainer: PrivateTrainer
    ) -> SiteUpdate:
        """A round; the one that was made before, if exactly this was asked before.

        What ``trainer`` raises passes, and the round is spent: to try it again costs again.

        Args:
            adapter: that it starts from.
            order: what is asked.
            settings: of the round.
            trainer: trains it.

        Raises:
            PrivacyError: the budget would be overspent; the notes were not touched.
            RunError: the ledger cannot be used, or was edited.
        """
        answers = FirstRounds(self._own / "answers")
        with self._open() as ledger:
            plan = self._plan(ledger, settings)
            base = "" if order.residual is None else order.residual.sha256
            asked = f"{plan.run}\n{adapter.sha256}\n{order.round}\n{order.trains}\n{base}"
            key = sha256(asked.encode())
            update = answers.recall(key, adapter)
            if update is not None:
                # Kept by a process that was killed before it could say that this leaves.
                left = ledger.open_reservation(plan, order.round)
                if left is not None:
                    ledger.confirm(left)
                return update
            reservation = ledger.reserve(plan, order.round, self._terms.budget)
            try:
                update = trainer(self._noise(plan), self._units)
            except (KeyboardInterrupt, Ended):  # the process ends, and nobody is told
                raise
            except BaseException:
                # That it failed is told, and may depend on what was drawn.
                ledger.confirm(reservation)
                raise
            told = account_of(ledger, plan, self._terms.budget)
            update = replace(
                update,
                examples=self.count,
                tokens=self.count,
                loss_first=None,
                loss_last=None,
                seconds=0.0,  # longer where more, or longer, rows were drawn
                counts={**update.counts, **{f"privacy/{name}": n for name, n in told.items()}},
            )
            answers.keep(key, update)
            answers.forget(but=key)
            ledger.confirm(reservation)
        return update

    def _open(self) -> AbstractContextManager[Ledger]:
        terms = self._terms
        return open_ledger(self._ledger, site=self._site, unit=terms.unit, of=terms.of)

    def _noise(self, plan: Plan) -> NoiseSettings:
        terms = self._terms
        return NoiseSettings(plan.noise, terms.max_grad_norm, terms.batch, terms.unit_rows)

    def _plan(self, ledger: Ledger, settings: TrainingSettings) -> Plan:
        terms, run = self._terms, run_id_of(self._own) or uuid.uuid4().hex
        rate = terms.batch / self.count
        steps = private_steps(settings, units=self.count, batch=terms.batch)
        plan = ledger.plan_of(run)
        if plan is None:
            noise = terms.noise or self._least_noise(ledger, rate, steps * self._rounds)
            plan = Plan(run, noise, rate, steps, self._rounds, self.count)
            ledger.plan(plan, terms.budget)
            replace_private(self._own / _RUN, run.encode())
        elif (plan.rate, plan.steps, plan.units) != (rate, steps, self.count):
            raise PrivacyError(
                f"site {self._site}: this run was planned with {plan.units} units, {plan.steps} "
                f"steps a round and a sampling rate of {plan.rate:.4g}, and now these are "
                f"{self.count}, {steps} and {rate:.4g}: begin a new run"
            )
        return plan

    def _least_noise(self, ledger: Ledger, rate: float, steps: int) -> float:
        budget = self._terms.budget
        try:
            return find_noise(
                budget.epsilon,
                delta=budget.delta,
                rate=rate,
                steps=steps,
                spent=ledger.mechanisms,
                accountant=budget.accountant,
            )
        except PrivacyError as error:
            raise PrivacyError(f"site {self._site}, {self._ledger}: {error}") from error


def account_of(ledger: Ledger, plan: Plan, budget: Budget) -> dict[str, float]:
    """What is said of a site's promise: by its replies, and at the end of a run.

    Args:
        ledger: of the site.
        plan: of the run.
        budget: gives delta and the accountant.
    """
    spent = ledger.mechanisms
    return {
        "epsilon": budget.spent(spent),
        "delta": budget.delta,
        "noise": plan.noise,
        "rate": plan.rate,
        "units": plan.units,
        "steps": sum(one.steps for one in spent),
        "runs": ledger.runs,
        "unprotected": len(ledger.unprotected),
    }


def run_id_of(own: Path) -> str | None:
    """What marks a run in a site's ledger: the same when it is resumed; None before it is planned.

    Args:
        own: folder of what the site keeps of the run.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return (own / _RUN).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{own / _RUN}: {error.strerror}") from error
