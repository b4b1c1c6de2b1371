"""How a federation stands: a coordinator's folder in, tables for a person out.

Read from what the run leaves on disk, so it needs no SuperLink and disturbs nobody.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmedlora.errors import RunError
from fedmedlora.evaluation.tables import Table
from fedmedlora.federation.checkpoints import read_record, round_name
from fedmedlora.federation.deployment.journal import is_at_work, read_journal
from fedmedlora.federation.deployment.layout import CoordinatorFolder, refuse_other_folders
from fedmedlora.federation.deployment.membership import Membership
from fedmedlora.federation.records import RoundRecord, SiteRecord
from fedmedlora.study.admitting import admitted_sites
from fedmedlora.study.shared import read_shared


@dataclass(frozen=True)
class Standing:
    """How a federation stands.

    Attributes:
        state: not started, starting, connecting, training, scoring, interrupted, done or failed.
        sentences: for a person, in order.
        tables: the sites now, with the beginning of their keys' fingerprint; the complete rounds.
    """

    state: str
    sentences: tuple[str, ...]
    tables: tuple[Table, ...]


def standing(root: Path, *, now: float | None = None) -> Standing:
    """How the federation of a coordinator's folder stands.

    Args:
        root: the folder.
        now: seconds since the epoch, for tests.

    Raises:
        RunError: a record cannot be read.
        ConfigError: the folder is no coordinator's.
    """
    folder = CoordinatorFolder(root)
    refuse_other_folders(folder)
    shared = read_shared(folder.study)
    members = admitted_sites(folder, tuple(shared.study.sites))
    sites, rounds = tuple(shared.study.sites), shared.arm.study.federation.rounds
    place = folder.run / "federation" / shared.arm.label
    records = _records(place, rounds)
    journal = read_journal(folder.run) or {}
    state = _state(journal, folder)
    clock = time.time() if now is None else now
    sentences = [f"{shared.study.name}, {shared.arm.label}: {len(records)} of {rounds} rounds done"]
    sentences += _unknown(sites, members)
    sentences += _now(state, journal, sites, clock=clock)
    sentences += _troubles(state, journal)
    sentences += _left(state, journal, records, rounds, clock=clock)
    keys = {site: made.fingerprint[:9] for site, made in members.items()}
    tables = [_site_table(sites, records, journal, state, keys=keys)]
    if records:
        tables.append(_round_table(records))
    return Standing(state, tuple(sentences), tuple(tables))


def _records(place: Path, rounds: int) -> list[RoundRecord]:
    found: list[RoundRecord] = []
    for number in range(1, rounds + 1):
        folder = place / round_name(number)
        if not folder.is_dir():
            break
        try:
            found.append(read_record(folder))
        except RunError as error:
            raise RunError(
                f"{error}; `federation start` goes on from the round before it"
            ) from error
    return found


def _state(journal: Mapping[str, Any], folder: CoordinatorFolder) -> str:
    state = str(journal.get("state", "not started"))
    if state in ("done", "failed", "not started") or is_at_work(folder.run):
        return state
    return "starting" if is_at_work(folder.state) else "interrupted"


def _unknown(sites: Sequence[str], members: Mapping[str, Membership]) -> list[str]:
    missing = [site for site in sites if site not in members]
    return [f"no key is admitted yet of {', '.join(missing)}"] if missing else []


def _now(
    state: str, journal: Mapping[str, Any], sites: Sequence[str], *, clock: float
) -> list[str]:
    if state in ("training", "scoring"):
        answered = journal.get("answered", {})
        missing = [site for site in sites if site not in answered]
        told = f"round {journal.get('round')}, {state} for {_long(clock - journal['since'])}: "
        return [told + f"{len(answered)} answered, not yet: {', '.join(missing) or 'none'}"]
    if state == "connecting":
        missing = [site for site in sites if site not in journal.get("joined", ())]
        told = ", ".join(missing) or "the first round"
        return [f"waiting for {told}, for {_long(clock - journal['since'])}"]
    if state == "failed":
        return [f"failed: {journal.get('reason')}; `fedmedlora federation start` goes on"]
    if state == "interrupted":
        return ["interrupted; `fedmedlora federation start` goes on"]
    return [state]


def _troubles(state: str, journal: Mapping[str, Any]) -> list[str]:
    """Who was turned away since this start, and why; what was damaged."""
    if state in ("done", "not started"):
        return []
    told = [
        f"{site or 'a node that named no site'} was turned away: {reason}"
        for site, reason in journal.get("refused", {}).items()
    ]
    damaged = journal.get("set_aside", ())
    if damaged:
        told.append(f"damaged, set aside and made again: {', '.join(damaged)}")
    unlogged = journal.get("log_gap", ())
    if unlogged:
        told.append(
            "complete, and not in the audit log, which was moved away, lost or cut: rounds "
            f"{', '.join(map(str, unlogged))}"
        )
    return told


def _left(
    state: str,
    journal: Mapping[str, Any],
    records: Sequence[RoundRecord],
    rounds: int,
    *,
    clock: float,
) -> list[str]:
    """How long still, from the median of the rounds so far."""
    if state not in ("training", "scoring") or not records:
        return []
    usual = statistics.median(record.seconds for record in records)
    begun = clock - float(journal.get("round_since", clock))
    left = max(usual - begun, 0.0) + usual * (rounds - len(records) - 1)
    return [f"about {_long(left)} left, at {_long(usual)} a round"]


def _site_table(
    sites: Sequence[str],
    records: Sequence[RoundRecord],
    journal: Mapping[str, Any],
    state: str,
    *,
    keys: Mapping[str, str],
) -> Table:
    rows = []
    for site in sites:
        last = records[-1].sites[site] if records else None
        key = keys.get(site, "not admitted")
        rows.append((site, key, _doing(site, journal, state), *_facts(last)))
    headers = (
        "site", "key", "now", "last round", "examples", "weight", "loss", "validation loss",
        "MB up", "seconds",
    )  # fmt: skip
    return Table("Sites", headers, tuple(rows), left=4)


def _doing(site: str, journal: Mapping[str, Any], state: str) -> str:
    if state in ("training", "scoring"):
        return "answered" if site in journal.get("answered", {}) else "at work or not there"
    if state == "connecting":
        return "there" if site in journal.get("joined", ()) else "not there"
    return "–"


def _facts(record: SiteRecord | None) -> tuple[str, ...]:
    if record is None:
        return ("–",) * 7
    status = record.status if record.reason is None else f"{record.status}: {record.reason}"
    return (
        status,
        str(record.examples),
        _loss(record.weight),
        _loss(record.loss_last),
        _loss(record.validation_loss),
        f"{record.bytes_up / 1e6:.3f}",
        f"{record.seconds:.0f}",
    )


def _round_table(records: Sequence[RoundRecord]) -> Table:
    rows = []
    for record in records:
        good = [site for site in record.sites.values() if site.status == "ok"]
        losses = [site.loss_last for site in good if site.loss_last is not None]
        absent = [name for name, site in record.sites.items() if site.status != "ok"]
        rows.append(
            (
                str(record.round),
                ", ".join(absent) or "none",
                str(len(good)),
                _loss(statistics.fmean(losses) if losses else None),
                f"{record.seconds:.0f}",
                (record.adapter_sha256 or "")[:12],
            )
        )
    headers = ("round", "without", "sites", "mean loss", "seconds", "adapter")
    return Table("Complete rounds", headers, tuple(rows), left=2)


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _long(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
