"""What the meter found, as tables of text."""

from __future__ import annotations

from fedmedlora.evaluation.tables import Table, format_interval, format_ratio
from fedmedlora.leakage.records import Leakage

_Rows = tuple[tuple[str, ...], ...]


def leakage_tables(found: Leakage) -> list[Table]:
    """Membership, exposure and rare words; those that were measured."""
    made = (_membership(found), _exposure(found), _words(found))
    return [table for table in made if table.rows]


def _membership(found: Leakage) -> Table:
    rows: _Rows = tuple(
        (
            one.method,
            one.site,
            one.against,
            one.score,
            f"{one.members} / {one.others} {one.unit}s",
            format_ratio(one.auc),
            format_interval(one.low, one.high),
            format_ratio(one.tpr),
            format_interval(one.tpr_low, one.tpr_high),
        )
        for one in found.membership
    )
    head = ("method", "site", "against", "by", "compared", "AUC", "interval", "TPR at 5 %",
            "interval")  # fmt: skip
    title = "Membership: AUC of telling training notes, and share found at 5 % false positives"
    return Table(title, head, rows, left=5)


def _exposure(found: Leakage) -> Table:
    rows: _Rows = tuple(
        (
            one.method,
            one.kind,
            str(one.repetitions),
            str(one.canaries),
            f"{one.bits:.2f}",
            "" if one.low is None or one.high is None else f"[{one.low:.2f}, {one.high:.2f}]",
            f"{one.most:.2f}",
        )
        for one in found.exposure
    )
    head = ("method", "canary", "times", "canaries", "bits", "interval", "most")
    title = "Exposure of planted secrets, bits (1.44 is chance, 10 the most)"
    return Table(title, head, rows, left=2)


def _words(found: Leakage) -> Table:
    rows: _Rows = tuple(
        (
            one.method,
            one.site,
            one.seen,
            one.question,
            str(one.round),
            f"{one.members} / {one.others}",
            format_ratio(one.auc),
            format_interval(one.low, one.high),
            format_ratio(one.precision),
            format_ratio(one.chance),
        )
        for one in found.words
    )
    head = ("method", "site", "seen", "asked", "round", "words", "AUC", "interval",
            "precision", "by chance")  # fmt: skip
    return Table("Rare words of one site, told from one round", head, rows, left=4)
