"""The two ends of an exchange: what each of them signs, checks and writes into its audit log.

Enters: contents of messages. Leaves: the same, with the head of the sender's log and a signature
where there is a key; and entries of the logs. Without keys and logs nothing is added.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedmedlora.federation import wire
from fedmedlora.federation.audit import AuditLog, Head
from fedmedlora.federation.flower import ConfigRecord, RecordDict
from fedmedlora.federation.plan import FederationPlan
from fedmedlora.federation.statements import (
    BEGUN,
    HEAD,
    Phase,
    Proof,
    Question,
    arrays_sha256,
    check_signed,
    data_bytes,
    fault_of_request,
    proof_of,
    question_of,
    request_sha256,
    sign_reply,
    sign_request,
    signature_of,
)


@dataclass(frozen=True)
class Asked:
    """A request as a site took it in.

    Attributes:
        sha256: its hash; see ``statements.request_sha256``.
        fault: why it is not the coordinator's; "" if it is, or that is not known.
    """

    sha256: str
    fault: str


class SiteEnd:
    """A site's end.

    Args:
        site: its name.
        key: file of its private key, if it has one.
        log: its audit log, if it keeps one.
        coordinator: the coordinator's public key; "" takes requests that are not signed.
    """

    def __init__(
        self,
        site: str,
        *,
        key: Path | None = None,
        log: AuditLog | None = None,
        coordinator: str = "",
    ) -> None:
        self._site, self._key, self._log, self._coordinator = site, key, log, coordinator

    def receive(self, content: RecordDict, phase: Phase, *, node: int) -> Asked:
        """Take a request in.

        Args:
            content: of the request.
            phase: what it asks for.
            node: that it was sent to.

        Raises:
            RunError: it cannot be logged.
        """
        arrays = arrays_sha256(content)
        question = question_of(
            content,
            phase=phase,
            node=node,
            site=self._site,
            request=request_sha256(content, arrays),
        )
        signature, fault = signature_of(content), ""
        if self._coordinator:
            fault = fault_of_request(question, signature, self._coordinator)
        if self._log is not None:
            fate = {"status": "refused", "reason": fault} if fault else {}
            size = data_bytes(content)
            self._log.append("received", **_entry(question, signature, arrays), bytes=size, **fate)
        return Asked(question.sha256, fault)

    def seal(self, content: RecordDict, *, phase: Phase, request: str) -> None:
        """Make a reply ready to leave; nothing of it may change afterwards.

        Raises:
            RunError: it cannot be logged: it must not leave.
            ConfigError: the key cannot be used.
        """
        if self._log is not None:
            content[wire.CONFIG][HEAD] = str(self._log.head())
        if self._key is not None:
            proof = sign_reply(content, self._key, phase=phase, request=request)
        elif self._log is not None:
            proof = proof_of(content, phase=phase, request=request)
        if self._log is not None:
            self._log.append(
                "sent",
                **_call(content[wire.CONFIG], phase),
                bytes=data_bytes(content),
                sha256=proof.sha256,
                said=json.loads(proof.statement),
                signature=proof.signature,
            )


def _entry(question: Question, signature: str, arrays: Mapping[str, str]) -> dict[str, Any]:
    """A request in a log, with all that its signature is of."""
    return {**asdict(question), "arrays": dict(arrays), "signature": signature}


def _call(config: Any, phase: Phase) -> dict[str, Any]:
    run, number = config.get("run", ""), config.get("round", 0)
    return {
        "run": run if isinstance(run, str) else "",
        "round": number if isinstance(number, int) else 0,
        "phase": phase,
    }


class CoordinatorEnd:
    """The coordinator's end.

    Args:
        plan: with the sites' public keys, if they have some.
        log: the coordinator's audit log, if it keeps one.
        key: file of its private key, which signs requests, if it has one.
        begun: marks this beginning of the run; "" says nothing of it.
    """

    def __init__(
        self,
        plan: FederationPlan,
        log: AuditLog | None = None,
        *,
        key: Path | None = None,
        begun: str = "",
    ) -> None:
        self._run, self._log, self._key, self._begun = plan.run_id, log, key, begun
        self.keys = dict(plan.public_keys)
        self._asked: dict[tuple[Phase, str], str] = {}
        self._heard: dict[tuple[Phase, str], dict[str, Any]] = {}

    def introduction(self) -> RecordDict:
        """A request to say which site one is, to be addressed; never the same again."""
        config = {"run": self._run, "round": 0, "nonce": secrets.token_hex(16)}
        return RecordDict({wire.CONFIG: ConfigRecord(config)})

    def address(self, content: RecordDict, *, phase: Phase, node: int, site: str) -> RecordDict:
        """A request ready to be sent: signed and logged; the others of its round are left alone.

        Args:
            content: of the request.
            phase: what it asks for.
            node: that it goes to.
            site: that it goes to; "" if that is not known.

        Raises:
            RunError: it cannot be logged.
            ConfigError: the key cannot be used.
        """
        own = ConfigRecord(dict(content[wire.CONFIG]))
        addressed = RecordDict({**content, wire.CONFIG: own})
        if phase == "train" and self._begun:
            own[BEGUN] = self._begun
        if self._log is not None:
            own[HEAD] = str(self._log.head())
        arrays = arrays_sha256(addressed)
        digest = request_sha256(addressed, arrays)
        self._asked[phase, site] = digest
        self._heard.pop((phase, site), None)
        question = question_of(addressed, phase=phase, node=node, site=site, request=digest)
        signature = "" if self._key is None else sign_request(addressed, self._key, question)
        if self._log is not None:
            size = data_bytes(addressed)
            self._log.append("sent", **_entry(question, signature, arrays), bytes=size)
        return addressed

    def check(
        self, content: RecordDict, site: str, *, phase: Phase, request: str | None = None
    ) -> Proof:
        """Look whether an untrusted reply is the site's own, as it is, to what it was asked.

        Args:
            request: hash of what was asked; by default of the latest request to the site.

        Returns:
            what it says; signed, if the plan has the site's key.

        Raises:
            FederationError: it is not.
        """
        asked = self._asked.get((phase, site), "") if request is None else request
        proof = proof_of(content, phase=phase, request=asked)
        head = Head.parse(content.config_records.get(wire.CONFIG, {}).get(HEAD))
        self._heard[phase, site] = {
            "bytes": data_bytes(content),
            "sha256": proof.sha256,
            "head": "" if head is None else str(head),
        }
        if site in self.keys:
            check_signed(proof, self.keys[site])
        return proof

    def record(
        self, site: str, *, phase: Phase, round: int, status: str, reason: str | None, **more: Any
    ) -> None:
        """Log what became of a site's reply, if one came: what could not be read, too.

        Args:
            site: whose it is; "" if that is not known.
            phase, round: of the request.
            status: of the reply; a site that is absent has sent none.
            reason: why it is not ok.
            more: for the entry.

        Raises:
            RunError: it cannot be logged.
        """
        heard = self._heard.pop((phase, site), None)
        if self._log is None or (heard is None and status not in ("failed", "refused")):
            return
        told = {"site": site, "run": self._run, "phase": phase, "round": round, **more}
        self._log.append("received", **told, **(heard or {}), status=status, reason=reason)

    def record_late(self, site: str, *, phase: Phase, round: int) -> None:
        """Log that a reply came after its round's deadline; errors as of ``record``."""
        if self._log is not None:
            reason = "it came after the deadline of its round"
            told = {"site": site, "run": self._run, "phase": phase, "round": round}
            self._log.append("received", **told, status="refused", reason=reason)
