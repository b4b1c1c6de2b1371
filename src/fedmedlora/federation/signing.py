"""Ed25519: key pairs in files, and signatures of statements. No Flower here.

A statement is a mapping of plain values, signed in one canonical writing (JSON, keys sorted, no
spaces, ASCII) behind a word for its purpose, so that no signature of one kind passes for another.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedmedlora.durable import write_bytes, write_private
from fedmedlora.errors import ConfigError, RunError

#: What a signature may be for.
Purpose = Literal[
    "request", "reply", "log-head", "kit", "membership", "secure-keys", "secure-survivors"
]
_PUBLIC = re.compile(r"[0-9a-f]{64}")


def make_key(path: Path) -> str:
    """Make a key pair: PATH (PEM, mode 0600) and PATH.pub (64 hexadecimal digits).

    Returns:
        the public key.

    Raises:
        RunError: PATH exists already (it is never overwritten), or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    write_private(path, private_bytes(key))
    try:
        write_bytes(public_file(path), f"{public_key(key)}\n".encode())
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error
    return public_key(key)


def private_bytes(key: Ed25519PrivateKey) -> bytes:
    """A private key as the bytes of its file (PEM)."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_file(path: Path) -> Path:
    """Where the public half of a private key's file is."""
    return path.with_name(f"{path.name}.pub")


def read_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        ConfigError: there is none, others may read it (mode wider than 0600), or it is no Ed25519
            key in PEM without a passphrase.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(65_536)
    except OSError as error:
        raise ConfigError(f"{path}: the private key cannot be read: {error.strerror}") from error
    if os.name != "nt" and mode & 0o077:
        raise ConfigError(
            f"{path}: its mode is {mode:04o}: others may read this private key; make a new pair if "
            f"they may have, else: chmod 600 {path}"
        )
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} is no private key in PEM without a passphrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is a private key of another kind than Ed25519")
    return key


def read_public_key(path: Path) -> str:
    """Read a public key.

    Raises:
        ConfigError: there is none, or it is not 64 hexadecimal digits.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: the public key cannot be read") from error
    if not is_public_key(text):
        raise ConfigError(f"{path} is no public key: 64 hexadecimal digits, in small letters")
    return text


def public_key(key: Ed25519PrivateKey) -> str:
    """The public half of a private key: 64 hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()


def is_public_key(text: object) -> bool:
    """Whether this is a public key as ``public_key`` writes it."""
    return isinstance(text, str) and _PUBLIC.fullmatch(text) is not None


def sign(statement: bytes, key: Ed25519PrivateKey, *, purpose: Purpose) -> str:
    """The signature of a canonical statement: 128 hexadecimal digits."""
    return key.sign(_message(statement, purpose)).hex()


def is_signed(statement: bytes, signature: str, public: str, *, purpose: Purpose) -> bool:
    """Whether a statement was signed, for this purpose, with the key that ``public`` belongs to."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), _message(statement, purpose))
    except (InvalidSignature, ValueError, TypeError):
        return False
    # One writing of a signature only: bytes.fromhex takes capitals and spaces as well.
    return signature == bytes.fromhex(signature).hex()


def _message(statement: bytes, purpose: Purpose) -> bytes:
    return f"fedmedlora {purpose} 1\n".encode() + statement
