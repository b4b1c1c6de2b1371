"""Kits: what a site gets is whole, private and the coordinator's own; nothing is overwritten."""

import json
import shutil
import ssl
import stat
import tarfile

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from deployment_toys import found, study_of

from fedmedlora.cli import run_command
from fedmedlora.config_deployment import CoordinatorSettings
from fedmedlora.errors import ConfigError, DataError, MisnamedError, RunError
from fedmedlora.federation import signing
from fedmedlora.federation.deployment.kit import (
    read_kit,
    signature_file,
    unpack_kit,
    write_kit,
)
from fedmedlora.federation.deployment.membership import read_membership
from fedmedlora.study.founding import found_federation
from fedmedlora.study.shared import read_shared

KEYS = ("node.key", "signing.key")
FILES = {"study.yaml": b"name: toy\n", "notes/README.md": b"none"}


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
    assert unpack_kit(archive, tmp_path / "site", public=public).site == "icu"
    assert (tmp_path / "site" / "notes" / "README.md").read_bytes() == b"none"
    for name in ("node.key", "signing.key"):
        key = tmp_path / "site" / "keys" / name
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "site").stat().st_mode) == 0o700
    with pytest.raises(MisnamedError, match="exists already"):
        unpack_kit(archive, tmp_path / "site", public=public)
    with pytest.raises(MisnamedError, match="is no folder"):
        unpack_kit(archive, archive / "site", public=public)


def test_what_a_killed_unpacking_left_is_cleared_away_and_nothing_else(kit, tmp_path, monkeypatch):
    archive, public = kit

    def killed(*arguments, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)  # it does not come to clear up after itself
        patched.setattr("fedmedlora.federation.deployment.kit.make_membership", killed)
        with pytest.raises(KeyboardInterrupt):
            unpack_kit(archive, tmp_path / "site", public=public)
    [left] = tmp_path.glob(".site.*.tmp")
    (tmp_path / ".site.other.0123abcd.tmp").mkdir()  # of another folder
    unpack_kit(archive, tmp_path / "site", public=public)
    assert not left.exists()
    assert (tmp_path / ".site.other.0123abcd.tmp").exists()


def test_a_kit_holds_no_private_key_and_nobodys_notes(federation):
    made, hospitals = federation
    study = (made.folder / "study.yaml").read_text()
    assert "synthetic" not in study
    for one in hospitals:
        assert (one.settings.parent / "study.yaml").read_text() == study
        with tarfile.open(made.kits[one.name]) as tar:
            content = {entry.name.partition("/")[2]: tar.extractfile(entry).read() for entry in tar}
        assert set(content) == {
            "README.md", "site.yaml", "study.yaml", "expected.json", "ca.pem", "coordinator.pub",
            "systemd/fedmedlora-site.service", "MANIFEST.json",
        }  # fmt: skip
        assert not [name for name, data in content.items() if b"PRIVATE KEY" in data]


def test_no_private_key_of_a_site_is_in_the_coordinators_folder(federation):
    made, hospitals = federation
    every = b"".join(path.read_bytes() for path in made.folder.rglob("*") if path.is_file())
    keys = [one.settings.parent / "keys" / name for one in hospitals for name in KEYS]
    assert len({key.read_bytes() for key in keys}) == 2 * len(hospitals)
    for key in keys:
        [middle, *_] = key.read_bytes().splitlines()[1:]
        assert middle not in every


@pytest.mark.parametrize("site", ["../icu", "", "a/b", ".icu"])
def test_a_kit_of_a_site_that_cannot_be_is_refused(tmp_path, site):
    key = Ed25519PrivateKey.generate()
    write_kit(tmp_path / "kit.tar.gz", FILES, site=site, key=key)
    with pytest.raises(DataError, match="no site's name"):
        unpack_kit(tmp_path / "kit.tar.gz", tmp_path / "new", public=signing.public_key(key))
    assert not (tmp_path / "new").exists()


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
    told = read_membership(tmp_path / "icu" / "icu.membership.json")
    out = capsys.readouterr().out
    assert f"send this back to the coordinator: {tmp_path / 'icu' / 'icu.membership.json'}" in out
    assert told.fingerprint in out


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
