"""A small private run, made once; who changes its ledgers copies it."""

import pytest
from private_toys import study_of

from fedmedlora.study.run import run_study


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Folder of the run and of its ledgers, of which the whole budget is spent."""
    pytest.importorskip("opacus")
    folder = tmp_path_factory.mktemp("private")
    run_study(study_of(folder, methods=["ffa-lora", "zero-shot"]), folder / "run")
    return folder
