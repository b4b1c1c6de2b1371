"""Rare words: which words of one site's notes can be told from what the server saw of one round.

Enters: a bench and a federated arm. Leaves: AUC and precision for each site, by the sites' updates
and by their sum alone. The attacker asks an adapter about one word at a time: a site that trained
on a name has learnt to mark it, sooner than sites that never saw it. The server can compare the
sites' updates; who sees the sum can only compare the adapter after it with the one before.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import AdapterError, RunError
from fedmedlora.evaluation.intervals import Bootstrap
from fedmedlora.evaluation.leakage import attack_auc, precision_at
from fedmedlora.leakage.bench import LeakageBench
from fedmedlora.leakage.records import Question, RareWords, Seen
from fedmedlora.model.adapter import Adapter
from fedmedlora.schema import Document, Entity
from fedmedlora.seeds import derive_seed
from fedmedlora.study.arms import Arm
from fedmedlora.study.data import SiteData

#: The first update is of a site's own work alone; later ones start from what all have learnt.
ROUND = 1
#: Words of each group that are asked about, drawn by the seed.
MOST_WORDS = 100
_WORD = re.compile(r"[^\W\d_]{3,}")

#: Of the global adapter; no site can be called so.
_BEFORE, _AFTER = "", " "

Scores = NDArray[np.float64]


def measure_words(
    bench: LeakageBench, arm: Arm, *, bootstrap: Bootstrap
) -> tuple[list[RareWords], list[str]]:
    """An arm's AUCs; and what could not be measured, one sentence each."""
    sites = bench.sites(arm)
    if "entities" not in bench.study.task.tasks or len(sites) < 2:
        return [], [f"{arm.label}: rare words: needs the task entities, and two sites"]
    try:
        seen = bench.seen(arm, ROUND)
    except (RunError, AdapterError) as error:
        return [], [f"{arm.label}: rare words: {error}"]
    missing = []
    if not seen.replies:
        missing.append(
            f"{arm.label}: rare words in single updates: no reply was kept "
            "(federation.keep_replies), or all were masked"
        )
    own, never = rare_words(bench)
    words = [*(word for site in sites for word in own[site.name]), *never]
    place = {word: number for number, word in enumerate(words)}
    adapters = {_BEFORE: seen.before, _AFTER: seen.after, **seen.replies}
    asked: dict[frozenset[str], dict[str, Scores]] = {}
    found = []
    for site in sites:
        if not own[site.name]:
            missing.append(f"{arm.label}: rare words: {site.name} has none of its own")
            continue
        if site.covers not in asked:
            asked[site.covers] = {
                name: _readiness(bench, arm, adapter, site, words)
                for name, adapter in adapters.items()
            }
        marked = asked[site.covers]
        scores: dict[Seen, Scores] = {"sum": marked[_AFTER] - marked[_BEFORE]}
        others = [marked[name] for name in seen.replies if name != site.name]
        if site.name in seen.replies and others:
            scores["update"] = marked[site.name] - np.mean(others, axis=0)
        rivals: dict[Question, list[str]] = {
            "there": never,
            "whose": [word for other in sites if other is not site for word in own[other.name]],
        }
        members = [place[word] for word in own[site.name]]
        for kind, values in scores.items():
            for question, group in rivals.items():
                if group:
                    rest = [place[word] for word in group]
                    found.append(
                        _record(arm, site, kind, question, values[members], values[rest], bootstrap)
                    )
    return found, missing


def rare_words(bench: LeakageBench) -> tuple[dict[str, list[str]], list[str]]:
    """Words in annotated main entities: of each site alone, and of no training note at all.

    The latter are of held-out notes, so that they are words of the same kind. In lower case.
    """
    mains = frozenset(bench.study.make_scheme().mains)
    data, seed = bench.data, bench.study.seed
    everything = {site.name: _words(site.train) for site in data.sites}
    own = {}
    for site in data.sites:
        elsewhere = set().union(*(w for name, w in everything.items() if name != site.name))
        own[site.name] = _some(
            _words(site.train, mains) - elsewhere, derive_seed(seed, "words", site.name)
        )
    held_out = [
        *(one for site in data.sites for one in (*site.validation, *site.withheld)),
        *(one for cohort in data.cohorts for one in cohort.documents),
    ]
    never = _words(held_out, mains) - set().union(*everything.values())
    return own, _some(never, derive_seed(seed, "words"))


def _words(documents: Sequence[Document], types: frozenset[str] | None = None) -> set[str]:
    """Words of documents, or of their entities of some types alone."""
    texts = (
        text
        for one in documents
        for text in (
            [one.text]
            if types is None
            else [one.text[e.start : e.end] for e in one.entities if e.type in types]
        )
    )
    return {word for text in texts for word in _WORD.findall(text.lower())}


def _some(words: set[str], seed: int) -> list[str]:
    ordered = sorted(words)
    random.Random(seed).shuffle(ordered)
    return sorted(ordered[:MOST_WORDS])


def _readiness(
    bench: LeakageBench, arm: Arm, adapter: Adapter, site: SiteData, words: Sequence[str]
) -> Scores:
    """How readily an adapter marks each word as something: minus the least loss of doing so."""
    types = [name for name in bench.study.make_scheme().mains if name in site.covers]
    documents = [
        Document(word, word, (Entity("T1", name, 0, len(word)),))
        for name in types
        for word in words
    ]
    losses = bench.losses(arm, adapter, site, documents, tasks=["entities"]).losses
    best: Scores = losses.reshape(len(types), len(words)).min(axis=0)
    return -best


def _record(
    arm: Arm,
    site: SiteData,
    seen: Seen,
    question: Question,
    members: Scores,
    others: Scores,
    bootstrap: Bootstrap,
) -> RareWords:
    auc = attack_auc([(members, others)], bootstrap)
    return RareWords(
        method=arm.label,
        site=site.name,
        round=ROUND,
        seen=seen,
        question=question,
        members=len(members),
        others=len(others),
        auc=auc.value,
        low=auc.low,
        high=auc.high,
        precision=precision_at(members, others, count=len(members)),
        chance=len(members) / (len(members) + len(others)),
    )
