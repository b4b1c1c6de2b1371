"""A site that trains the token-classifier baseline: rows and a tagger in, trained states out.

The whole encoder and its classifier travel, embeddings excepted, in the form of an adapter, so the
same rounds, screening, averages and checkpoints serve it.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedmedlora.federation.own_optimiser import OwnOptimiser
from fedmedlora.federation.plan import Declared, Order, SiteLosses, SiteUpdate
from fedmedlora.federation.site import OnSiteStep
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.tagger import Tagger, load_state, state_of
from fedmedlora.model.tagger_training import TaggerSettings, mean_tagging_loss, train_tagger
from fedmedlora.model.tagging import TagRow
from fedmedlora.seeds import derive_seed


class TaggerSite:
    """A site of a federation of taggers; implements ``federation.plan.SiteWorker``.

    Args:
        name: the site's.
        tagger: where it trains; shared with other sites of the process.
        train: its training rows.
        validation: its validation rows; may be empty if it never scores.
        settings: of one round.
        seed: the study's; the site's and round's are derived.
        on_step: told after every step.
        optimiser: where it is kept from round to round; begun anew in each without.
    """

    def __init__(
        self,
        name: str,
        tagger: Tagger,
        *,
        train: Sequence[TagRow],
        validation: Sequence[TagRow] = (),
        settings: TaggerSettings,
        seed: int,
        on_step: OnSiteStep | None = None,
        optimiser: OwnOptimiser | None = None,
    ) -> None:
        self.name = name
        self._tagger, self._train, self._validation = tagger, train, validation
        self._settings, self._seed, self._on_step = settings, seed, on_step
        self._optimiser = optimiser

    def declared(self) -> Declared:
        """Its rows, each once: what every round reports."""
        tokens, validation = (
            sum(row.targets for row in rows) for rows in (self._train, self._validation)
        )
        return Declared(len(self._train), tokens, validation)

    def train(self, adapter: Adapter, order: Order) -> SiteUpdate:
        """Train a copy of the global state for one round."""
        load_state(self._tagger, adapter)

        def step(number: int, steps: int, loss: float | None) -> None:
            if self._on_step is not None:
                self._on_step(self.name, order.round, number, steps, loss)

        kept = self._optimiser.recall(before=order.round) if self._optimiser else {}
        outcome = train_tagger(
            self._tagger,
            self._train,
            settings=self._settings.in_round(order.round),
            seed=derive_seed(self._seed, "training", self.name, order.round),
            optimiser=kept,
            on_step=step,
        )
        if self._optimiser is not None:
            self._optimiser.keep(outcome.optimiser, round=order.round)
        return SiteUpdate(
            adapter=state_of(self._tagger),
            examples=len(self._train),
            tokens=outcome.tokens,
            loss_first=outcome.loss_first,
            loss_last=outcome.loss_last,
            seconds=outcome.seconds,
            counts={"steps": outcome.steps},
        )

    def losses(self, adapters: Sequence[Adapter]) -> SiteLosses:
        """Mean loss a token of each state on the site's validation rows."""
        losses = []
        tokens = 0
        for adapter in adapters:
            load_state(self._tagger, adapter)
            loss, tokens = mean_tagging_loss(self._tagger, self._validation)
            losses.append(loss)
        return SiteLosses(losses, tokens)
