"""Files for other programs follow what federation.yaml says now."""

import re
import shutil
import signal
import tarfile

import pytest
import yaml
from deployment_toys import found, study_of

from fedmedlora.cli import run_command
from fedmedlora.config_deployment import load_coordinator
from fedmedlora.errors import ConfigError
from fedmedlora.failures import INTERRUPTED
from fedmedlora.federation.deployment.layout import CoordinatorFolder
from fedmedlora.study.service_files import renew_services


@pytest.fixture(scope="module")
def founded(tmp_path_factory):
    made, _ = found(tmp_path_factory.mktemp("federation"), study_of())
    return made.folder


@pytest.fixture
def folder(founded, tmp_path):
    shutil.copytree(founded, tmp_path / "coordinator")
    return CoordinatorFolder(tmp_path / "coordinator")


def changed(folder, **keys):
    """The settings after somebody changed them in the file."""
    content = {**yaml.safe_load(folder.settings.read_text()), **keys}
    folder.settings.write_text(yaml.safe_dump(content))
    return load_coordinator(folder.settings)


def test_nothing_is_written_where_nothing_changed(folder):
    renew_services(folder, load_coordinator(folder.settings))  # it was moved
    before = {path: path.stat().st_mtime_ns for path in (folder.proxy, folder.compose)}
    assert renew_services(folder, load_coordinator(folder.settings)) == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_ports_are_in_the_files_at_the_next_start(folder):
    settings = changed(folder, port=12345, superlink_port=12346, proxy="nginx")
    assert renew_services(folder, settings) == ["nginx.conf", "compose.yaml"]
    proxy = folder.proxy.read_text()
    assert "listen 12345 ssl;" in proxy
    assert "proxy_pass https://127.0.0.1:12346;" in proxy
    [service] = yaml.safe_load(folder.compose.read_text())["services"].values()
    assert service["ports"] == ["12345:12345"]


def test_without_a_proxy_the_container_shows_the_superlinks_port(folder):
    renew_services(folder, changed(folder, superlink_port=12346, proxy="none"))
    [service] = yaml.safe_load(folder.compose.read_text())["services"].values()
    assert service["ports"] == ["12346:12346"]


def test_the_files_of_a_folder_that_was_moved_name_its_new_place(folder, founded):
    assert str(founded) in folder.proxy.read_text()
    renew_services(folder, load_coordinator(folder.settings))
    for path in (folder.proxy, folder.compose):
        assert str(founded) not in path.read_text()
        assert str(folder.root) in path.read_text()


def unit_settings(text):
    """Settings of a systemd unit."""
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_what_was_told_to_end_is_not_started_again_by_systemd(folder, founded):
    site = (founded.parent / "sites" / "icu" / "systemd" / "fedmedlora-site.service").read_text()
    for text in (folder.unit.read_text(), site):
        codes = unit_settings(text)["SuccessExitStatus"].split()
        # As `federation stop` (SIGTERM) and Ctrl-C end the command.
        assert set(codes) == {str(128 + signal.SIGTERM), str(INTERRUPTED)}


def test_the_ledger_of_the_kits_example_can_be_written_under_the_kits_unit(founded):
    with tarfile.open(founded / "kits" / "icu.tar.gz") as kit:
        settings, unit = (
            kit.extractfile(f"fedmedlora-icu/{name}").read().decode()
            for name in ("site.yaml", "systemd/fedmedlora-site.service")
        )
    [ledger] = re.findall(r"^# ledger: (\S+)", settings, flags=re.MULTILINE)
    assert ledger.startswith(f"/var/lib/{unit_settings(unit)['StateDirectory']}/")


def test_a_host_that_the_certificate_does_not_name_is_refused(folder, capsys):
    with pytest.raises(ConfigError, match=r"localhost, 127\.0\.0\.1"):
        renew_services(folder, changed(folder, host="elsewhere.example.org"))
    assert run_command(["federation", "start", str(folder.root)]) == 2
    assert "'elsewhere.example.org' is none that the server's" in capsys.readouterr().err
