"""Keys of one attempt at a round: agreed between two sites, sealed for one, shared among all.

X25519 (RFC 7748), HKDF-SHA256 (RFC 5869), AES-256-GCM: ``cryptography``. Shamir's shares over
GF(2^128): Flower's SecAgg+, which takes them from pycryptodome. Why these: docs/decisions/0010.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedmedlora.canonical import canonical
from fedmedlora.errors import FederationError
from fedmedlora.federation.flower import combine_shares, create_shares

KEY_BYTES = 32
#: A share's number (4 bytes, little-endian), and one of 16 bytes for each of a padded key's blocks.
SHARE_BYTES = 4 + 16 * 3
_NONCE_BYTES = 12


def new_key() -> bytes:
    """A random private key or seed."""
    return secrets.token_bytes(KEY_BYTES)


def public_half(private: bytes) -> bytes:
    """The public half of an X25519 private key, 32 bytes both."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed_key(private: bytes, public: bytes, about: Mapping[str, Any]) -> bytes:
    """The key that two sites have in common, for one purpose.

    Args:
        private: of one of them.
        public: of the other.
        about: the purpose, the same at both: what a key is for decides what it is.

    Raises:
        FederationError: the public key is none.
    """
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except ValueError as error:  # of another length, or a point of small order
        raise FederationError("a site's public key cannot be used") from error
    return derived_key(shared, about)


def derived_key(secret: bytes, about: Mapping[str, Any]) -> bytes:
    """A key for one purpose out of a secret."""
    info = b"fedmedlora secure aggregation 1\n" + canonical(about)
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(secret)


def seal(key: bytes, plain: bytes, about: Mapping[str, Any]) -> bytes:
    """Encrypt and authenticate; ``about`` is authenticated with it and does not travel."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, canonical(about))


def unseal(key: bytes, sealed: bytes, about: Mapping[str, Any]) -> bytes:
    """What ``seal`` encrypted.

    Raises:
        FederationError: it was sealed with another key, about something else, or changed.
    """
    try:
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        return AESGCM(key).decrypt(nonce, rest, canonical(about))
    except (InvalidTag, ValueError) as error:
        raise FederationError("what another site sealed cannot be opened") from error


def split(secret: bytes, *, threshold: int, shares: int) -> list[bytes]:
    """Shamir's shares of a key, numbers 1 to ``shares``; ``threshold`` of them give it back."""
    return list(create_shares(secret, threshold, shares))


def is_share(data: object, number: int) -> bool:
    """Whether this has the form of the share with a number."""
    return (
        isinstance(data, bytes)
        and len(data) == SHARE_BYTES
        and int.from_bytes(data[:4], "little") == number
    )


def join(shares: Sequence[bytes]) -> bytes:
    """The key that shares are of; some other bytes if they are too few or one is wrong.

    Raises:
        FederationError: they are of no key of this length.
    """
    try:
        secret = bytes(combine_shares(list(shares)))
    except ValueError as error:
        raise FederationError("shares of a key do not fit together") from error
    if len(secret) != KEY_BYTES:
        raise FederationError("shares of a key do not fit together")
    return secret
