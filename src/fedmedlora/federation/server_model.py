"""What the server keeps and sends: the global adapter in the parts and ranks that sites ask for.

Enters: the state after a round, candidates and weights. Leaves: each site's request, the next state
and the adapter that the federation stands for. The arithmetic is ``aggregation``'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedmedlora.aggregation.columns import Columns
from fedmedlora.aggregation.methods import METHODS, Layout, Method, Replies, ServerState, State
from fedmedlora.federation import wire
from fedmedlora.federation.adapter_parts import (
    adapter_part,
    factor_pairs,
    joined,
    manifest_at_rank,
    manifest_part,
    residual_adapter,
    scale_of,
    truncated,
)
from fedmedlora.federation.flower import ArrayRecord, RecordDict
from fedmedlora.federation.plan import FederationPlan
from fedmedlora.model.adapter import Adapter, Manifest
from fedmedlora.model.packing import form_of, is_difference, pack, unpack


class Sized(Protocol):
    """What says how much a site trained on."""

    @property
    def examples(self) -> int: ...

    @property
    def tokens(self) -> int: ...


class ServerModel:
    """The global adapter of a plan's method, from round to round.

    Attributes:
        state: after the last complete round.

    Args:
        plan: with the method and the sites' ranks.
        initial: what round 1 broadcasts.
        state: to go on from.

    Raises:
        AdapterError: a factor of ``initial`` lacks its partner.
    """

    def __init__(self, plan: FederationPlan, initial: Adapter, state: ServerState) -> None:
        self.state = state
        self._plan = plan
        self._initial = initial
        self._method: Method = METHODS[plan.method]
        self._ranks = {site: (rank, alpha) for site, rank, alpha in plan.ranks}
        self._sent: dict[str, Adapter] = {}

    @property
    def manifest(self) -> Manifest:
        """Of the trainable global adapter."""
        return self._initial.manifest

    @property
    def trainable(self) -> Adapter:
        """The global adapter that sites go on training, without a residual."""
        return Adapter(self.manifest, dict(self.state.factors))

    @property
    def adapter(self) -> Adapter:
        """The adapter that the federation stands for: its residual is joined to it."""
        residual = self._residual()
        return self.trainable if residual is None else joined(self.trainable, residual)

    def _residual(self) -> Adapter | None:
        if not self.state.residual:
            return None
        return residual_adapter(self.state.residual, self.manifest)

    def site_manifest(self, site: str) -> Manifest:
        """Of the adapter that a site trains: the global one's, at the site's own rank."""
        if site not in self._ranks:
            return self.manifest
        rank, alpha = self._ranks[site]
        return manifest_at_rank(self.manifest, rank=rank, alpha=alpha)

    def call(self, site: str, number: int) -> wire.Call:
        """What a round's messages to and from a site carry."""
        manifest, method = self.site_manifest(site), self._method
        returns = method.returns(number)
        sent, back = (manifest_part(manifest, part).to_json() for part in (method.sends, returns))
        return wire.Call(
            run=self._plan.run_id,
            round=number,
            manifest=sent,
            wire=self._plan.wire,
            reply="" if back == sent else back,
            trains=method.trains(number),
            returns=returns,
            initial="" if method.sends == "AB" else self._initial.sha256,
            carries=not method.recuts,
        )

    def requests(self, calls: Mapping[str, wire.Call]) -> Iterator[tuple[str, RecordDict]]:
        """A request to train for every site, made when it is due; one manifest has one array."""
        residual = self._residual()
        form = form_of(self._plan.wire)
        self._sent.clear()

        @cache
        def arrays(manifest: str) -> ArrayRecord:
            wanted = Manifest.from_json(manifest)
            packed = pack(adapter_part(self._whole(wanted), self._method.sends), form)
            if is_difference(self._plan.wire):
                self._sent[manifest] = unpack(packed, wanted, form)  # as the sites get it
            return wire.adapter_arrays(packed)

        for site, call in calls.items():
            yield site, wire.request(call, arrays(call.manifest), residual=residual)

    def scoring_request(
        self, call: wire.Call, packed: Sequence[NDArray[Any]]
    ) -> tuple[wire.Call, RecordDict]:
        """A request to score the replies to a call of the latest requests, and its own call."""
        scoring = wire.Call(call.run, call.round, call.reply_manifest, call.wire, nonce=call.nonce)
        return scoring, wire.scoring_request(scoring, packed, before=self.before(call))

    def before(self, call: wire.Call) -> Adapter | None:
        """What the replies to a call of the latest requests are differences to, if they are."""
        sent = self._sent.get(call.manifest)
        return None if sent is None else adapter_part(sent, call.returns)

    def weigh(self, sizes: Sequence[Sized], losses: Sequence[float]) -> list[float]:
        """The sites' weights p_k.

        Args:
            sizes: of the sites, in the plan's order.
            losses: L_k, if the method scores.
        """
        numbers = [float(getattr(one, self._plan.size)) for one in sizes]
        plan = self._plan
        weights = self._method.weigh(numbers, losses, beta=plan.beta, tau=plan.tau)
        return [float(weight) for weight in weights]

    def _whole(self, wanted: Manifest) -> Adapter:
        """The trainable adapter at a site's rank."""
        if (wanted.rank, wanted.alpha) == (self.manifest.rank, self.manifest.alpha):
            return self.trainable
        own = manifest_at_rank(self.manifest, rank=wanted.rank, alpha=wanted.alpha)
        return truncated(self.trainable, own)

    def sent(self, call: wire.Call) -> NDArray[Any]:
        """What a call sent of what its replies return, packed as it was; until ``combine``."""
        whole = self._whole(Manifest.from_json(call.manifest))
        return pack(adapter_part(whole, call.returns), form_of(self._plan.wire))

    def step_since(self, before: State, call: wire.Call) -> NDArray[np.float32] | None:
        """How the adapter differs from earlier factors in what a call's replies return, flat.

        ``None`` for replies of another rank than the global adapter's.
        """
        shapes = Manifest.from_json(call.reply_manifest).tensors
        now = self.state.factors
        if any(now[name].shape != shape for name, shape in shapes):
            return None
        return np.concatenate([(now[name] - before[name]).reshape(-1) for name, _ in shapes])

    def step_by(self, mean: NDArray[np.float32], call: wire.Call) -> None:
        """Take the next state from the weighted mean of the updates, where no reply is known.

        Args:
            mean: (m,), of what the call's replies would return, as differences to what was sent.
            call: of the round.
        """
        manifest = Manifest.from_json(call.reply_manifest)
        form = form_of(self._plan.wire)
        average = unpack(self.sent(call), manifest, form)
        flat = pack(average, "fp32") + mean
        self.combine([unpack(flat, manifest, "fp32")], [self._plan.sites[0]], [1.0], call.round)

    def combine(
        self,
        adapters: Iterable[Adapter],
        sites: Iterable[str],
        weights: Sequence[float],
        number: int,
        *,
        columns: Columns | None = None,
    ) -> None:
        """Take the next state from the sites' replies; see ``aggregation.methods``.

        Args:
            adapters: the replies, in the plan's order; may be lazy.
            sites: whose they are.
            weights: p_k, as ``aggregation.robust.robust_weights`` has left them.
            number: of the round.
            columns: the adapters again; for rules that need all of them at once.
        """
        pairs = () if self._method.sends != "AB" else factor_pairs(self.manifest)
        layout = Layout(
            pairs=pairs,
            rank=self.manifest.rank,
            scale=scale_of(self.manifest),
            round=number,
            server=self._plan.server,
            robust=self._plan.robust,
            refactor_every=self._plan.refactor_every or 1,
        )
        returned = adapter_part(self.trainable, self._method.returns(number))
        states: Iterable[State] = (adapter.tensors for adapter in adapters)
        if self._plan.robust.rule == "clip":  # the rest of cut updates is what was sent
            states = chain(states, [returned.tensors])
            weights = [*weights, max(0.0, 1 - math.fsum(weights))]
        replies = Replies(
            states=states,
            weights=weights,
            scales=[scale_of(self.site_manifest(site)) for site in sites],
            columns=columns,
            shapes=returned.manifest.tensors,
        )
        after = self._method.combine(self.state, replies, layout)
        order = [name for name, _ in self.manifest.tensors]
        self.state = replace(after, factors={name: after.factors[name] for name in order})
