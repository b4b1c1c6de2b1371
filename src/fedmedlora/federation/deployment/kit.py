"""Site kits: files in, one signed archive out; and back, only if nothing in it was changed.

SITE.tar.gz         what the site gets, every file's SHA-256 in its MANIFEST.json
SITE.tar.gz.sig     the coordinator's signature of the archive, detached

A kit holds no private key: the site makes its own when it unpacks it.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmedlora.canonical import canonical, sha256
from fedmedlora.durable import clear_unfinished, new_folder, refuse_below_file, write_private
from fedmedlora.errors import DataError, MisnamedError
from fedmedlora.federation import signing
from fedmedlora.federation.deployment.layout import STUDY_FILE, SiteFolder
from fedmedlora.federation.deployment.membership import (
    Membership,
    federation_id,
    make_membership,
)

MANIFEST = "MANIFEST.json"
_MOST_BYTES = 16_000_000
#: What a site has no reason to change; its study and coordinator are bound to its keys as well.
_FIXED = ("ca.pem", "coordinator.pub", "expected.json", STUDY_FILE)
_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def signature_file(archive: Path) -> Path:
    """Where the signature of an archive is."""
    return archive.with_name(f"{archive.name}.sig")


def write_kit(
    archive: Path, files: Mapping[str, bytes], *, site: str, key: Ed25519PrivateKey
) -> None:
    """Write a kit and its signature.

    Args:
        archive: SITE.tar.gz; never overwritten.
        files: relative path -> content.
        site: whose it is.
        key: the coordinator's.

    Raises:
        RunError: it exists, or cannot be written.
    """
    everything = {**files, MANIFEST: _manifest(site, files)}
    data = _packed(everything, top=f"fedmedlora-{site}")
    write_private(archive, data)
    statement = _statement(site, data)
    told = {
        "site": site,
        "public": signing.public_key(key),
        "signature": signing.sign(statement, key, purpose="kit"),
    }
    write_private(signature_file(archive), json.dumps(told, indent=1).encode() + b"\n")


def read_kit(archive: Path, *, public: str) -> tuple[str, dict[str, bytes]]:
    """The site and the files of a kit, if the coordinator made it as it is.

    Args:
        archive: SITE.tar.gz; its signature lies beside it.
        public: the coordinator's public key, as the coordinator told it by another way.

    Raises:
        DataError: the signature is missing, of another key or of another archive, or the archive
            is not what a coordinator writes.
    """
    data, told = _bytes_of(archive), _signature_of(signature_file(archive))
    site = str(told.get("site", ""))
    if told.get("public") != public:
        raise DataError(
            "it was signed with another key than the coordinator's; ask the coordinator for its "
            "public key by telephone, and for the kit again",
            path=archive,
        )
    statement = _statement(site, data)
    if not signing.is_signed(statement, str(told.get("signature")), public, purpose="kit"):
        raise DataError("its signature does not fit: it was changed on its way", path=archive)
    if _SITE.fullmatch(site) is None:  # it becomes the name of a file
        raise DataError(f"{site!r} is no site's name", path=archive)
    files = _unpacked(archive, data, top=f"fedmedlora-{site}")
    listed = _manifest_of(archive, files.pop(MANIFEST, b""), site=site)
    if listed != {name: sha256(content) for name, content in files.items()}:
        raise DataError("its files are not those of its manifest", path=archive)
    return site, files


def unpack_kit(archive: Path, out: Path, *, public: str) -> Membership:
    """Check a kit, lay its files out in a new folder, and make the site's keys there.

    Returns:
        what the site has to send back, as ``membership_file`` in the folder.

    Raises:
        DataError: as of ``read_kit``.
        MisnamedError: the folder exists, or no folder can be made there.
        RunError: it cannot be written.
    """
    refuse_below_file(out)
    site, files = read_kit(archive, public=public)
    federation = federation_id(files.get(STUDY_FILE, b""), public)
    if out.exists():
        raise MisnamedError(f"{out} exists already, and is not overwritten; choose another folder")
    clear_unfinished(out)  # it may hold private keys
    with new_folder(out) as fresh:
        fresh.chmod(0o700)
        for name, content in {**files, MANIFEST: _manifest(site, files)}.items():
            write_private(fresh / name, content)
        return make_membership(SiteFolder(fresh), site=site, federation=federation)


def changed_files(folder: Path) -> tuple[str, ...]:
    """Files of an unpacked kit that are not as they came; the settings are the site's to change.

    Raises:
        DataError: the folder has no list of them.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise DataError("is missing", path=file)
    try:
        listed = dict(json.loads(_bytes_of(file))["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("is no list of a kit's files", path=file) from error
    return tuple(
        name
        for name, digest in listed.items()
        if name in _FIXED and sha256(_present(folder / name)) != digest
    )


def _present(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _manifest(site: str, files: Mapping[str, bytes]) -> bytes:
    content = {"site": site, "files": {name: sha256(data) for name, data in files.items()}}
    return json.dumps(content, indent=1).encode() + b"\n"


def _packed(files: Mapping[str, bytes], *, top: str) -> bytes:
    """A tar.gz of the files under one folder, the same bytes for the same files."""
    raw = io.BytesIO()
    # Without the time of its making.
    with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as packed:  # noqa: SIM117
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name in sorted(files):
                entry = tarfile.TarInfo(f"{top}/{name}")
                entry.size = len(files[name])
                entry.mode = 0o644
                tar.addfile(entry, io.BytesIO(files[name]))
    return raw.getvalue()


def _unpacked(archive: Path, data: bytes, *, top: str) -> dict[str, bytes]:
    """Relative path -> content of the plain files in an archive."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
            for entry in tar:
                path = PurePosixPath(entry.name)
                safe = entry.isfile() and path.parts[:1] == (top,) and ".." not in path.parts
                if not safe or sum(map(len, found.values())) + entry.size > _MOST_BYTES:
                    raise DataError("it holds what no kit holds", path=archive)
                file = tar.extractfile(entry)
                found[str(PurePosixPath(*path.parts[1:]))] = b"" if file is None else file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError("it is no archive of a kit", path=archive) from error
    return found


def _manifest_of(archive: Path, data: bytes, *, site: str) -> dict[str, str]:
    try:
        content = json.loads(data)
        if content["site"] == site:
            return dict(content["files"])
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(f"its {MANIFEST} is missing or of another site", path=archive)


def _signature_of(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_bytes_of(path))
    except ValueError as error:
        raise DataError("is no signature of a kit", path=path) from error
    if not isinstance(content, dict):
        raise DataError("is no signature of a kit", path=path)
    return content


def _bytes_of(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError("there is no such file; a kit comes with its .sig", path=path) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=path) from error
    if len(data) > _MOST_BYTES:
        raise DataError("is too large for a kit", path=path)
    return data


def _statement(site: str, data: bytes) -> bytes:
    return canonical({"site": site, "sha256": sha256(data)})
