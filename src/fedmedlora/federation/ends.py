"""The two ends of an exchange: what each of them signs, checks and writes into its audit log.

Enters: contents of messages. Leaves: the same, with the head of the sender's log and a signature
where there is a key; and entries of the logs. Without keys and logs nothing is added.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from fedmedlora.federation import wire
from fedmedlora.federation.audit import AuditLog, Head
from fedmedlora.federation.flower import ConfigRecord, RecordDict
from fedmedlora.federation.plan import FederationPlan
from fedmedlora.federation.statements import (
    HEAD,
    Phase,
    Proof,
    arrays_sha256,
    check_signed,
    data_bytes,
    proof_of,
    request_sha256,
    sign_reply,
)


class SiteEnd:
    """A site's end.

    Args:
        key: file of its private key, if it has one.
        log: its audit log, if it keeps one.
    """

    def __init__(self, *, key: Path | None = None, log: AuditLog | None = None) -> None:
        self._key, self._log = key, log

    def receive(self, content: RecordDict, phase: Phase) -> str:
        """Take a request in.

        Returns:
            its hash; see ``statements.request_sha256``.

        Raises:
            RunError: it cannot be logged.
        """
        arrays = arrays_sha256(content)
        digest = request_sha256(content, arrays)
        if self._log is not None:
            config = content.config_records.get(wire.CONFIG, {})
            head = Head.parse(config.get(HEAD))
            self._log.append(
                "received",
                **_call(config, phase),
                bytes=data_bytes(content),
                sha256=digest,
                arrays=arrays,
                head="" if head is None else str(head),
            )
        return digest

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
    """

    def __init__(self, plan: FederationPlan, log: AuditLog | None = None) -> None:
        self._run, self._log = plan.run_id, log
        self.keys = dict(plan.public_keys)
        self._asked: dict[tuple[Phase, str], str] = {}
        self._heard: dict[tuple[Phase, str], dict[str, Any]] = {}

    def introduction(self) -> RecordDict:
        """A request to say which site one is; the same for all nodes, never the same again."""
        config = {"run": self._run, "round": 0, "nonce": secrets.token_hex(16)}
        return RecordDict({wire.CONFIG: ConfigRecord(config)})

    def address(self, content: RecordDict, *, phase: Phase, site: str) -> None:
        """Make a request ready to be sent to a site.

        Raises:
            RunError: it cannot be logged.
        """
        if self._log is not None:
            content[wire.CONFIG][HEAD] = str(self._log.head())
        arrays = arrays_sha256(content)
        digest = self._asked[phase, site] = request_sha256(content, arrays)
        self._heard.pop((phase, site), None)
        if self._log is not None:
            self._log.append(
                "sent",
                site=site,
                **_call(content[wire.CONFIG], phase),
                bytes=data_bytes(content),
                sha256=digest,
                arrays=arrays,
            )

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

    def admit(self, site: str, node: int) -> None:
        """Log that a node speaks for a site."""
        self._note("joined", site, "introduce", round=0, node=node)

    def record(
        self, site: str, *, phase: Phase, round: int, status: str, reason: str | None
    ) -> None:
        """Log what became of a site's reply, if one came.

        Raises:
            RunError: it cannot be logged.
        """
        if (phase, site) in self._heard:
            self._note("received", site, phase, round=round, status=status, reason=reason)

    def record_late(self, site: str, *, phase: Phase, round: int) -> None:
        """Log that a reply came after its round's deadline; errors as of ``record``."""
        if self._log is not None:
            reason = "it came after the deadline of its round"
            told = {"site": site, "run": self._run, "phase": phase, "round": round}
            self._log.append("received", **told, status="refused", reason=reason)

    def _note(self, kind: Any, site: str, phase: Phase, **facts: Any) -> None:
        heard = self._heard.pop((phase, site), {})
        if self._log is not None:
            self._log.append(kind, site=site, run=self._run, phase=phase, **heard, **facts)
