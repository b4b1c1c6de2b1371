"""Two small runs, made once: a plain one that was measured, and one with canaries."""

import pytest
from leakage_toys import study_of

from fedmedlora.leakage.meter import measure_leakage
from fedmedlora.study.run import run_study


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """A run of single sites and of their federation, its replies kept."""
    folder = tmp_path_factory.mktemp("plain")
    run_study(study_of(folder), folder / "run")
    measure_leakage(folder / "run")
    return folder / "run"


@pytest.fixture(scope="session")
def canaries(tmp_path_factory):
    """A run with canaries and withheld notes."""
    folder = tmp_path_factory.mktemp("canaries")
    settings = ("leakage={canaries: 2, repetitions: [1, 2], withhold: 2}", "methods=[fed-medlora]")
    run_study(study_of(folder, *settings), folder / "run")
    return folder / "run"
