"""A federation's beginning: a study in, a coordinator's folder and a kit for every site out."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmedlora import __version__
from fedmedlora.config import Study, check_study
from fedmedlora.config_deployment import CoordinatorSettings
from fedmedlora.durable import refuse_below_file, resolved, write_private
from fedmedlora.errors import MisnamedError, RunError
from fedmedlora.federation import signing
from fedmedlora.federation.deployment.certificates import (
    LOOPBACK,
    make_authority,
    make_server_certificate,
)
from fedmedlora.federation.deployment.kit import signature_file, write_kit
from fedmedlora.federation.deployment.layout import STUDY_FILE, CoordinatorFolder
from fedmedlora.federation.deployment.membership import federation_id
from fedmedlora.federation.deployment.rendering import refuse_unwritable, render
from fedmedlora.model.backbone import fingerprints_of
from fedmedlora.strict_yaml import load_yaml
from fedmedlora.study.arms import study_arms
from fedmedlora.study.service_files import renew_services, unit_text
from fedmedlora.study.shared import shared_text

#: Of a site's SuperNode; the sites are on machines of their own.
_SITE_PORT = 9094


@dataclass(frozen=True)
class Founded:
    """What ``found_federation`` made.

    Attributes:
        folder: the coordinator's.
        kits: site -> its archive.
        public: the coordinator's public key, which the sites are told by another way than the kit.
    """

    folder: Path
    kits: dict[str, Path]
    public: str


def found_federation(
    study: Study, out: Path, *, settings: CoordinatorSettings, method: str | None = None
) -> Founded:
    """Make everything that a federation over machines needs, in a folder of its own.

    Args:
        study: with a method to train; notes that it names are left out of what the sites get.
        out: a folder that does not exist.
        settings: the coordinator's.
        method: label of the method, if the study has several.

    Raises:
        ConfigError: the study cannot be trained over machines, or the folder's path cannot be
            written into the files of other programs.
        BackboneError: its backbone is not here.
        MisnamedError: the folder exists, or no folder can be made there.
        RunError: it cannot be written.
    """
    refuse_below_file(out)
    text = shared_text(study, method=method)
    expected = _expected(check_study(load_yaml(text), source="study.yaml"))
    if out.exists():
        raise MisnamedError(
            f"{out} exists already: keys and certificates are never overwritten; choose another "
            "folder, or remove it if no site has its kit yet"
        )
    folder = CoordinatorFolder(resolved(out))
    refuse_unwritable(folder.root)
    try:
        folder.root.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise RunError(f"cannot make {out}: {error.strerror}") from error
    _write(folder.study, text)
    _write(folder.settings, render("federation.yaml", **settings.model_dump()))
    _make_certificates(folder, settings.host, name=study.name)
    renew_services(folder, settings)
    _write(folder.unit, unit_text(folder, study=study.name))
    public = signing.make_key(folder.signing_key)
    _write(folder.identity, federation_id(folder.study.read_bytes(), public) + "\n")
    key = signing.read_key(folder.signing_key)
    kits = {
        site: _make_kit(
            folder, site, key=key, settings=settings, study=study.name, expected=expected
        )
        for site in study.sites
    }
    return Founded(folder.root, kits, public)


def _expected(study: Study) -> bytes:
    """What a site should find on its own machine, as JSON: versions and fingerprints."""
    tagger = study_arms(study)[0].is_tagger
    weights, tokenizer = fingerprints_of(study.encoder.name if tagger else study.backbone.name)
    content = {
        "fedmedlora": __version__,
        "flwr": version("flwr"),
        "backbone": weights,
        "tokenizer": tokenizer,
    }
    return json.dumps(content, indent=1).encode() + b"\n"


def _make_certificates(folder: CoordinatorFolder, host: str, *, name: str) -> None:
    pair, key, authority = make_authority(f"fedmedlora {name}")
    write_private(folder.keys / "ca.key", pair.private)
    server = make_server_certificate((host, *LOOPBACK), key, authority)
    write_private(folder.keys / "server.key", server.private)
    _write(folder.authority, pair.public.decode())
    _write(folder.keys / "server.pem", server.public.decode())
    write_private(folder.secret, secrets.token_bytes(32))


def _make_kit(
    folder: CoordinatorFolder,
    site: str,
    *,
    key: Ed25519PrivateKey,
    settings: CoordinatorSettings,
    study: str,
    expected: bytes,
) -> Path:
    """One site's archive."""
    facts = {
        "site": site,
        "study": study,
        "coordinator": settings.address,
        "port": _SITE_PORT,
        "version": __version__,
    }
    unit = "fedmedlora-site.service"
    files = {
        "README.md": render("kit-readme.md", **facts).encode(),
        "site.yaml": render("site.yaml", **facts).encode(),
        f"systemd/{unit}": render(unit, **facts).encode(),
        STUDY_FILE: folder.study.read_bytes(),
        "expected.json": expected,
        "ca.pem": folder.authority.read_bytes(),
        "coordinator.pub": f"{signing.public_key(key)}\n".encode(),
    }
    archive = folder.kits / f"{site}.tar.gz"
    write_kit(archive, files, site=site, key=key)
    return archive


def files_of_kit(archive: Path) -> tuple[Path, Path]:
    """What is sent to a site: the archive and its signature."""
    return archive, signature_file(archive)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error
