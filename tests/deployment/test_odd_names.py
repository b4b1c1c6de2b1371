"""Names, hosts and paths that mean something in YAML, nginx, systemd or TOML arrive as they are."""

import os
import shlex
import shutil
import subprocess
import tomllib

import pytest
import yaml
from cryptography import x509
from deployment_toys import TEXT, found

from fedmedlora.config import check_study
from fedmedlora.config_deployment import CoordinatorSettings, load_coordinator, load_site
from fedmedlora.errors import ConfigError
from fedmedlora.federation.deployment.flower_files import flower_configuration
from fedmedlora.federation.deployment.hospital import site_services
from fedmedlora.federation.deployment.layout import CoordinatorFolder, SiteFolder
from fedmedlora.federation.deployment.rendering import render
from fedmedlora.strict_yaml import load_yaml
from fedmedlora.study.founding import found_federation
from fedmedlora.study.shared import read_shared

SITES = ("007", "null", "yes", "1e3", "0x1f", "2026-11-23")
STUDY = 'no: "it\'s" #1 % {x}\n\\ é'
FOLDER = "a \"b\" 'c' #d: {e}; %h \\n é [f], &g *h |i"
HAS_NGINX, HAS_SYSTEMD = (shutil.which(name) for name in ("nginx", "systemd-analyze"))


def study():
    content = load_yaml(TEXT)
    synthetic = content["sites"]["icu"]
    return check_study(
        {**content, "name": STUDY, "sites": dict.fromkeys(SITES, synthetic)}, source=""
    )


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """A federation of odd names in a folder of an odd name."""
    place = tmp_path_factory.mktemp("odd") / FOLDER
    made, hospitals = found(place, study(), proxy="nginx", admit=True)
    return CoordinatorFolder(made.folder), made, hospitals


def test_a_study_and_its_sites_keep_their_names(federation):
    folder, _, hospitals = federation
    shared = read_shared(folder.study).study
    assert (shared.name, tuple(shared.sites)) == (STUDY, SITES)
    for one in hospitals:
        assert load_site(one.settings).name == one.name


def test_what_a_kit_says_before_it_is_filled_in_is_text(federation):
    for name in SITES:
        text = render("site.yaml", site=name, coordinator="[2001:db8::7]:9443", port=1)
        told = yaml.safe_load(text)
        assert (told["name"], told["coordinator"]) == (name, "[2001:db8::7]:9443")


@pytest.mark.parametrize("host", ["007", "no", "null", "1e3", "12.30", "2001:db8::7", "::1"])
def test_every_host_is_read_from_the_settings_as_it_was_given(host, tmp_path):
    settings = CoordinatorSettings(host=host)
    file = tmp_path / "federation.yaml"
    file.write_text(render("federation.yaml", **settings.model_dump()))
    assert load_coordinator(file) == settings
    assert load_coordinator(file).host == host


@pytest.mark.parametrize(
    "host", ["", "a b", "a:1", "-a", "a;b", 'a"', "[::1]", "fe80::1%eth0", "https://a", "a/b", "é"]
)
def test_a_host_that_is_none_is_refused(host):
    with pytest.raises(ValueError, match="without a port"):
        CoordinatorSettings(host=host)


def test_an_address_of_ipv6_is_in_brackets_and_in_the_certificate(tmp_path):
    settings = CoordinatorSettings(host="2001:DB8:0::7", port=9443)
    assert settings.address == "[2001:db8::7]:9443"
    made = found_federation(study(), tmp_path / "new", settings=settings)
    folder = CoordinatorFolder(made.folder)
    certificate = x509.load_pem_x509_certificate((folder.keys / "server.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "2001:db8::7" in map(str, names.get_values_for_type(x509.IPAddress))
    assert "listen [::]:9443 ssl;" in folder.proxy.read_text()
    with pytest.raises(ValueError, match="listens on IPv4 alone"):
        CoordinatorSettings(host="::1", proxy="none")


@pytest.mark.skipif(not HAS_NGINX, reason="nginx is not installed here")
@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_nginx_reads_its_file_and_finds_the_folders(federation, host):
    if host == "::1" and not os.path.exists("/proc/net/if_inet6"):  # noqa: PTH110
        pytest.skip("no IPv6 on this machine")
    folder, _, _ = federation
    settings = load_coordinator(folder.settings)
    facts = {name: getattr(folder, name) for name in ("state", "logs", "keys", "authority")}
    file = folder.root / "tried.conf"
    file.write_text(render("nginx.conf", **{**settings.model_dump(), **facts, "host": host}))
    folder.logs.mkdir(exist_ok=True)
    command = ["nginx", "-t", "-p", str(folder.state), "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.state.iterdir()} >= {"nginx-body", "nginx-proxy"}


def test_compose_mounts_and_starts_the_folder(federation):
    folder, _, _ = federation
    [service] = yaml.safe_load(folder.compose.read_text())["services"].values()
    assert service["command"][-1] == str(folder.root)
    [volume] = service["volumes"]
    assert volume == {"type": "bind", "source": str(folder.root), "target": str(folder.root)}


def test_the_unit_starts_the_folder(federation):
    folder, _, _ = federation
    lines = dict(line.split("=", 1) for line in folder.unit.read_text().splitlines() if "=" in line)
    command = [word.replace("%%", "%") for word in shlex.split(lines["ExecStart"])]
    assert command[1:] == ["federation", "start", str(folder.root)]
    [written] = shlex.split(lines["ReadWritePaths"])
    assert written.replace("%%", "%") == str(folder.root)
    assert lines["Description"] == 'fedmedlora federation no: "it\'s" #1 %% {x} / é'


@pytest.mark.skipif(not HAS_SYSTEMD, reason="systemd is not installed here")
def test_systemd_reads_the_units(federation, tmp_path):
    folder, _, hospitals = federation
    for unit in (folder.unit, hospitals[0].settings.parent / "systemd/fedmedlora-site.service"):
        text = unit.read_text().splitlines()
        # What is to be run need not be installed here.
        text = [
            line.replace(line[10:].split(" federation ")[0].split(" site ")[0], "/bin/true", 1)
            if line.startswith("ExecStart=")
            else "User=root"
            if line.startswith("User=")
            else line
            for line in text
        ]
        (tmp_path / unit.name).write_text("\n".join(text))
        command = ["systemd-analyze", "--man=no", "verify", str(tmp_path / unit.name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_flower_reads_its_settings(federation, tmp_path):
    folder, _, hospitals = federation
    told = tomllib.loads(flower_configuration(folder, port=1))
    assert told["superlink"]["fedmedlora"]["root-certificates"] == str(folder.authority)
    from flwr.common.config import parse_config_args

    node = {"site": "007", "settings": str(hospitals[0].settings)}
    place = SiteFolder(hospitals[0].settings.parent)
    supernode, _ = site_services(
        place, coordinator="[::1]:1", port=1, work=tmp_path / FOLDER, node=node, environment={}
    )
    given = supernode.command[supernode.command.index("--node-config") + 1]
    assert parse_config_args([given]) == node


@pytest.mark.parametrize("name", ["a$b", "what?", "two\nlines", "\x7f"])
def test_a_folder_that_cannot_be_written_into_these_files_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot have"):
        found_federation(study(), tmp_path / name, settings=CoordinatorSettings(host="localhost"))
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("address", ["::1:9443", "a b:1", "[::1]", "host", "https://a:1", "a:1:2"])
def test_an_address_of_a_coordinator_that_is_none_is_refused(tmp_path, address):
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({"name": "x", "coordinator": address}))
    with pytest.raises(ConfigError, match="coordinator"):
        load_site(tmp_path / "site.yaml")
