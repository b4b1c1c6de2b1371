"""Where the open corpora are, and what makes documents for the property tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of open corpora, or a skip that says where it was looked for."""
    default = Path(__file__).resolve().parents[2] / "../shared"
    folder = Path(os.environ.get("FEDMEDLORA_SHARED", default)) / "corpora"
    if not folder.is_dir():
        pytest.skip(f"the open corpora are not at {folder}; set FEDMEDLORA_SHARED")
    return folder
