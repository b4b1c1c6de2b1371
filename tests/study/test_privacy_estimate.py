"""What a promise costs, from the study file alone."""

from pathlib import Path

import pytest

from fedmedlora.config import load_study
from fedmedlora.study.arms import study_arms
from fedmedlora.study.privacy_estimate import privacy_tables

pytest.importorskip("opacus")

ROOT = Path(__file__).resolve().parents[2]


def tables(*settings):
    return privacy_tables(study_arms(load_study(ROOT / "studies" / "demo.yaml", settings)))


def test_a_study_without_a_promise_has_no_table():
    assert tables() == []


def test_noise_falls_with_epsilon_and_what_stays_of_it_with_the_batch():
    [table] = tables(
        "methods=[ffa-lora]", "training.steps=20", "federation.rounds=3",
        "privacy={epsilon: 3, delta: 1e-3, batch: 16, ledger: per-row}",
    )  # fmt: skip
    assert table.headers[5:8] == ("epsilon 1", "epsilon 3", "epsilon 8")
    assert table.title.startswith("Noise for a budget")
    # 160 notes at each of the demo's sites; batches 4, 16 and 64 of them.
    assert [row[:5] for row in table.rows] == [
        ("160", "4", "", "0.025", "60"),
        ("160", "16", "this study", "0.1", "60"),
        ("160", "64", "", "0.4", "60"),
    ]
    noise = [[float(cell) for cell in row[5:8]] for row in table.rows]
    for row in noise:
        assert row[0] > row[1] > row[2] > 0
    left = [float(row[8]) for row in table.rows]
    assert left[0] > left[1] > left[2]
    assert left[1] == pytest.approx(noise[1][1] / 16, abs=0.001)


def test_where_the_file_does_not_say_how_many_units_there_are_some_numbers_stand_for_it():
    [table] = tables(
        "methods=[ffa-lora]", "training.steps=20",
        "privacy={epsilon: 2, delta: 1e-5, batch: 50, unit: patient, ledger: per-row, "
        "noise_multiplier: 1.5}",
    )  # fmt: skip
    assert list(dict.fromkeys(row[0] for row in table.rows)) == ["100", "1,000", "10,000"]
    assert table.title.startswith("Units are examples of numbers")
    assert table.headers[5:9] == ("epsilon 1", "epsilon 2", "epsilon 3", "epsilon 8")
    # The same noise costs less of a larger site, of which a batch is a smaller part.
    own = [float(row[-1]) for row in table.rows if row[2] == "this study's batch"]
    assert own[0] > own[1] > own[2]
