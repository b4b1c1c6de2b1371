"""`federation stop` ends the command that runs a federation, and never another process."""

import json
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from deployment_toys import wait_until

from fedmedlora.errors import ConfigError, RunError
from fedmedlora.federation.deployment.holding import held, stop_federation
from fedmedlora.federation.deployment.journal import at_work, is_at_work
from fedmedlora.federation.deployment.layout import CoordinatorFolder

HOLDS = (
    "import sys, time; from pathlib import Path;"
    "from fedmedlora.federation.deployment.holding import held;"
    "from fedmedlora.federation.deployment.layout import CoordinatorFolder\n"
    "with held(CoordinatorFolder(Path(sys.argv[1]))): time.sleep(600)"
)
IN_A_CONTAINER = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")


@pytest.fixture
def folder(tmp_path):
    for name in ("study.yaml", "federation.yaml"):
        (tmp_path / name).touch()
    return CoordinatorFolder(tmp_path)


@pytest.fixture
def bystander():
    """A process that has nothing to do with it."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    time.sleep(0.05)  # starts are told apart by the kernel's ticks of 10 ms
    yield process
    process.kill()
    process.wait()


@contextmanager
def holder(folder, *, inside=()):
    """Another process that holds a folder, as ``federation start`` does."""
    process = subprocess.Popen([*inside, sys.executable, "-c", HOLDS, str(folder.root)])
    try:
        wait_until(lambda: note_of(folder).exists(), seconds=30, what="holder")
        yield process
    finally:
        process.kill()
        process.wait()


def note_of(folder):
    return folder.state / "start.pid"


def changed(folder, **facts):
    content = json.loads(note_of(folder).read_text())
    note_of(folder).write_text(json.dumps({**content, **facts}))


def test_the_command_that_runs_a_federation_is_ended(folder):
    assert not stop_federation(folder)
    with holder(folder) as process:
        assert stop_federation(folder)
        assert process.wait(timeout=10) != 0
    assert not is_at_work(folder.state)


def test_a_number_that_another_process_has_by_now_is_not_signalled(folder, bystander):
    with holder(folder):
        changed(folder, pid=bystander.pid)  # as left by one that was killed
        with pytest.raises(RunError, match=f"{bystander.pid}, which is not the command that works"):
            stop_federation(folder)
    assert bystander.poll() is None


def test_a_number_that_no_process_has_is_said_to_be_nobodys(folder, bystander):
    bystander.kill()
    bystander.wait()
    with holder(folder):
        changed(folder, pid=bystander.pid, started=None)
        with pytest.raises(RunError, match="is not the command that works there"):
            stop_federation(folder)


def test_a_containers_process_is_not_looked_for_outside(folder, bystander):
    with holder(folder):
        # Even where number and time fit by accident: they are of another system.
        changed(folder, namespace="pid:[1]")
        with pytest.raises(RunError, match=r"in a container.*docker compose -f \S+ stop"):
            stop_federation(folder)
        assert is_at_work(folder.state)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare")
def test_a_command_in_a_process_namespace_of_its_own_is_left_alone(folder):
    if subprocess.run([*IN_A_CONTAINER, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces may be made here")
    with holder(folder, inside=(*IN_A_CONTAINER, "--kill-child")) as process:
        assert json.loads(note_of(folder).read_text())["pid"] < 100  # somebody else's here
        with pytest.raises(RunError, match="in a container"):
            stop_federation(folder)
        time.sleep(0.5)
        assert process.poll() is None
        assert is_at_work(folder.state)


def test_another_command_that_works_in_the_folder_is_not_ended(folder):
    with at_work(folder.state), pytest.raises(RunError, match=r"another command .* try again"):
        stop_federation(folder)


@pytest.mark.parametrize("text", ["", "17", "[]", '{"pid": 17}'])
def test_a_note_that_cannot_be_read_ends_nobody(folder, text):
    with holder(folder) as process:
        note_of(folder).write_text(text)
        with pytest.raises(RunError, match="cannot be read"):
            stop_federation(folder)
        assert process.poll() is None


def test_a_folder_that_is_no_coordinators_is_told(tmp_path):
    with pytest.raises(ConfigError, match="is no folder that `federation init` made"):
        stop_federation(CoordinatorFolder(tmp_path / "mistyped"))


def test_nothing_is_left_of_a_command_that_ended(folder):
    with held(folder):
        assert note_of(folder).exists()
    assert not note_of(folder).exists()
