"""The ledger: what is reserved is spent, over runs, and nothing is overspent or edited unseen."""

import pytest

from fedmedlora.errors import PrivacyError, RunError
from fedmedlora.privacy.accounting import Mechanism, epsilon_of
from fedmedlora.privacy.ledger import Budget, Plan, open_ledger

pytest.importorskip("opacus")

ROUND = Mechanism(1.0, 0.1, 10)


def cost(rounds):
    return epsilon_of([Mechanism(1.0, 0.1, 10 * rounds)], delta=1e-3, accountant="rdp")


def budget(rounds):
    """Enough for so many rounds, and not for one more."""
    return Budget((cost(rounds) + cost(rounds + 1)) / 2, 1e-3, "rdp")


def plan(run="first", rounds=2):
    return Plan(run, ROUND.noise, ROUND.rate, ROUND.steps, rounds, units=50)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledgers" / "icu.jsonl"


def opened(path, site="icu", unit="note", of=""):
    return open_ledger(path, site=site, unit=unit, of=of)


def test_rounds_are_spent_until_the_budget_is_over_whatever_run_they_are_of(path):
    with opened(path) as ledger:
        ledger.plan(plan(), budget(3))
        for number in (1, 2):
            ledger.confirm(ledger.reserve(plan(), number, budget(3)))
    # Another run, another process.
    with opened(path) as ledger:
        assert ledger.mechanisms == (Mechanism(1.0, 0.1, 20),)
        second = plan("second", rounds=1)
        ledger.plan(second, budget(3))
        ledger.confirm(ledger.reserve(second, 1, budget(3)))
        assert ledger.runs == 2
        with pytest.raises(PrivacyError, match="round 2 would overspend") as caught:
            ledger.reserve(second, 2, budget(3))
    assert f"{cost(3):.3f} is spent, {cost(4):.3f} would be" in str(caught.value)


def test_a_run_of_which_not_all_rounds_fit_is_refused_before_the_first(path):
    with opened(path) as ledger:
        with pytest.raises(PrivacyError, match="4 rounds of 10 steps"):
            ledger.plan(plan(rounds=4), budget(3))
        assert ledger.plan_of("first") is None


def test_a_plan_is_found_again(path):
    with opened(path) as ledger:
        ledger.plan(plan(), budget(2))
    with opened(path) as ledger:
        assert ledger.plan_of("first") == plan()
        assert ledger.plan_of("other") is None


def test_a_round_that_never_left_is_trained_again_on_its_reservation(path):
    with opened(path) as ledger:
        first = ledger.reserve(plan(), 1, budget(2))
    with opened(path) as ledger:
        assert ledger.reserve(plan(), 1, budget(2)) == first
        ledger.confirm(first)
        assert ledger.mechanisms == (ROUND,)
        # It may have left: to train it once more is to spend once more.
        assert ledger.reserve(plan(), 1, budget(2)) != first
        assert ledger.mechanisms == (Mechanism(1.0, 0.1, 20),)


def test_a_reservation_is_on_disk_before_anything_else_happens(path):
    with opened(path) as ledger:
        ledger.reserve(plan(), 1, budget(2))
        lines = path.read_text().splitlines()
    assert '"kind":"reserved"' in lines[-1]


def test_an_edited_ledger_is_refused(path):
    with opened(path) as ledger:
        ledger.confirm(ledger.reserve(plan(), 1, budget(2)))
    path.write_text(path.read_text().replace('"steps":10', '"steps":1'))
    with pytest.raises(RunError, match="edited"), opened(path):
        pass


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"site": "wards"}, "ledger of site icu, not of wards"),
        ({"unit": "patient"}, "counts a note"),
        ({"of": "abc"}, "made in another way"),
    ],
)
def test_what_another_ledger_counts_cannot_be_added_to_it(path, other, told):
    with opened(path) as ledger:
        ledger.plan(plan(), budget(3))
    with pytest.raises(PrivacyError, match=told), opened(path, **other):
        pass


def test_a_row_without_noise_is_noted_once_and_fixes_no_unit(path):
    for _ in range(2):
        with opened(path, unit=None) as ledger:
            ledger.note_unprotected("study/fed-medlora")
    with opened(path, unit="patient") as ledger:
        assert ledger.unprotected == ("study/fed-medlora",)
        assert (ledger.mechanisms, ledger.runs) == ((), 0)
        ledger.plan(plan(), budget(3))
    with pytest.raises(PrivacyError, match="counts a patient"), opened(path, unit="note"):
        pass
