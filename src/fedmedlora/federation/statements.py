"""What a message says, in few words: the statements that a site and the coordinator sign.

Enters: the content of a message. Leaves: plain values with a hash in place of every array and of
the manifest, the same at both ends. All of a reply is in it, so that nothing of it can be
exchanged: its numbers, its adapter, its site, its round, its run, and what it answers. Of a
request it is the hash of its content, whom it asks for what, and its number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fedmedlora.canonical import canonical, sha256
from fedmedlora.errors import FederationError
from fedmedlora.federation import wire
from fedmedlora.federation.audit import Head
from fedmedlora.federation.flower import RecordDict
from fedmedlora.federation.signing import is_signed, read_key, sign

Phase = Literal["introduce", "train", "score", "keys", "shares", "agree", "unmask"]
#: Keys of the config record: the end of the sender's audit log, and the signature of all the rest.
HEAD, SIGNATURE = "head", "signature"
#: Key of a request to train: marks the beginning of the run that it is of.
BEGUN = "begun"


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

    The head of the coordinator's log and the signature are not part of it.

    Args:
        content: of the request.
        arrays: its ``arrays_sha256``, if they are known already.
    """
    config = _config(content)
    for name in (HEAD, SIGNATURE):
        config.pop(name, None)
    known = arrays_sha256(content) if arrays is None else arrays
    return sha256(canonical({"arrays": known, "config": config}))


@dataclass(frozen=True)
class Question:
    """What a request says of itself, as both ends' audit logs have it.

    Attributes:
        run, round, phase: what it is part of.
        nonce: its number, used once.
        node: Flower's number of the node that it is sent to.
        site: that it is sent to; "" while that is not known.
        sha256: its ``request_sha256``.
        head: of the coordinator's log when it was sent; "" without a log.
    """

    run: str
    round: int
    phase: Phase
    nonce: str
    node: int
    site: str
    sha256: str
    head: str

    @property
    def statement(self) -> bytes:
        """What of it is signed."""
        return canonical(asdict(self))


def question_of(
    content: RecordDict, *, phase: Phase, node: int, site: str, request: str
) -> Question:
    """What a request says; of one that nobody can answer, nothing where there should be words.

    Args:
        content: may be untrusted.
        phase: what it asks for.
        node: it is sent to.
        site: it is sent to; introductions are asked of nodes whose site is not known.
        request: its ``request_sha256``.
    """
    config = content.config_records.get(wire.CONFIG, {})
    run, nonce = (
        value if isinstance(value := config.get(name), str) else "" for name in ("run", "nonce")
    )
    number, head = config.get("round", 0), Head.parse(config.get(HEAD))
    return Question(
        run=run,
        round=number if isinstance(number, int) else 0,
        phase=phase,
        nonce=nonce,
        node=node,
        site="" if phase == "introduce" else site,
        sha256=request,
        head="" if head is None else str(head),
    )


def sign_request(content: RecordDict, key: Path, question: Question) -> str:
    """Sign a request; nothing of it may change afterwards.

    Returns:
        the signature.

    Raises:
        ConfigError: the key cannot be used.
    """
    signature = sign(question.statement, read_key(key), purpose="request")
    content[wire.CONFIG][SIGNATURE] = signature
    return signature


def fault_of_request(question: Question, signature: str, public: str) -> str:
    """Why a request is not the coordinator's, as it is; "" if it is.

    Args:
        question: what it says.
        signature: that it bears; "" for none.
        public: the coordinator's key.
    """
    if not signature:
        return "it is not signed"
    if not is_signed(question.statement, signature, public, purpose="request"):
        return "its signature does not fit: another key, for another site, or changed on its way"
    return ""


def signature_of(content: RecordDict) -> str:
    """The signature that a message bears; "" for none."""
    signature = content.config_records.get(wire.CONFIG, {}).get(SIGNATURE, "")
    return signature if isinstance(signature, str) else ""


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
