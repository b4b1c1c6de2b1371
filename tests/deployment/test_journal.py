"""One process works in a folder; who asks whether one does is in nobody's way."""

import fcntl
import subprocess
import sys
from types import SimpleNamespace

import pytest
from deployment_toys import wait_until

from fedmedlora.errors import RunError
from fedmedlora.federation.deployment import journal
from fedmedlora.federation.deployment.journal import at_work, is_at_work

HOLDS = (
    "import sys, time; from pathlib import Path;"
    "from fedmedlora.federation.deployment.journal import at_work\n"
    "with at_work(Path(sys.argv[1])): time.sleep(600)"
)


def started(code, folder):
    return subprocess.Popen([sys.executable, "-c", code, str(folder)])


def test_a_folder_that_was_never_worked_in_is_free(tmp_path):
    assert not is_at_work(tmp_path / "nowhere")
    assert not is_at_work(tmp_path)


def test_a_second_process_is_refused_and_told_until_the_first_is_killed(tmp_path):
    first = started(HOLDS, tmp_path)
    try:
        wait_until(lambda: is_at_work(tmp_path), seconds=30, what="work")
        with pytest.raises(RunError, match="another process works there"), at_work(tmp_path):
            pass
    finally:
        first.kill()
        first.wait()
    assert not is_at_work(tmp_path)
    with at_work(tmp_path):
        assert is_at_work(tmp_path)  # nor does asking give it up
        assert is_at_work(tmp_path)
    assert not is_at_work(tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file: cannot be written"), at_work(tmp_path / "file"):
        pass


def test_asking_never_keeps_anybody_from_working(tmp_path, monkeypatch):
    with at_work(tmp_path):
        pass
    asked = []

    def during(handle, command, *more):
        """The question itself; another begins and ends its work before it is over."""
        told = fcntl.fcntl(handle, command, *more)
        asked.append(command)
        if len(asked) == 1:
            with at_work(tmp_path):
                pass
        return told

    monkeypatch.setattr(journal, "fcntl", SimpleNamespace(**{**vars(fcntl), "fcntl": during}))
    assert not is_at_work(tmp_path)
    assert asked == [fcntl.F_OFD_GETLK, fcntl.F_OFD_SETLK]
