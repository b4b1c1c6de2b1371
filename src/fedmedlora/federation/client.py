"""The ClientApp: a request in, the site's worker called, a reply out.

What goes wrong at a site stays there: the exception's text, which may hold note text, goes into a
log of the site's own; the reply carries a word for its kind and a random number to find it by.
"""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fedmedlora.durable import open_private
from fedmedlora.errors import ConfigError, Ended, FederationError, RequestError
from fedmedlora.federation import wire
from fedmedlora.federation.adapter_parts import adapter_part
from fedmedlora.federation.arrays import candidates_sha256
from fedmedlora.federation.audit import AuditLog
from fedmedlora.federation.deployment.layout import SITE_KEY
from fedmedlora.federation.ends import SiteEnd
from fedmedlora.federation.flower import ClientApp, Context, Message, MessageType, RecordDict
from fedmedlora.federation.own_rounding import OwnRounding
from fedmedlora.federation.own_rounds import begin_own, is_mark, own_folder
from fedmedlora.federation.plan import SiteWorker, Workers
from fedmedlora.federation.secure.answering import SecureSite
from fedmedlora.federation.secure.options import Terms
from fedmedlora.federation.secure.own_secrets import OwnSecrets
from fedmedlora.federation.statements import BEGUN, Phase
from fedmedlora.model.adapter import check_adapter
from fedmedlora.model.packing import is_difference

INTRODUCE = "query.introduce"
#: Of secure aggregation, beside training: each a kind of query.
SMALL_STAGES: tuple[Phase, ...] = ("keys", "shares", "agree", "unmask")
#: Flower's type of the messages of each phase.
MESSAGE_TYPES: dict[Phase, str] = {
    "introduce": INTRODUCE,
    "train": MessageType.TRAIN,
    "score": MessageType.EVALUATE,
    **{stage: f"{MessageType.QUERY}.{stage}" for stage in SMALL_STAGES},
}
PHASES: dict[str, Phase] = {kind: phase for phase, kind in MESSAGE_TYPES.items()}

#: Word for the kind of a failure, by the name of the exception's class or of a base of it; the
#: first that fits. Names, because torch's classes cannot be imported here.
FAILURES: dict[str, str] = {
    "RequestError": "request",
    "OutOfMemoryError": "memory",
    "MemoryError": "memory",
    "AdapterError": "adapter",
    "BackboneError": "backbone",
    "DataError": "data",
    "SchemaError": "data",
    "ConfigError": "config",
    "PrivacyError": "privacy",
    "FederationError": "protocol",
    "OSError": "system",
    "BaseException": "error",
}

#: Workers made by a factory in this process, of the latest desk only: they may hold a backbone.
_made: dict[str, dict[str, SiteWorker]] = {}


@dataclass(frozen=True)
class Desk:
    """What a process needs to answer for the sites; small, so that it can be sent to processes.

    Attributes:
        sites: names, in the plan's order; a node of Flower's simulation is a place in it.
        workers: by name, or what makes them.
        logs: folder for the sites' own logs, or ``None`` to keep none.
        own: the federation's folder, for what sites keep for themselves; ``None`` keeps nothing.
        keys: site -> file of its private key, of those that sign what they send.
        audit: folder for the sites' audit logs, SITE.audit.jsonl; ``None`` keeps none.
        run: id of the one run that is answered; "" answers all.
        secure: terms of secure aggregation; where they are, nothing of an update leaves but masked.
        coordinator: public key that must have signed the requests; "" answers all.
        token: tells this federation's workers from another's in the same process.
    """

    sites: tuple[str, ...]
    workers: Workers
    logs: Path | None = None
    own: Path | None = None
    keys: Mapping[str, Path] = field(default_factory=dict)
    audit: Path | None = None
    run: str = ""
    secure: Terms | None = None
    coordinator: str = ""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def site(self, context: Context) -> str:
        """The site that a node speaks for: its setting "site", else its place in the plan.

        Raises:
            ConfigError: the node has neither.
        """
        config: Mapping[str, object] = context.node_config
        if SITE_KEY in config:
            return str(config[SITE_KEY])
        place = config.get("partition-id")
        if isinstance(place, int) and 0 <= place < len(self.sites):
            return self.sites[place]
        raise ConfigError('this node\'s configuration needs site="NAME", a site of the study')

    def end(self, site: str) -> SiteEnd:
        """What the site signs and logs with."""
        key, log = self.keys.get(site), None
        if self.audit is not None:
            path = self.audit / f"{site}.audit.jsonl"
            log = AuditLog(path, owner=site, role="site", key=key)
        return SiteEnd(site, key=key, log=log, coordinator=self.coordinator)

    def check_run(self, content: RecordDict) -> None:
        """Refuse a request of another federation, or of another study file.

        Raises:
            ConfigError: it is one.
        """
        run = content.config_records.get(wire.CONFIG, {}).get("run")
        if self.run and run != self.run:
            raise ConfigError(
                f"the request is of run {str(run)[:160]!r}, and this site takes part in {self.run}:"
                " another federation, or another study file"
            )

    def secure_site(self, site: str) -> SecureSite | None:
        """The site's end of secure aggregation, if there is any.

        Raises:
            ConfigError: the site has no key, or no place for its secrets.
        """
        if self.secure is None:
            return None
        if site not in self.keys or self.own is None:
            raise ConfigError(
                "secure aggregation needs a key of this site, and a folder of its own"
            )
        own = OwnSecrets(own_folder(self.own, site, "secure"))
        return SecureSite(self.secure, site, self.keys[site], own)

    def worker(self, site: str) -> SiteWorker:
        """The site's worker: given, made before in this process, or made now."""
        if isinstance(self.workers, Mapping):
            return self.workers[site]
        if self.token not in _made:
            _made.clear()
            _made[self.token] = {}
        made = _made[self.token]
        if site not in made:
            made[site] = self.workers(site)
        return made[site]


def client_app(desk: Desk) -> ClientApp:
    """The ClientApp of a federation: answers introductions, trains and scores, and takes part in
    secure aggregation."""
    app = ClientApp()
    app.query("introduce")(partial(_guarded, phase="introduce", answer=_introduce, desk=desk))
    app.train()(partial(_guarded, phase="train", answer=_train, desk=desk))
    app.evaluate()(partial(_guarded, phase="score", answer=_score, desk=desk))
    for phase in SMALL_STAGES:
        answer = partial(_secure, phase=phase)
        app.query(phase)(partial(_guarded, phase=phase, answer=answer, desk=desk))
    return app


def _introduce(content: RecordDict, desk: Desk, site: str) -> RecordDict:
    """Who this is, and how much it trains on; a site that cannot say will not be able to train."""
    call = wire.read_call(content)
    if call is None:
        raise KeyError("no introduction of this package")
    declared = None
    try:
        # Under secure aggregation a site's size is its own.
        declared = None if desk.secure is not None else desk.worker(site).declared()
    except Exception as error:  # any: see _guarded
        _log(desk.logs, site, error)
    return wire.introduction(call, site, declared)


def _train(content: RecordDict, desk: Desk, site: str) -> RecordDict:
    call, adapter = wire.read_request(content)
    check_adapter(adapter.tensors, adapter.manifest)
    begun = content[wire.CONFIG].get(BEGUN)
    if desk.own is not None and desk.coordinator and is_mark(begun):
        begin_own(desk.own, site, begun)
    masked = desk.secure_site(site)
    if masked is not None:  # first: the training may be in vain
        masked.receive(content)
    update = desk.worker(site).train(adapter, wire.read_order(content, call))
    if masked is not None:
        _, adapter = wire.read_request(content)  # as it came, whatever the worker did with it
        before = adapter_part(adapter, call.returns)
        return masked.row_reply(
            content, update, before=before, losses=lambda one: desk.worker(site).losses([one])
        )
    own = None
    if desk.own is not None and is_difference(call.wire) and call.carries:
        # What was rounded of A is not added to B.
        own = OwnRounding(own_folder(desk.own, site, "rounding") / call.returns)
    carried = None if own is None else own.recall(before=call.round)
    if is_difference(call.wire):  # as it came, whatever the worker did with it
        _, adapter = wire.read_request(content)
    before = adapter_part(adapter, call.returns)
    reply, left = wire.update_reply(call, site, update, before=before, carried=carried)
    if own is not None and left is not None:
        own.keep(left, round=call.round)
    return reply


def _secure(content: RecordDict, desk: Desk, site: str, *, phase: Phase) -> RecordDict:
    masked = desk.secure_site(site)
    if masked is None:
        raise FederationError("this site takes no part in secure aggregation")
    return masked.answer(content, phase)


def _score(content: RecordDict, desk: Desk, site: str) -> RecordDict:
    if desk.secure is not None:
        raise FederationError("under secure aggregation a site scores its own adapter alone")
    call, candidates = wire.read_scoring_request(content)
    for candidate in candidates:
        check_adapter(candidate.tensors, candidate.manifest)
    losses = desk.worker(site).losses(candidates)
    return wire.losses_reply(call, site, losses, candidates=candidates_sha256(content))


def _guarded(
    message: Message,
    context: Context,
    *,
    phase: Phase,
    answer: Callable[[RecordDict, Desk, str], RecordDict],
    desk: Desk,
) -> Message:
    """Answer a request; whatever the worker raises becomes a failure reply without its text.

    Nothing that the site's audit log does not have leaves, but a failure to write that log.
    """
    site, request = "?", ""
    try:
        site = desk.site(context)
        end = desk.end(site)
        asked = end.receive(message.content, phase, node=message.metadata.dst_node_id)
        request = asked.sha256
        # Before anything of it is read.
        if asked.fault:
            raise RequestError(f"the request is not the coordinator's: {asked.fault}")
        desk.check_run(message.content)
        content = answer(message.content, desk, site)
        end.seal(content, phase=phase, request=request)
    except (KeyboardInterrupt, Ended):
        raise
    except BaseException as error:  # any: Flower would send the text of one that passes here
        content = _failure(message.content, desk, site, error)
        if request:
            try:
                desk.end(site).seal(content, phase=phase, request=request)
            except Exception as another:
                content = _failure(message.content, desk, site, another)
    return Message(content, reply_to=message)


def _failure(request: RecordDict, desk: Desk, site: str, error: BaseException) -> RecordDict:
    incident = _log(desk.logs, site, error)
    kinds = [kind.__name__ for kind in type(error).__mro__]
    code = next(word for name, word in FAILURES.items() if name in kinds)
    return wire.failure_reply(wire.read_call(request), site, code=code, incident=incident)


def _log(folder: Path | None, site: str, error: BaseException) -> str:
    """Write an exception into the site's log.

    Returns:
        the incident's number in it, or "not-logged".
    """
    if folder is None:
        return "not-logged"
    incident = uuid.uuid4().hex[:12]
    try:
        told = f"--- {incident} {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n"
        told += "".join(traceback.format_exception(error))
        with open_private(folder / f"{site}.log") as file:
            file.write(told.encode(errors="backslashreplace"))
    except Exception:  # a full disk must not replace the failure that is being told
        return "not-logged"
    return incident
