"""A site's private rounds: the ledger before the notes, over restarts and runs; what leaves."""

import os
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
from federation_toy import B, start

from fedmedlora.errors import AdapterError, ConfigError, Ended, PrivacyError, RunError
from fedmedlora.federation.plan import Order, SiteUpdate
from fedmedlora.federation.private_rounds import PrivacyTerms, PrivateRounds
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.training import TrainingSettings
from fedmedlora.privacy.accounting import Mechanism, epsilon_of
from fedmedlora.privacy.ledger import Budget, open_ledger

pytest.importorskip("opacus")

#: Twenty rows of ten notes.
UNITS = [f"note-{number // 2}" for number in range(20)]
SETTINGS = TrainingSettings(steps=5)
TERMS = PrivacyTerms(
    Budget(3.0, 1e-2, "rdp"), "note", max_grad_norm=0.5, batch=4, unit_rows=8, noise=None
)


class Site:
    """A private site whose training only counts how often it was asked."""

    def __init__(self, folder, *, run="run-1", terms=TERMS, rounds=2, name="icu", units=UNITS):
        self.ledger = folder / "ledger" / f"{name}.jsonl"
        self.trained = []
        self.private = PrivateRounds(
            name, terms, units=units, rounds=rounds, ledger=self.ledger, own=folder / run
        )

    def round(self, number, adapter=None, *, fails=None, residual=None):
        adapter = adapter or start(float(number))

        def trainer(noise, units):
            self.trained.append((noise, units))
            if fails is not None:
                raise fails
            value = np.float32(len(self.trained))
            tensors = {**adapter.tensors, B: adapter.tensors[B] + value}
            return SiteUpdate(
                Adapter(adapter.manifest, tensors), 20, 999, 1.5, 0.5, 0.1, {"steps": 5}
            )

        order = Order(number, residual=residual)
        return self.private.train(adapter, order, settings=SETTINGS, trainer=trainer)

    def spent(self):
        with open_ledger(self.ledger, site="icu", unit="note") as ledger:
            return sum(one.steps for one in ledger.mechanisms)


def test_a_run_uses_its_budget_up_with_one_noise_and_says_so(tmp_path):
    site = Site(tmp_path)
    first, second = site.round(1), site.round(2)
    (noise, units), (again, _) = site.trained
    assert noise == again
    assert (noise.max_grad_norm, noise.batch, noise.unit_rows) == (0.5, 4, 8)
    assert units == [number // 2 for number in range(20)]
    told = second.counts
    assert told["privacy/epsilon"] == pytest.approx(
        epsilon_of([Mechanism(noise.noise, 0.4, 10)], delta=1e-2, accountant="rdp")
    )
    assert first.counts["privacy/epsilon"] < 0.98 * 3.0 < told["privacy/epsilon"] <= 3.0
    assert (told["privacy/units"], told["privacy/rate"], told["privacy/steps"]) == (10, 0.4, 10)


def test_no_loss_no_time_and_no_count_of_rows_or_tokens_leaves(tmp_path):
    update = Site(tmp_path).round(1)
    assert (update.loss_first, update.loss_last) == (None, None)
    assert (update.examples, update.tokens) == (10, 10)
    # Kept answers are told alike.
    assert (update.seconds, Site(tmp_path).round(1).seconds) == (0, 0)


def test_when_the_notes_are_touched_the_round_is_in_the_ledger(tmp_path):
    site = Site(tmp_path)
    seen = []

    def trainer(noise, units):
        seen.append(site.ledger.read_text().splitlines()[-1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        site.private.train(start(), Order(1), settings=SETTINGS, trainer=trainer)
    assert '"kind":"reserved"' in seen[0]


def test_a_third_round_is_refused_without_touching_the_notes(tmp_path):
    site = Site(tmp_path)
    site.round(1)
    site.round(2)
    with pytest.raises(PrivacyError, match="round 3 would overspend"):
        site.round(3)
    assert len(site.trained) == 2


@pytest.mark.parametrize("run", ["run-1", "run-2"])
def test_neither_a_restart_nor_a_new_run_folder_gives_the_budget_back(tmp_path, run):
    site = Site(tmp_path)
    site.round(1)
    site.round(2)
    other = Site(tmp_path, run=run)
    with pytest.raises(PrivacyError, match=r"overspend|the budget is spent"):
        other.round(3)
    assert other.trained == []
    if run == "run-2":
        with pytest.raises(PrivacyError, match=r"site icu, .*jsonl: the budget is spent"):
            other.private.prepare(SETTINGS)


def test_a_second_run_trains_with_what_is_left(tmp_path):
    Site(tmp_path).round(1)
    more = replace(TERMS, budget=Budget(5.0, 1e-2, "rdp"))
    other = Site(tmp_path, run="run-2", terms=more)
    other.round(1)
    told = other.round(2).counts
    assert 0.98 * 5.0 < told["privacy/epsilon"] <= 5.0
    assert (told["privacy/runs"], told["privacy/steps"]) == (2, 15)


def test_a_round_whose_process_was_killed_is_trained_again_and_spent_once(tmp_path):
    site = Site(tmp_path)
    site.private.prepare(SETTINGS)

    def killed(noise, units):
        os._exit(9)

    child = get_context("fork").Process(
        target=site.private.train,
        args=(start(1.0), Order(1)),
        kwargs={"settings": SETTINGS, "trainer": killed},
    )
    child.start()
    child.join()
    assert child.exitcode == 9
    assert site.spent() == 5
    again = Site(tmp_path)
    again.round(1)
    assert again.spent() == 5
    again.round(2)
    assert again.spent() == 10


@pytest.mark.parametrize("end", [KeyboardInterrupt(), Ended(143)])
def test_who_stops_a_run_goes_on_with_what_the_round_has_cost(tmp_path, end):
    site = Site(tmp_path)
    with pytest.raises(type(end)):
        site.round(1, fails=end)
    site.round(1)
    assert site.spent() == 5


@pytest.mark.parametrize("failure", [MemoryError(), AdapterError("diverged"), SystemExit(1)])
def test_a_round_that_failed_is_spent_since_its_failure_is_told(tmp_path, failure):
    # Else a site could be asked until a draw succeeds, for the price of one.
    site = Site(tmp_path)
    with pytest.raises(type(failure)):
        site.round(1, fails=failure)
    site.round(1)
    assert site.spent() == 10
    # Two rounds were planned: there is nothing left for a third training.
    with pytest.raises(PrivacyError, match="round 2 would overspend"):
        Site(tmp_path).round(2)


def test_who_asks_the_same_again_gets_the_same_and_nothing_more_is_spent(tmp_path):
    first = Site(tmp_path).round(1)
    again = Site(tmp_path)
    second = again.round(1)
    assert again.trained == []
    assert second.adapter.sha256 == first.adapter.sha256
    assert again.spent() == 5


def test_the_same_round_from_another_adapter_is_another_answer_and_costs_again(tmp_path):
    site = Site(tmp_path)
    site.round(1)
    site.round(1, start(9.0))
    assert len(site.trained) == 2
    assert site.spent() == 10


def test_the_same_round_on_another_frozen_pair_is_another_answer_and_costs_again(tmp_path):
    site, start_of = Site(tmp_path), start(1.0)
    for pair in (start(2.0), start(3.0), start(3.0)):
        site.round(1, start_of, residual=pair)
    assert len(site.trained) == 2
    assert site.spent() == 10


def test_an_answer_that_was_kept_but_not_confirmed_is_confirmed_before_it_leaves(
    tmp_path, monkeypatch
):
    from fedmedlora.privacy.ledger import Ledger

    site = Site(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "confirm", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            site.round(1)
    site.round(1)
    assert len(site.trained) == 1
    # Another adapter in its place must not find the reservation free.
    site.round(1, start(9.0))
    assert site.spent() == 10


def test_an_edited_ledger_is_refused_without_touching_the_notes(tmp_path):
    site = Site(tmp_path)
    site.round(1)
    site.ledger.write_text(site.ledger.read_text().replace('"steps":5', '"steps":1'))
    with pytest.raises(RunError, match="edited"):
        site.round(2)
    assert len(site.trained) == 1


def test_given_noise_that_does_not_keep_the_budget_is_refused_before_the_first_round(tmp_path):
    site = Site(tmp_path, terms=replace(TERMS, noise=0.3))
    with pytest.raises(PrivacyError, match=r"would bring epsilon from 0\.000 to"):
        site.private.prepare(SETTINGS)


def test_notes_that_changed_within_a_run_end_it(tmp_path):
    Site(tmp_path).round(1)
    site = Site(tmp_path, units=[*UNITS, "note-new"])
    with pytest.raises(PrivacyError, match=r"planned with 10 units.* 11"):
        site.round(2)
    assert site.trained == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"budget": Budget(3.0, 0.11, "rdp")}, r"privacy\.delta: 0\.11 is more than 1 / 10"),
        ({"batch": 11}, r"privacy\.batch: 11 units .* has 10"),
    ],
)
def test_terms_that_mean_nothing_for_the_site_are_refused(tmp_path, change, told):
    with pytest.raises(ConfigError, match=told):
        Site(tmp_path, terms=replace(TERMS, **change))
    assert list(tmp_path.iterdir()) == []
