"""What a message says, in few words: the statement that a site signs, and the hash of a request.

Enters: the content of a message. Leaves: plain values with a hash in place of every array and of
the manifest, the same at both ends. All of a reply is in it, so that nothing of it can be
exchanged: its numbers, its adapter, its site, its round, its run, and what it answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedmedlora.canonical import canonical, sha256
from fedmedlora.errors import FederationError
from fedmedlora.federation import wire
from fedmedlora.federation.flower import RecordDict
from fedmedlora.federation.signing import is_signed, read_key, sign

Phase = Literal["introduce", "train", "score", "keys", "shares", "agree", "unmask"]
#: Keys of the config record: the end of the sender's audit log, and the signature of all the rest.
HEAD, SIGNATURE = "head", "signature"


@dataclass(frozen=True)
class Proof:
    """A reply's statement and its signature.

    Attributes:
        statement: canonical JSON.
        signature: hexadecimal; "" if it is not signed.
    """

    statement: bytes
    signature: str

    @property
    def sha256(self) -> str:
        """Of the statement: what both ends' audit logs know a reply by."""
        return sha256(self.statement)

    @property
    def said(self) -> dict[str, Any]:
        """The statement, read."""
        said: dict[str, Any] = json.loads(self.statement)
        return said


def request_sha256(content: RecordDict, arrays: Mapping[str, str] | None = None) -> str:
    """SHA-256 (hex) of what a request asks; the same for every node that is asked the same.

    The head of the coordinator's log is not part of it.

    Args:
        content: of the request.
        arrays: its ``arrays_sha256``, if they are known already.
    """
    config = _config(content)
    config.pop(HEAD, None)
    known = arrays_sha256(content) if arrays is None else arrays
    return sha256(canonical({"arrays": known, "config": config}))


def proof_of(content: RecordDict, *, phase: Phase, request: str) -> Proof:
    """The statement that a reply makes, with the signature that it bears.

    Args:
        content: may be untrusted.
        phase: what was asked for.
        request: ``request_sha256`` of what it answers.

    Raises:
        FederationError: the reply holds what no statement can.
    """
    try:
        config = _config(content)
        signature = config.pop(SIGNATURE, "")
        statement = {
            "phase": phase,
            "request": request,
            "config": config,
            "arrays": arrays_sha256(content),
            "numbers": {name: dict(record) for name, record in content.metric_records.items()},
        }
        return Proof(canonical(statement), signature if isinstance(signature, str) else "")
    except (TypeError, ValueError, AttributeError) as error:
        raise FederationError("it holds what cannot be put into a statement") from error


def sign_reply(content: RecordDict, key: Path, *, phase: Phase, request: str) -> Proof:
    """Sign a reply; nothing of it may change afterwards.

    Returns:
        what it says, signed.

    Raises:
        ConfigError: the key cannot be used.
    """
    proof = proof_of(content, phase=phase, request=request)
    signature = sign(proof.statement, read_key(key), purpose="reply")
    content[wire.CONFIG][SIGNATURE] = signature
    return Proof(proof.statement, signature)


def check_signed(proof: Proof, public: str) -> None:
    """Refuse a reply that its site did not sign as it is.

    Raises:
        FederationError: it is not signed, not with the key that ``public`` belongs to, was changed,
            or answers something else.
    """
    if not proof.signature:
        raise FederationError("it is not signed")
    if not is_signed(proof.statement, proof.signature, public, purpose="reply"):
        raise FederationError(
            "its signature does not fit: another key, another request, or changed on its way"
        )


def arrays_sha256(content: RecordDict) -> dict[str, str]:
    """record/array -> SHA-256 (hex) of its data, which has numpy's header with type and shape."""
    return {name: sha256(array.data) for name, array in _arrays(content)}


def data_bytes(content: RecordDict) -> int:
    """How much a message holds, in bytes: its arrays' data, and all the rest as JSON.

    The same at both ends; what travels has Flower's framing (some hundred bytes) around it.
    """
    records = {**content.config_records, **content.metric_records}
    rest = {name: dict(record) for name, record in records.items()}
    return sum(len(array.data) for _, array in _arrays(content)) + len(canonical(rest))


def _arrays(content: RecordDict) -> Iterator[tuple[str, Any]]:
    for name, record in sorted(content.array_records.items()):
        for key, array in sorted(record.items()):
            yield f"{name}/{key}", array


def _config(content: RecordDict) -> dict[str, Any]:
    """The config record, with the manifest's hash in place of the manifest."""
    config = dict(content.config_records.get(wire.CONFIG, {}))
    for name, value in config.items():
        if name in ("manifest", "reply", wire.RESIDUAL) and isinstance(value, str) and value:
            config[name] = f"sha256 {sha256(value.encode())}"
    return config
