"""Who a site is: its own keys made, a small public file that names them out; and back, if it holds.

FOLDER/keys/signing.key, node.key    made at the hospital, mode 0600; they never leave it
FOLDER/SITE.membership.json          their public halves, signed with both: for the coordinator
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from fedmedlora.canonical import canonical, sha256
from fedmedlora.durable import write_private
from fedmedlora.errors import ConfigError, DataError
from fedmedlora.federation import signing
from fedmedlora.federation.deployment.layout import SiteFolder, membership_file
from fedmedlora.federation.deployment.node_keys import (
    is_node_key,
    is_signed_with_node_key,
    make_node_key,
    public_node_key,
    sign_with_node_key,
)

_MOST_BYTES = 65_536
_SAID = ("site", "federation", "signing", "node")


@dataclass(frozen=True)
class Membership:
    """What a site says of itself.

    Attributes:
        site: its name in the study.
        federation: see ``federation_id``.
        signing: its public key for what it sends, 64 hexadecimal digits.
        node: its public key for the connection, a line of OpenSSH's.
        node_proof: signature of the statement by the private half of ``node``, hexadecimal: whoever
            made this has that key. "" before it is signed.
        proof: signature of the statement and of ``node_proof`` by the private half of ``signing``,
            hexadecimal; "" before it is signed.
    """

    site: str
    federation: str
    signing: str
    node: str
    node_proof: str = ""
    proof: str = ""

    @property
    def statement(self) -> bytes:
        """Who the site says that it is: what both keys sign."""
        content = asdict(self)
        return canonical({name: content[name] for name in _SAID})

    @property
    def signed(self) -> bytes:
        """What the proof is of: ECDSA has many signatures of one statement, so this one's too."""
        content = asdict(self)
        del content["proof"]
        return canonical(content)

    @property
    def fingerprint(self) -> str:
        """Half of the statement's SHA-256, in groups that can be read out over the telephone."""
        digits = sha256(self.statement)[:32]
        return " ".join(digits[place : place + 4] for place in range(0, len(digits), 4))

    def to_json(self) -> bytes:
        """As the file has it."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


def federation_id(study: bytes, coordinator: str) -> str:
    """Tells one federation from every other: 64 hexadecimal digits.

    Args:
        study: the study file's bytes.
        coordinator: the coordinator's public key.
    """
    content = {"study": sha256(study), "coordinator": coordinator}
    return sha256(canonical(content))


def own_membership(folder: SiteFolder, site: str) -> Membership:
    """What a site's own folder says of it.

    Raises:
        ConfigError: the folder is not this site's.
        DataError: its file is damaged.
    """
    file = membership_file(folder.root, site)
    if file.exists():
        return read_membership(file)
    others = sorted(one.name for one in folder.root.glob(membership_file(Path(), "*").name))
    raise ConfigError(
        f"{folder.root}: `site unpack` made no {file.name} here"
        + (f", but {', '.join(others)}: `name` in the settings is another site's" if others else "")
    )


def refuse_changed_terms(folder: SiteFolder, site: str, *, study: Path) -> None:
    """Refuse a site's folder whose study or coordinator are not those that its keys were made for.

    Args:
        folder: the site's.
        site: its name.
        study: the study file that it would answer for.

    Raises:
        ConfigError: they are others, the folder is another site's, or a file is missing or damaged.
        DataError: the site's own membership is damaged.
    """
    public = signing.read_public_key(folder.coordinator)
    mine = own_membership(folder, site)
    if federation_id(study.read_bytes(), public) != mine.federation:
        raise ConfigError(
            f"{study} or {folder.coordinator} is not as it came in the kit, whose study and "
            "coordinator this site agreed to when it was unpacked; take both files out of the kit "
            "again (tar -xzf)"
        )


def refuse_other_keys(folder: SiteFolder, site: str) -> None:
    """Refuse private keys that are not those which the site's membership names.

    Nobody would let it in: what was admitted is the membership.

    Raises:
        ConfigError: so they are, one cannot be read, or the folder is another site's.
        DataError: the site's own membership is damaged.
    """
    mine = own_membership(folder, site)
    here = {
        folder.signing_key: signing.public_key(signing.read_key(folder.signing_key))
        == mine.signing,
        folder.node_key: public_node_key(folder.node_key) == mine.node,
    }
    for file, same in here.items():
        if not same:
            raise ConfigError(
                f"{file} is not the key that {membership_file(folder.root, site).name} names: it "
                "is of another site, or of a kit that was unpacked another time; put the own back"
            )


def make_membership(folder: SiteFolder, *, site: str, federation: str) -> Membership:
    """Make a site's keys, and the file that names them.

    Raises:
        RunError: a file exists already (none is overwritten), or cannot be written.
    """
    public, node = signing.make_key(folder.signing_key), make_node_key(folder.node_key)
    made = Membership(site, federation, public, node)
    made = replace(made, node_proof=sign_with_node_key(made.statement, folder.node_key))
    key = signing.read_key(folder.signing_key)
    made = replace(made, proof=signing.sign(made.signed, key, purpose="membership"))
    write_private(membership_file(folder.root, site), made.to_json())
    return made


def read_membership(path: Path) -> Membership:
    """Read what a site says of itself; it may come from anybody.

    Raises:
        DataError: the file cannot be read, is something else, or was not signed as it is with both
            keys that it names.
    """
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MOST_BYTES))
        made = Membership(**content)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=path) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError("is no SITE.membership.json of `site unpack`", path=path) from error
    if any(not isinstance(getattr(made, field.name), str) for field in fields(made)):
        raise DataError("is no SITE.membership.json of `site unpack`", path=path)
    if not signing.is_signed(made.signed, made.proof, made.signing, purpose="membership"):
        raise DataError(
            "its proof does not fit: it was changed on its way; ask the site to send it again",
            path=path,
        )
    if not is_node_key(made.node):
        raise DataError("its node key is no ECDSA key on P-384 in OpenSSH's form", path=path)
    if not is_signed_with_node_key(made.statement, made.node_proof, made.node):
        raise DataError(
            "nothing shows that its maker has the node key that it names, which may be another's; "
            f"ask site {made.site!r} for the file that `site unpack` makes",
            path=path,
        )
    return made
