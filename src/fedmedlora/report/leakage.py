"""What attacks on the adapters found, as a section: membership, planted secrets, rare words."""

from __future__ import annotations

from collections.abc import Sequence

from fedmedlora.report.blocks import (
    NONE,
    Block,
    Cell,
    Figures,
    Group,
    Row,
    Section,
    Table,
    Text,
    counted,
    interval,
    ratio,
)
from fedmedlora.report.charts import Estimate, estimate_chart
from fedmedlora.report.records import Exposed, Membership, RareWords
from fedmedlora.report.run import Run

_SCORES = {"loss": "its loss", "calibrated": "beside the untrained"}
_SEEN = {"update": "each site's update", "sum": "the sum alone, as with secure aggregation"}
_QUESTIONS = {"there": "was it there?", "whose": "whose is it?"}


def leakage_section(run: Run) -> Section | None:
    """The attacks' results with intervals; what was planted and withheld is said in any case."""
    planted = sum(site.canaries for site in run.data.sites.values())
    withheld = sum(site.withheld for site in run.data.sites.values())
    if run.leakage is None and not planted and not withheld:
        return None
    blocks: list[Block] = [Text(tuple(_words(run, planted, withheld)))]
    if run.leakage is not None:
        blocks += _membership(run.leakage.membership)
        blocks += _exposure(run.leakage.exposure)
        blocks += _rare_words(run.leakage.words)
        if run.leakage.missing:
            missing = tuple(f"Not measured: {one}." for one in run.leakage.missing)
            blocks.append(Text(missing, small=True))
    return Section(
        id="leakage",
        title="What the adapters tell of their notes",
        short="Leakage",
        blocks=tuple(blocks),
    )


def _words(run: Run, planted: int, withheld: int) -> list[str]:
    words = []
    if planted:
        words.append(
            f"This run was made for measuring: {counted(planted, 'invented secret')} were planted "
            "in its training notes, and none of its adapters is to be released."
        )
    if withheld:
        words.append(f"{counted(withheld, 'training note')} were kept from all training.")
    if run.leakage is None:
        words.append("What its adapters tell was not measured.")
    else:
        words.append(
            "Attacks on the adapters, with the run's own notes. They are lower bounds: they show "
            "that something can be found out, never that nothing can."
        )
    return words


def _membership(found: Sequence[Membership]) -> list[Block]:
    if not found:
        return []
    groups = []
    for method in dict.fromkeys(one.method for one in found):
        rows = tuple(
            Row(
                one.site,
                (
                    Cell(one.against.replace("-", " "), number=False),
                    Cell(_SCORES.get(one.score, one.score), number=False),
                    Cell(f"{one.members} / {one.others} {one.unit}s", number=False),
                    Cell(ratio(one.auc)),
                    Cell(interval(one.low, one.high)),
                    Cell(NONE if one.tpr is None else ratio(one.tpr)),
                    Cell(interval(one.tpr_low, one.tpr_high) or NONE),
                ),
            )
            for one in found
            if one.method == method
        )
        groups.append(Group(method, rows))
    main = [one for one in found if one.score == "loss"]
    chart = estimate_chart(
        "Membership by loss",
        [Estimate(f"{one.method}, {one.site}", one.auc, one.low, one.high) for one in main],
        x_label="AUC (0.5 is chance)",
    )
    return [
        Table(
            caption="Membership: chance that a training note has a lower loss than a held-out one",
            head=(
                "Site",
                "against",
                "by",
                "compared",
                "AUC",
                "95 % interval",
                "TPR at 5 % FPR",
                "95 % interval",
            ),
            groups=tuple(groups),
        ),
        Figures((chart,)),
        Text(
            (
                "0.5 is a coin. Against validation and test notes (held out) more may also mean "
                "that these are other notes; withheld ones differ by chance alone. TPR: of the "
                "training notes, the share that is found where at most one in twenty of the others "
                "is taken for one; a mean may hide the few that are exposed.",
            ),
            small=True,
        ),
    ]


def _exposure(found: Sequence[Exposed]) -> list[Block]:
    if not found:
        return []
    rows = tuple(
        Row(
            one.method,
            (
                Cell(one.kind, number=False),
                Cell(f"{one.repetitions}"),
                Cell(f"{one.canaries}"),
                Cell(ratio(one.bits)),
                Cell(interval(one.low, one.high) or NONE),
                Cell(ratio(one.most)),
            ),
        )
        for one in found
    )
    charts = [
        estimate_chart(
            f"{method}: planted secrets",
            [
                Estimate(f"{one.kind}, {one.repetitions} notes", one.bits, one.low, one.high)
                for one in found
                if one.method == method
            ],
            x_label="bits (1.44 is chance)",
        )
        for method in dict.fromkeys(one.method for one in found)
    ]
    return [
        Table(
            caption="Exposure of planted secrets",
            head=("Method", "canary", "in notes", "canaries", "bits", "95 % interval", "most"),
            groups=(Group("", rows),),
        ),
        Figures(tuple(charts)),
        Text(
            (
                f"Ranked among {found[0].candidates:,} random secrets of the same form. Beside: "
                "near an annotated span. Inside: in one, as careless annotators mark them.",
            ),
            small=True,
        ),
    ]


def _rare_words(found: Sequence[RareWords]) -> list[Block]:
    if not found:
        return []
    rows = tuple(
        Row(
            f"{one.method}, {one.site}",
            (
                Cell(_SEEN.get(one.seen, one.seen), number=False),
                Cell(_QUESTIONS.get(one.question, one.question), number=False),
                Cell(f"{one.round}"),
                Cell(f"{one.members} / {one.others}", number=False),
                Cell(ratio(one.auc)),
                Cell(interval(one.low, one.high)),
                Cell(f"{ratio(one.precision)} ({ratio(one.chance)})", number=False),
            ),
        )
        for one in found
    )
    return [
        Table(
            caption="Rare words of one site, told from one round",
            head=("Site", "seen", "asked", "round", "words", "AUC", "95 % interval",
                  "precision (by chance)"),
            groups=(Group("", rows),),
        ),
    ]  # fmt: skip
