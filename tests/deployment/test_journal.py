"""One process works in a folder; who asks whether one does is in nobody's way."""

import subprocess
import sys

import pytest
from deployment_toys import wait_until

from fedmedlora.errors import RunError
from fedmedlora.federation.deployment.journal import at_work, is_at_work

HOLDS = (
    "import sys, time; from pathlib import Path;"
    "from fedmedlora.federation.deployment.journal import at_work\n"
    "with at_work(Path(sys.argv[1])): time.sleep(600)"
)
ASKS = (
    "import sys; from pathlib import Path;"
    "from fedmedlora.federation.deployment.journal import is_at_work\n"
    "folder = Path(sys.argv[1]); (folder / 'asking').touch()\n"
    "while True: is_at_work(folder)"
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


def test_asking_never_keeps_anybody_from_working(tmp_path):
    asking = started(ASKS, tmp_path)
    try:
        wait_until((tmp_path / "asking").exists, seconds=30, what="question")
        for _ in range(5000):
            with at_work(tmp_path):
                pass
        assert asking.poll() is None
    finally:
        asking.kill()
        asking.wait()
