"""Epsilon of mechanisms: known values, composition, the noise of a budget, another library."""

import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from fedmedlora.errors import PrivacyError
from fedmedlora.privacy import accounting
from fedmedlora.privacy.accounting import Mechanism, epsilon_of, find_noise, merged

pytest.importorskip("opacus")


def gaussian_epsilon(noise, delta):
    """Of one step without sampling, in closed form (Balle and Wang, arXiv 1805.06530)."""

    def excess(epsilon):
        a, b = 1 / (2 * noise), epsilon * noise
        return norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b) - delta

    return brentq(excess, 0, 100)


@pytest.mark.parametrize("noise", [0.8, 2.0, 5.0])
def test_one_step_on_all_units_is_the_gaussian_mechanism(noise):
    found = epsilon_of([Mechanism(noise, 1.0, 1)], delta=1e-5)
    assert found == pytest.approx(gaussian_epsilon(noise, 1e-5), rel=0.01)


@pytest.mark.parametrize("steps", [4, 25])
def test_steps_on_all_units_add_up_as_one_with_less_noise(steps):
    # k Gaussians with noise s are one with s / sqrt(k).
    found = epsilon_of([Mechanism(3.0, 1.0, steps)], delta=1e-5)
    assert found == pytest.approx(gaussian_epsilon(3.0 / math.sqrt(steps), 1e-5), rel=0.01)


def test_renyi_accounting_is_the_larger_bound():
    one = [Mechanism(1.0, 0.02, 500)]
    assert (
        epsilon_of(one, delta=1e-5)
        < epsilon_of(one, delta=1e-5, accountant="rdp")
        < 1.3 * epsilon_of(one, delta=1e-5)
    )


def test_equal_entries_are_one_and_their_order_does_not_matter(monkeypatch):
    rounds = [Mechanism(1.1, 0.05, 10), Mechanism(0.9, 0.05, 5)] * 50
    assert merged(rounds) == (Mechanism(0.9, 0.05, 250), Mechanism(1.1, 0.05, 500))
    lengths = []
    library = accounting._opacus()

    class Counting(library.PRVAccountant):
        def get_epsilon(self, *args, **kwargs):
            lengths.append(len(self.history))
            return super().get_epsilon(*args, **kwargs)

    monkeypatch.setattr(library, "PRVAccountant", Counting)
    accounting._epsilon.cache_clear()
    forwards = epsilon_of(rounds, delta=1e-4)
    assert forwards == epsilon_of(reversed(rounds), delta=1e-4)
    assert lengths == [2]


def test_nothing_done_costs_nothing():
    assert epsilon_of([], delta=1e-5) == 0
    assert epsilon_of([Mechanism(1.0, 0.1, 0)], delta=1e-5) == 0


def test_a_round_costs_more_with_each_of_its_parts():
    def cost(noise=1.0, rate=0.05, steps=50):
        return epsilon_of([Mechanism(noise, rate, steps)], delta=1e-5, accountant="rdp")

    assert cost(noise=2.0) < cost() < cost(rate=0.1) < cost(rate=0.1, steps=100)


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize("epsilon", [0.5, 3.0, 8.0])
def test_the_noise_found_uses_a_budget_up_and_not_more(accountant, epsilon):
    budget = {"delta": 1e-4, "accountant": accountant}
    noise = find_noise(epsilon, rate=0.05, steps=100, **budget)
    assert 0.99 * epsilon < epsilon_of([Mechanism(noise, 0.05, 100)], **budget) <= epsilon


def test_what_was_spent_leaves_less_and_so_asks_for_more_noise():
    spent = [Mechanism(1.5, 0.05, 60)]
    budget = {"delta": 1e-4, "accountant": "rdp"}
    noise = find_noise(3.0, rate=0.05, steps=100, spent=spent, **budget)
    assert noise > find_noise(3.0, rate=0.05, steps=100, **budget)
    whole = epsilon_of([*spent, Mechanism(noise, 0.05, 100)], **budget)
    assert 0.99 * 3.0 < whole <= 3.0


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_a_budget_at_or_below_what_is_spent_is_refused_with_both(accountant):
    spent = [Mechanism(1.0, 0.05, 100)]
    gone = epsilon_of(spent, delta=1e-4, accountant=accountant)
    for budget in (gone, gone / 2):
        with pytest.raises(PrivacyError, match=rf"spent: epsilon {gone:.3f} of {budget:g} at"):
            find_noise(budget, delta=1e-4, rate=0.05, steps=10, spent=spent, accountant=accountant)


def test_a_budget_that_no_noise_keeps_is_refused():
    with pytest.raises(PrivacyError, match="no noise keeps 100000 steps"):
        find_noise(1e-3, delta=1e-9, rate=1.0, steps=100_000, accountant="rdp")


HISTORIES = [
    [Mechanism(1.0, 0.01, 1000)],
    [Mechanism(0.7, 0.05, 200)],
    [Mechanism(2.0, 0.2, 60)],
    [Mechanism(1.3, 0.05, 100), Mechanism(0.9, 0.02, 300), Mechanism(4.0, 0.5, 10)],
]


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("delta", [1e-3, 1e-5])
@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_dp_accounting_agrees_to_one_percent(history, delta, accountant):
    dp = pytest.importorskip("dp_accounting", reason="dp-accounting is not installed")
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    other = RdpAccountant() if accountant == "rdp" else PLDAccountant()
    for one in history:
        step = dp.PoissonSampledDpEvent(one.rate, dp.GaussianDpEvent(one.noise))
        other.compose(dp.SelfComposedDpEvent(step, one.steps))
    found = epsilon_of(history, delta=delta, accountant=accountant)
    assert found == pytest.approx(other.get_epsilon(delta), rel=0.01)
