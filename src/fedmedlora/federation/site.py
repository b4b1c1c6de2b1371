"""A real site: notes as rows and a backbone in, trained adapters and losses out.

This is where the federation meets torch; the rest of ``federation`` knows a site only as a
``SiteWorker``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from fedmedlora.errors import AdapterError, ConfigError, PrivacyError
from fedmedlora.federation.adapter_parts import adapter_part, completed
from fedmedlora.federation.first_rounds import FirstRounds, key_of
from fedmedlora.federation.own_factors import OwnFactors
from fedmedlora.federation.own_optimiser import OwnOptimiser
from fedmedlora.federation.plan import Declared, Order, SiteLosses, SiteUpdate
from fedmedlora.federation.private_rounds import PrivateRounds
from fedmedlora.model.adapter import Adapter, Manifest
from fedmedlora.model.backbone import Backbone
from fedmedlora.model.candidates import candidate_losses
from fedmedlora.model.encoding import Row
from fedmedlora.model.lora import adapter_of, load_adapter, manifest_of, new_adapter_model
from fedmedlora.model.private_training import NoiseSettings, train_privately
from fedmedlora.model.trainable import refuse_dropout
from fedmedlora.model.training import TrainingOutcome, TrainingSettings, train_adapter
from fedmedlora.seeds import derive_seed

if TYPE_CHECKING:
    from peft import PeftModel

#: (site, round, step, steps, loss)
OnSiteStep = Callable[[str, int, int, int, float | None], None]


@dataclass(frozen=True)
class Workbench:
    """One backbone with one adapter in it, that sites of one process take turns to use.

    Attributes:
        backbone: frozen.
        model: the backbone with the adapter; its adapter is overwritten by every use.
        manifest: what every adapter on this bench must be.
        initial: the adapter that round 1 broadcasts: A random, B zero.
    """

    backbone: Backbone
    model: PeftModel
    manifest: Manifest
    initial: Adapter


def set_up_workbench(
    backbone: Backbone,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: tuple[str, ...],
    scheme: str,
    seed: int,
) -> Workbench:
    """Put a new adapter into a backbone.

    Args:
        backbone: is changed: PEFT wraps its layers in place.
        rank, alpha, dropout, targets: LoRA's.
        scheme: fingerprint of the annotation scheme.
        seed: of A.
    """
    model = new_adapter_model(
        backbone.model,
        rank=rank,
        alpha=alpha,
        dropout=dropout,
        targets=targets,
        seed=derive_seed(seed, "adapter"),
    )
    manifest = manifest_of(
        model,
        backbone=backbone.fingerprint,
        tokenizer=backbone.tokenizer_fingerprint,
        scheme=scheme,
    )
    return Workbench(backbone, model, manifest, adapter_of(model, manifest))


class AdapterSite:
    """A site of a federation; implements ``federation.plan.SiteWorker``.

    Attributes:
        name: the site's.
        settings: of its training.

    Args:
        name: the site's.
        bench: where it trains; shared with other sites of the process.
        train: its training rows.
        validation: its validation rows; may be empty if it never scores.
        settings: of one round.
        seed: the study's; the site's and round's are derived.
        on_step: told after every step.
        first_rounds: where methods that begin alike share their first round.
        own: where factors are kept that the site trains and does not send, if there are such.
        optimiser: where it is kept from round to round; begun anew in each without.
        private: trains with noise, as the site's ledger lets it.

    Raises:
        ConfigError: it is to train with noise, and the model has dropout.
    """

    def __init__(
        self,
        name: str,
        bench: Workbench,
        *,
        train: Sequence[Row],
        validation: Sequence[Row],
        settings: TrainingSettings,
        seed: int,
        on_step: OnSiteStep | None = None,
        first_rounds: FirstRounds | None = None,
        own: OwnFactors | None = None,
        optimiser: OwnOptimiser | None = None,
        private: PrivateRounds | None = None,
    ) -> None:
        self.name = name
        self._bench, self._train, self._validation = bench, train, validation
        self.settings, self._seed, self._on_step = settings, seed, on_step
        self._first_rounds = first_rounds
        self._own = own
        self._optimiser = optimiser
        self._private = private
        if private is not None:
            refuse_dropout(bench.model)

    def prepare(self) -> None:
        """Refuse what cannot be trained privately, before anything is; see ``PrivateRounds``."""
        if self._private is not None:
            self._private.prepare(self.settings)

    def declared(self) -> Declared:
        """Its rows, each once: what every round reports; of a private site, which scores nothing,
        its units."""
        if self._private is not None:
            return Declared(self._private.count, self._private.count)
        validation = sum(row.targets for row in self._validation)
        return Declared(len(self._train), sum(row.targets for row in self._train), validation)

    def train(self, adapter: Adapter, order: Order) -> SiteUpdate:
        """Train a copy of ``adapter`` for one round.

        Raises:
            AdapterError: it is for another backbone, tokenizer or scheme; or the site cannot
                complete what it got with what the others started from.
            ConfigError: it is to keep factors, and has no place to.
            PrivacyError: its budget would be overspent.
        """
        whole = self._completed(adapter, order)
        update = self._train_or_recall(whole, order)
        if self._own is not None and order.returns != order.trains:
            self._own.keep(update.adapter, order)
        return replace(update, adapter=adapter_part(update.adapter, order.returns))

    def _completed(self, adapter: Adapter, order: Order) -> Adapter:
        self._check(adapter)
        if not order.initial:
            return adapter
        if self._bench.initial.sha256 != order.initial:
            raise AdapterError(
                "this site's initial adapter is not the federation's: the seed, the backbone or "
                "the adapter section differs"
            )
        rest = self._bench.initial
        if order.returns != order.trains:
            if self._own is None:
                raise ConfigError(f"site {self.name!r} has no place for the factors that it keeps")
            rest = self._own.recall(rest, before=order.round)
        return completed(adapter, rest)

    def _check(self, adapter: Adapter) -> None:
        """Refuse an adapter for another backbone than the one here, tokenizer or scheme."""
        for name in ("backbone", "tokenizer", "scheme"):
            theirs, ours = getattr(adapter.manifest, name), getattr(self._bench.manifest, name)
            if theirs != ours:
                raise AdapterError(
                    f"the federation's {name} is {theirs[:12]}, and this site's {ours[:12]} "
                    "(SHA-256): it must be the same everywhere"
                )

    def _train_or_recall(self, adapter: Adapter, order: Order) -> SiteUpdate:
        seed = derive_seed(self._seed, "training", self.name, order.round)
        if self._private is not None:

            def trainer(noise: NoiseSettings, units: Sequence[int]) -> SiteUpdate:
                train = partial(train_privately, noise=noise, units=units)
                return self._train_anew(adapter, order, seed, train)

            return self._private.train(adapter, order, settings=self.settings, trainer=trainer)
        if self._first_rounds is None or order.round > 1:
            return self._train_anew(adapter, order, seed)
        key = key_of(adapter, self._train, settings=self.settings, seed=seed, trains=order.trains)
        update = self._first_rounds.recall(key, adapter)
        if update is None:
            update = self._train_anew(adapter, order, seed)
            self._first_rounds.keep(key, update)
        elif self._on_step is not None:  # who shows progress counts the round as made
            steps = int(update.counts["steps"])
            self._on_step(self.name, order.round, steps, steps, update.loss_last)
        return update

    def _train_anew(
        self,
        adapter: Adapter,
        order: Order,
        seed: int,
        train: Callable[..., TrainingOutcome] | None = None,
    ) -> SiteUpdate:
        load_adapter(self._bench.model, adapter, residual=order.residual)

        def step(number: int, steps: int, loss: float | None) -> None:
            if self._on_step is not None:
                self._on_step(self.name, order.round, number, steps, loss)

        kept = self._optimiser.recall(before=order.round) if self._optimiser else {}
        train = train or partial(train_adapter, tokenizer=self._bench.backbone.tokenizer)
        outcome = train(
            self._bench.model,
            self._train,
            settings=self.settings.in_round(order.round),
            seed=seed,
            trains=order.trains,
            optimiser=kept,
            on_step=step,
        )
        if self._optimiser is not None:
            self._optimiser.keep({**kept, **outcome.optimiser}, round=order.round)
        return SiteUpdate(
            adapter=adapter_of(self._bench.model, adapter.manifest),
            examples=len(self._train),
            tokens=outcome.tokens,
            loss_first=outcome.loss_first,
            loss_last=outcome.loss_last,
            seconds=outcome.seconds,
            counts={"steps": outcome.steps},
        )

    def losses(self, adapters: Sequence[Adapter]) -> SiteLosses:
        """Mean loss of each adapter on the site's validation rows.

        Raises:
            AdapterError: one is for another backbone, tokenizer or scheme.
            PrivacyError: the site trains privately: losses would leave without noise.
        """
        if self._private is not None:
            raise PrivacyError(f"site {self.name} trains privately, and its losses have no noise")
        for adapter in adapters:
            self._check(adapter)
        losses, tokens = candidate_losses(
            self._bench.model, adapters, self._validation, objective=self.settings.objective
        )
        return SiteLosses(losses, tokens)
