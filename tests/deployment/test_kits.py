"""Kits: what a site gets is whole, private and the coordinator's own; nothing is overwritten."""

import json
import ssl
import stat
import tarfile

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from deployment_toys import found, study_of

from fedmedlora.cli import run_command
from fedmedlora.config_deployment import CoordinatorSettings
from fedmedlora.errors import ConfigError, DataError, RunError
from fedmedlora.federation import signing
from fedmedlora.federation.deployment.kit import (
    read_kit,
    signature_file,
    unpack_kit,
    write_kit,
)
from fedmedlora.study.founding import found_federation
from fedmedlora.study.shared import read_shared

FILES = {"study.yaml": b"name: toy\n", "keys/node.key": b"private"}


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """A coordinator's folder and its sites' unpacked kits."""
    return found(tmp_path_factory.mktemp("federation"), study_of())


@pytest.fixture
def kit(tmp_path):
    """(archive, the coordinator's public key) of a small kit."""
    key = Ed25519PrivateKey.generate()
    write_kit(tmp_path / "icu.tar.gz", FILES, site="icu", key=key)
    return tmp_path / "icu.tar.gz", signing.public_key(key)


def test_a_kit_is_read_as_it_was_written(kit):
    archive, public = kit
    assert read_kit(archive, public=public) == ("icu", FILES)


def test_every_flipped_byte_of_a_kit_is_refused(kit):
    archive, public = kit
    data = archive.read_bytes()
    places = range(0, len(data), max(1, len(data) // 50))
    refused = 0
    for place in places:
        archive.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DataError, match="signature does not fit"):
            read_kit(archive, public=public)
        refused += 1
    assert refused == len(places) >= 50


def test_a_kit_of_another_coordinator_is_refused(kit):
    archive, _ = kit
    other = signing.public_key(Ed25519PrivateKey.generate())
    with pytest.raises(DataError, match="another key than the coordinator's"):
        read_kit(archive, public=other)


def test_the_signature_of_one_sites_kit_is_none_for_anothers(kit, tmp_path):
    archive, public = kit
    told = json.loads(signature_file(archive).read_text())
    signature_file(archive).write_text(json.dumps({**told, "site": "wards"}))
    with pytest.raises(DataError, match="signature does not fit"):
        read_kit(archive, public=public)


def test_a_kit_without_its_signature_is_refused(kit):
    archive, public = kit
    signature_file(archive).unlink()
    with pytest.raises(DataError, match=r"comes with its \.sig"):
        read_kit(archive, public=public)


def test_an_unpacked_kit_is_its_owners_alone_and_is_never_overwritten(kit, tmp_path):
    archive, public = kit
    assert unpack_kit(archive, tmp_path / "site", public=public) == "icu"
    key = tmp_path / "site" / "keys" / "node.key"
    assert key.read_bytes() == b"private"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "site").stat().st_mode) == 0o700
    with pytest.raises(RunError, match="exists already"):
        unpack_kit(archive, tmp_path / "site", public=public)


def test_a_site_gets_its_own_keys_and_nobody_elses_notes(federation):
    made, hospitals = federation
    study = (made.folder / "study.yaml").read_text()
    assert "synthetic" not in study
    seen = set()
    for one in hospitals:
        folder = one.settings.parent
        assert (folder / "study.yaml").read_text() == study
        seen.add((folder / "keys" / "node.key").read_bytes())
        seen.add((folder / "keys" / "signing.key").read_bytes())
        with tarfile.open(made.kits[one.name]) as tar:
            names = {name.partition("/")[2] for name in tar.getnames()}
        assert names == {
            "README.md", "site.yaml", "study.yaml", "expected.json", "ca.pem", "coordinator.pub",
            "keys/node.key", "keys/node.key.pub", "keys/signing.key", "keys/signing.key.pub",
            "systemd/fedmedlora-site.service", "MANIFEST.json",
        }  # fmt: skip
    assert len(seen) == 2 * len(hospitals)


def test_the_coordinator_keeps_the_public_halves_of_the_sites_keys(federation):
    made, hospitals = federation
    for one in hospitals:
        keys = one.settings.parent / "keys"
        node = load_ssh_private_key((keys / "node.key").read_bytes(), None)
        assert node.curve.name == "secp384r1"
        for kind in ("node", "signing"):
            kept = (made.folder / "sites" / f"{one.name}.{kind}.pub").read_bytes()
            assert kept == (keys / f"{kind}.key.pub").read_bytes()
        signed = signing.sign(b"x", signing.read_key(keys / "signing.key"), purpose="reply")
        public = signing.read_public_key(made.folder / "sites" / f"{one.name}.signing.pub")
        assert signing.is_signed(b"x", signed, public, purpose="reply")


def test_private_files_of_a_coordinator_are_its_owners_alone(federation):
    made, _ = federation
    names = ("ca.key", "server.key", "signing.key", "superexec.secret")
    modes = {name: stat.S_IMODE((made.folder / "keys" / name).stat().st_mode) for name in names}
    assert modes == dict.fromkeys(names, 0o600)
    assert stat.S_IMODE(made.folder.stat().st_mode) == 0o700


def test_the_server_is_known_by_its_name_and_on_loopback(federation):
    made, _ = federation
    pem = (made.folder / "keys" / "server.pem").read_bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    context = ssl.create_default_context(cafile=str(made.folder / "keys" / "ca.pem"))
    context.load_cert_chain(made.folder / "keys" / "server.pem", made.folder / "keys/server.key")


def test_a_second_init_into_the_same_folder_is_refused_and_changes_nothing(federation, capsys):
    made, _ = federation
    before = {p: p.read_bytes() for p in made.folder.rglob("*") if p.is_file()}
    with pytest.raises(RunError, match="never overwritten"):
        found_federation(study_of(), made.folder, settings=CoordinatorSettings(host="localhost"))
    assert {p: p.read_bytes() for p in made.folder.rglob("*") if p.is_file()} == before


def test_unpack_says_what_is_wrong_with_a_kit(federation, tmp_path, capsys):
    made, _ = federation
    arguments = ["site", "unpack", str(made.kits["icu"]), "--out", str(tmp_path / "icu")]
    assert run_command([*arguments, "--key", "0" * 64]) == 2
    assert "another key" in capsys.readouterr().err
    assert run_command([*arguments, "--key", made.public]) == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"absent": "negative"}, "absent: negative"),
        ({"partition": {"sites": 2}}, "partition"),
        ({"methods": ["fed-medlora", "fed-medlora+"]}, "fed-medlora, fed-medlora+; name one"),
        ({"methods": ["single-site"]}, "are none"),
    ],
)
def test_a_study_that_machines_cannot_share_is_refused_by_name(tmp_path, settings, told):
    study = study_of().with_settings(settings, where="toy")
    with pytest.raises(ConfigError, match=told.replace("+", r"\+")):
        found_federation(study, tmp_path / "new", settings=CoordinatorSettings(host="localhost"))
    assert not (tmp_path / "new").exists()


def test_a_run_is_named_by_the_bytes_of_its_study_file(federation, tmp_path):
    made, _ = federation
    text = (made.folder / "study.yaml").read_text()
    (tmp_path / "study.yaml").write_text(text + "# changed\n")
    one, other = read_shared(made.folder / "study.yaml"), read_shared(tmp_path / "study.yaml")
    assert one.study == other.study
    assert one.run_id != other.run_id
    assert one.run_id == f"toy/fed-medlora@{one.sha256}"
