"""Output that cannot be written as it is: closed, full, or without the character."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedmedlora.corpus.jsonl import write_jsonl
from fedmedlora.schema import Document, Entity


@pytest.fixture
def inspect(tmp_path):
    document = Document("é–😀", "No fever.", (Entity("T1", "prob–lem", 3, 8),))
    write_jsonl([document], tmp_path / "notes.jsonl")
    return [sys.executable, "-m", "fedmedlora", "inspect", str(tmp_path / "notes.jsonl")]


def test_a_character_that_the_terminal_lacks_is_shown_as_its_escape(inspect):
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(inspect, env=environment, capture_output=True, encoding="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "prob\\u2013lem" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_below_the_output_is_one_line(inspect):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(inspect, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="uses a shell")
def test_closed_streams_end_nothing(inspect):
    # exec: the shell's own streams stay out of it.
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *inspect])
        assert done.returncode == 0
