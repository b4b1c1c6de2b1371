"""Exposure: the losses of planted secrets ranked among those of random ones of the same form.

Enters: a bench and an arm of a run with canaries. Leaves: bits, for each kind of canary and number
of repetitions. The attacker knows the sentence, its mark-up and the form of the secret, and asks
by the sentence alone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from fedmedlora.evaluation.intervals import Bootstrap
from fedmedlora.evaluation.leakage import exposure, mean_with_interval
from fedmedlora.leakage.bench import LeakageBench
from fedmedlora.leakage.records import Exposed
from fedmedlora.model.adapter import Adapter
from fedmedlora.seeds import derive_seed
from fedmedlora.study.arms import Arm
from fedmedlora.study.data import SiteData
from fedmedlora.tasks.canaries import Canary, draw_secrets, sentence_of

#: Random secrets that each canary is ranked among: with it, 1,024, or 10 bits.
CANDIDATES = 1023


def measure_exposure(bench: LeakageBench, arm: Arm, *, bootstrap: Bootstrap) -> list[Exposed]:
    """An arm's exposures; nothing where no canary was planted."""
    bits: dict[tuple[str, int], list[float]] = defaultdict(list)
    for canary, value in _exposures(bench, arm):
        bits[canary.kind, canary.repetitions].append(value)
    records = []
    for (kind, repetitions), values in sorted(bits.items()):
        bits_on_average, interval = mean_with_interval(values, bootstrap)
        records.append(
            Exposed(
                method=arm.label,
                kind=kind,
                repetitions=repetitions,
                canaries=len(values),
                candidates=CANDIDATES,
                bits=bits_on_average,
                low=None if interval is None else interval.low,
                high=None if interval is None else interval.high,
                most=max(values),
            )
        )
    return records


@dataclass(frozen=True)
class _Form:
    """Canaries that are asked for alike: of one form, by one adapter, among the same prompts."""

    site: SiteData
    adapter: Adapter
    canaries: list[Canary]


def _exposures(bench: LeakageBench, arm: Arm) -> list[tuple[Canary, float]]:
    """Each canary of an arm's sites with its exposure."""
    known = [one.secret for site in bench.data.sites for one in site.canaries]
    candidates = draw_secrets(
        CANDIDATES, seed=derive_seed(bench.study.seed, "candidates"), without=known
    )
    found = []
    for form in _forms(bench, arm):
        kind, type_name = form.canaries[0].kind, form.canaries[0].type
        secrets = [*(canary.secret for canary in form.canaries), *candidates]
        sentences = [sentence_of(secret, kind=kind, type=type_name) for secret in secrets]
        # What a modifiers' answer says of a secret is a copy; that of entities says what it is.
        tasks = [task for task in form.site.tasks if task == "entities"] or None
        losses = bench.losses(arm, form.adapter, form.site, sentences, tasks=tasks).losses
        others = losses[len(form.canaries) :]
        found += [
            (canary, exposure(float(losses[place]), others))
            for place, canary in enumerate(form.canaries)
        ]
    return found


def _forms(bench: LeakageBench, arm: Arm) -> list[_Form]:
    forms: dict[tuple[object, ...], _Form] = {}
    for site in bench.sites(arm):
        adapter = bench.adapter(arm, site.name)
        for canary in site.canaries:
            key = (adapter.sha256, site.covers, site.tasks, canary.kind, canary.type)
            forms.setdefault(key, _Form(site, adapter, [])).canaries.append(canary)
    return list(forms.values())
