"""What a federation over machines writes is its owner's alone, whatever the umask."""

import os
import stat
import sys

import pytest
from deployment_toys import request_of, wait_until

from fedmedlora.federation.audit import AuditLog
from fedmedlora.federation.client import Desk, client_app
from fedmedlora.federation.deployment.flower_files import write_flower_files
from fedmedlora.federation.deployment.journal import Journal, at_work
from fedmedlora.federation.deployment.layout import CoordinatorFolder
from fedmedlora.federation.deployment.services import Service, Services
from fedmedlora.federation.flower import Context, RecordDict


@pytest.fixture(autouse=True)
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder):
    """What in a folder others than its owner may use."""
    paths = [path for path in folder.rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert any(folder.rglob("*"))
    return sorted(str(path.relative_to(folder)) for path in paths)


def test_audit_logs_and_their_heads(tmp_path):
    AuditLog(tmp_path / "work" / "icu.audit.jsonl", owner="icu", role="site").append("sent")
    assert open_to_others(tmp_path) == []


def test_a_sites_log_of_what_went_wrong(tmp_path):
    desk = Desk(("icu",), {}, logs=tmp_path / "work" / "incidents")
    client_app(desk)(request_of(RecordDict()), Context(1, 1, {"site": "icu"}, RecordDict(), {}))
    assert (tmp_path / "work" / "incidents" / "icu.log").stat().st_size > 0
    assert open_to_others(tmp_path) == []


def test_journal_lock_and_flowers_files(tmp_path):
    folder = CoordinatorFolder(tmp_path / "coordinator")
    with at_work(folder.run):
        Journal(folder.run, run_id="toy", rounds=1, sites=("icu",)).end("done")
    write_flower_files(folder, port=1, app="")
    names = {path.name for path in folder.run.iterdir()}
    assert names == {"journal.json", ".app.lock"}
    assert (folder.app / "pyproject.toml").exists()
    assert open_to_others(tmp_path) == []


def test_logs_of_processes_and_all_that_the_processes_write(tmp_path):
    code = "import os, sys; os.makedirs(sys.argv[1] + '/a/b'); open(sys.argv[1] + '/a/c', 'w')"
    (tmp_path / "all").mkdir(mode=0o700)
    service = Service("one", (sys.executable, "-c", code, str(tmp_path / "all")))
    services = Services([service], logs=tmp_path / "all" / "logs")
    services.start()
    wait_until(lambda: services.pid("one") is None, seconds=30, what="end")
    assert (tmp_path / "all" / "a" / "c").exists()
    assert open_to_others(tmp_path) == []
