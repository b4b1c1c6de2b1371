"""A site's key for the connection: made for Flower, which admits it by its public half; and shown.

ECDSA on P-384, the kind that a SuperNode registers with. Public, it is a line of OpenSSH's.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from fedmedlora.durable import write_private
from fedmedlora.errors import ConfigError

_ALGORITHM = ec.ECDSA(hashes.SHA384())


def make_node_key(path: Path) -> str:
    """Make a key pair, its private half as a file of mode 0600.

    Returns:
        the public half.

    Raises:
        RunError: the file exists already (it is never overwritten), or cannot be written.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return _line(key.public_key())


def public_node_key(path: Path) -> str:
    """The public half of the private key of a file.

    Raises:
        ConfigError: the file cannot be read, or holds another kind of key.
    """
    return _line(_private(path).public_key())


def is_node_key(line: str) -> bool:
    """Whether a text is the public half of such a key, in the one writing that we give it."""
    key = _public(line)
    return key is not None and _line(key) == line


def sign_with_node_key(statement: bytes, path: Path) -> str:
    """Sign a membership with the private key of a file: ECDSA with SHA-384, DER, hexadecimal.

    Raises:
        ConfigError: the file cannot be read, or holds another kind of key.
    """
    return _private(path).sign(_message(statement), _ALGORITHM).hex()


def is_signed_with_node_key(statement: bytes, signature: str, line: str) -> bool:
    """Whether a membership was signed with the private half of a node's key."""
    key = _public(line)
    if key is None:
        return False
    try:
        key.verify(bytes.fromhex(signature), _message(statement), _ALGORITHM)
    except (InvalidSignature, ValueError):
        return False
    return True


def _message(statement: bytes) -> bytes:
    # A SuperNode signs its requests with the same key: none of them begins like this.
    return b"fedmedlora membership of a node 1\n" + statement


def _private(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: the node's private key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path}: is no ECDSA key, the kind that Flower asks for")
    return key


def _public(line: str) -> ec.EllipticCurvePublicKey | None:
    try:
        key = load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
        return key
    return None


def _line(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
