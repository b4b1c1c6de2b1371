"""The meter must move: what knows its notes by heart is told from what has hardly seen them."""

import pytest
from leakage_toys import study_of

from fedmedlora.leakage import exposure
from fedmedlora.leakage.meter import measure_leakage
from fedmedlora.study.run import run_study

REPETITIONS = (1, 6)
SETTINGS = (
    "methods=[single-site]",
    "sites={icu: {synthetic: {style: icu, train: 26, validation: 1, test: 1}}}",
    "task.tasks=[entities]",
    "leakage={canaries: 2, repetitions: [1, 6], withhold: 8}",
    "federation.rounds=1",
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The same notes passed over many times, and hardly at all."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exposure, "CANDIDATES", 127)
        for name, steps, rate in (("by heart", 160, 3e-3), ("hardly", 1, 1e-6)):
            folder = tmp_path_factory.mktemp("heart")
            training = f"training={{steps: {steps}, batch: 8, learning_rate: {rate}}}"
            study = study_of(folder, *SETTINGS, training, "training.objective=decisions")
            run_study(study, folder / "run")
            found[name] = measure_leakage(folder / "run")
    return found


def membership(found, score):
    [one] = [one for one in found.membership if one.score == score]
    assert one.against == "withheld"
    return one


def bits(found, kind):
    told = {one.repetitions: one.bits for one in found.exposure if one.kind == kind}
    return [told[times] for times in REPETITIONS]


@pytest.mark.parametrize("score", ["loss", "calibrated"])
def test_notes_known_by_heart_are_told_from_withheld_ones(measured, score):
    learnt, fresh = (membership(measured[name], score) for name in ("by heart", "hardly"))
    assert (learnt.members, learnt.others) == (fresh.members, fresh.others) == (4, 4)
    assert learnt.auc > 0.9
    assert learnt.low > 0.35
    assert learnt.tpr >= 0.75
    # The interval of few patients is wide, and does not touch what chance would find.
    assert learnt.tpr_low > 1 / (learnt.others + 1) - 0.05
    assert fresh.auc < 0.8
    assert fresh.low < 0.5
    assert fresh.tpr <= 0.5


def test_a_secret_that_was_repeated_and_learnt_stands_out(measured):
    learnt, fresh = (bits(measured[name], "inside") for name in ("by heart", "hardly"))
    # 7 bits are the most; 1.44 is chance, of two canaries up to 4 by luck.
    assert learnt[-1] > 4.5
    assert learnt[-1] > learnt[0]
    assert learnt[-1] > fresh[-1] + 1.5
    assert sum(learnt) > sum(fresh) + 2


def test_what_is_only_copied_stands_out_less(measured):
    assert bits(measured["by heart"], "inside")[-1] > bits(measured["by heart"], "beside")[-1]
