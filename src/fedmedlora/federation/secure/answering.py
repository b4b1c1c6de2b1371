"""A site's end of secure aggregation: requests in, replies out, its state in files between them.

What is written down comes first: a step that was taken and whose reply got lost is not taken again,
and of two processes that are asked for a step at once, one takes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedmedlora.aggregation.weights import unnormalised_weight
from fedmedlora.errors import FederationError
from fedmedlora.federation import wire
from fedmedlora.federation.flower import RecordDict
from fedmedlora.federation.plan import SiteLosses, SiteUpdate
from fedmedlora.federation.secure import messages
from fedmedlora.federation.secure import site as steps
from fedmedlora.federation.secure.options import Terms
from fedmedlora.federation.secure.own_secrets import OwnSecrets
from fedmedlora.federation.signing import read_key
from fedmedlora.federation.statements import Phase
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.packing import pack


@dataclass(frozen=True)
class SecureSite:
    """One site.

    Attributes:
        terms: that the site itself holds; no request changes them.
        site: its name.
        key: file of its long-term key.
        own: its files.
    """

    terms: Terms
    site: str
    key: Path
    own: OwnSecrets

    def answer(self, content: RecordDict, phase: Phase) -> RecordDict:
        """Answer a request of one of the small stages.

        Raises:
            FederationError: it is not to be answered: out of order, a second time, or of what the
                other sites have not signed.
            RunError: the state cannot be kept.
        """
        answers: dict[Phase, Callable[[RecordDict], RecordDict]] = {
            "keys": self._keys,
            "shares": self._shares,
            "agree": self._agree,
            "unmask": self._unmask,
        }
        with self.own.one_step():
            return answers[phase](content)

    def _keys(self, content: RecordDict) -> RecordDict:
        attempt = messages.attempt_of(content)
        ledger = self.own.ledger()
        ledger.begin(attempt)
        state, made = steps.advertise(self.terms, attempt, self.site, read_key(self.key))
        self.own.keep_ledger(ledger)
        self.own.keep(state)
        reply = messages.reply(attempt, self.site)
        messages.put_keys(reply, made, bound=ledger.bound(attempt))
        return reply

    def _shares(self, content: RecordDict) -> RecordDict:
        attempt = messages.attempt_of(content)
        state = self.own.recall(self.terms, attempt)
        entries = messages.read_entries(content)
        state, parcels = steps.share(self.terms, state, self.site, entries)
        self.own.keep(state)
        reply = messages.reply(attempt, self.site)
        messages.put_parcels(reply, parcels)
        return reply

    def receive(self, content: RecordDict) -> None:
        """Take what the others have sealed, out of a request to train; before the training.

        Raises:
            FederationError, RunError: as of ``answer``.
        """
        attempt = messages.attempt_of(content)
        self._check_order(content, attempt.round)
        parcels, asked = messages.read_parcels(content), messages.asked_sha256(content)
        with self.own.one_step():
            state = self.own.recall(self.terms, attempt)
            self.own.keep(steps.receive(state, self.site, parcels, asked=asked))

    def _check_order(self, content: RecordDict, number: int) -> None:
        """Refuse what the method does not ask of a site: a frozen update would hide no other."""
        config, method = wire.settings(content), self.terms.rules
        trains, returns = method.trains(number), method.returns(number)
        wanted = {"trains": trains, "returns": returns, "wire": "fp32"}
        for name, value in wanted.items():
            if config.get(name) != value:
                raise FederationError(
                    f"{self.terms.method} has {name} {value!r} in round {number}, and this site "
                    "was asked for something else"
                )
        completes = method.sends != "AB"
        if bool(config.get("initial")) != completes or wire.RESIDUAL in config:
            raise FederationError(f"{self.terms.method} makes no such request to train")

    def row_reply(
        self,
        content: RecordDict,
        update: SiteUpdate,
        *,
        before: Adapter,
        losses: Callable[[Adapter], SiteLosses],
    ) -> RecordDict:
        """The masked row of what the site trained, and nothing else.

        Args:
            content: of the request to train.
            update: what came of it.
            before: the part of the adapter it got that it sends back.
            losses: scores the trained adapter on the site's validation notes, if need be.

        Raises:
            FederationError: the update or its weight is no number; else as of ``answer``.
            AdapterError: the adapter breaks its own manifest.
        """
        attempt = messages.attempt_of(content)
        loss = self._loss(losses, update.adapter) if self.terms.rules.scored else None
        weight = unnormalised_weight(
            getattr(update, self.terms.size),
            loss,
            beta=self.terms.beta,
            tau=self.terms.tau,
            reference=self.terms.reference_loss,
        )
        difference = pack(update.adapter, "fp32")
        difference -= pack(before, "fp32")
        ring = self.terms.ring
        clipped = ring.clip(difference, weight)
        row = ring.encode(clipped)
        with self.own.one_step():
            state = self.own.recall(self.terms, attempt)
            ledger = self.own.ledger()
            ledger.note(
                attempt,
                weight=clipped.weight,
                norm=clipped.norm,
                loss=loss,
                norm_cut=clipped.norm > ring.largest_norm,
                weight_cut=clipped.raw_weight > ring.largest_weight,
            )
            self.own.keep_ledger(ledger)
            self.own.keep(steps.mask(state, self.site, row))
        reply = messages.reply(attempt, self.site)
        messages.put_row(reply, row)
        return reply

    @staticmethod
    def _loss(losses: Callable[[Adapter], SiteLosses], adapter: Adapter) -> float:
        [loss] = losses(adapter).losses
        if not math.isfinite(loss):
            raise FederationError("the loss of this site's own adapter is not finite")
        return float(loss)

    def _agree(self, content: RecordDict) -> RecordDict:
        attempt = messages.attempt_of(content)
        state = self.own.recall(self.terms, attempt)
        survivors = messages.read_survivors(content)
        self.own.ledger().check_bound(attempt, survivors)
        state, signature = steps.agree(state, self.site, survivors, read_key(self.key))
        self.own.keep(state)
        reply = messages.reply(attempt, self.site)
        messages.put_agreed(reply, signature)
        return reply

    def _unmask(self, content: RecordDict) -> RecordDict:
        attempt = messages.attempt_of(content)
        state = self.own.recall(self.terms, attempt)
        state, revealed = steps.unmask(state, messages.read_signatures(content))
        ledger = self.own.ledger()
        ledger.check_bound(attempt, tuple(revealed.seeds))
        ledger.unmask(attempt, tuple(revealed.seeds))
        self.own.keep_ledger(ledger)
        self.own.keep(state)
        reply = messages.reply(attempt, self.site)
        messages.put_revealed(reply, revealed)
        return reply
