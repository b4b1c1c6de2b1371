"""What attacks on the adapters found, as a section: membership, planted secrets, rare words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fedmedlora.report.blocks import (
    NONE,
    Block,
    Cell,
    Choice,
    Figures,
    Group,
    Row,
    Section,
    Table,
    Text,
    counted,
    interval,
    one_choice,
    ratio,
)
from fedmedlora.report.charts import Estimate, estimate_chart
from fedmedlora.report.records import Exposed, Leakage, Membership, RareWords
from fedmedlora.report.run import Run

#: Name of the reader's choice of an adapter.
_CHOICE = "adapter"
_SCORES = {"loss": "its loss", "calibrated": "beside the untrained"}
_SEEN = {"update": "each site's update", "sum": "the sum alone, as with secure aggregation"}
_QUESTIONS = {"there": "was it there?", "whose": "whose is it?"}


def leakage_section(run: Run) -> Section | None:
    """The attacks' results with intervals; what was planted and withheld is said in any case."""
    planted = sum(site.canaries for site in run.data.sites.values())
    withheld = sum(site.withheld for site in run.data.sites.values())
    found = run.leakage
    if found is None and not planted and not withheld:
        return None
    blocks: list[Block] = [Text(tuple(_words(run, planted, withheld)))]
    choices: tuple[Choice, ...] = ()
    if found is not None:
        methods = _methods(found)
        if len(methods) > 1:
            blocks.append(_overview(found, methods))
            choices = (one_choice(_CHOICE, "In detail", methods),)
        for method in methods:
            view = {_CHOICE: method} if choices else {}
            blocks += _membership([one for one in found.membership if one.method == method], view)
            blocks += _exposure([one for one in found.exposure if one.method == method], view)
            blocks += _rare_words([one for one in found.words if one.method == method], view)
        blocks.append(Text(tuple(_remarks(found)), small=True))
    return Section(
        id="leakage",
        title="What the adapters tell of their notes",
        short="Leakage",
        blocks=tuple(blocks),
        choices=choices,
        lead=2,
    )


def _methods(found: Leakage) -> list[str]:
    labels = [one.method for one in found.membership]
    labels += [one.method for one in found.exposure]
    return list(dict.fromkeys(labels + [one.method for one in found.words]))


def _overview(found: Leakage, methods: Sequence[str]) -> Table:
    """A row for each adapter: what each attack found, of all sites or of the worst."""
    rows = []
    for method in methods:
        members = [one for one in found.membership if one.method == method]
        everywhere = [one for one in members if one.site == "all"] or members
        secrets = [one for one in found.exposure if one.method == method]
        most = max((one.repetitions for one in secrets), default=0)
        bits = [one.bits for one in secrets if one.repetitions == most]
        words = [one for one in found.words if (one.method, one.question) == (method, "whose")]
        told = (
            _most(one.auc for one in everywhere),
            _most(one.tpr for one in everywhere if one.tpr is not None),
            _most(bits),
            *(_most(one.auc for one in words if one.seen == seen) for seen in _SEEN),
        )
        rows.append(Row(method, tuple(Cell(ratio(value)) for value in told)))
    return Table(
        caption="The most that each attack found (all sites' notes; secrets in most notes; any "
        "site's words)",
        head=("Method", "membership, AUC", "TPR at 5 % FPR", "exposure, bits",
              "rare words of an update, AUC", "of the sum"),
        groups=(Group("", tuple(rows)),),
    )  # fmt: skip


def _most(values: Iterable[float]) -> float | None:
    return max(values, default=None)


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


def _remarks(found: Leakage) -> list[str]:
    said = []
    if found.membership:
        said.append(
            "Membership: 0.5 is a coin. Against validation and test notes (held out) more may also "
            "mean that these are other notes; withheld ones differ by chance alone. TPR: of the "
            "training notes, the share that is found where at most one in twenty of the others is "
            "taken for one; a mean may hide the few that are exposed."
        )
    if found.exposure:
        said.append(
            f"Exposure: bits by which a secret stands out of {found.exposure[0].candidates:,} "
            "random ones of the same form; 1.44 is chance. Beside: near an annotated span. Inside: "
            "in one, as careless annotators mark them."
        )
    return said + [f"Not measured: {one}." for one in found.missing]


def _membership(found: Sequence[Membership], view: Mapping[str, str]) -> list[Block]:
    if not found:
        return []
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
    )
    chart = estimate_chart(
        f"{found[0].method}: membership by loss",
        [Estimate(one.site, one.auc, one.low, one.high) for one in found if one.score == "loss"],
        x_label="AUC (0.5 is chance)",
    )
    return [
        Table(
            caption=f"{found[0].method}: chance that a training note has a lower loss than another",
            head=("Site", "against", "by", "compared", "AUC", "95 % interval", "TPR at 5 % FPR",
                  "95 % interval"),
            groups=(Group("", rows),),
            view=view,
        ),
        Figures((chart,), view=view),
    ]  # fmt: skip


def _exposure(found: Sequence[Exposed], view: Mapping[str, str]) -> list[Block]:
    if not found:
        return []
    rows = tuple(
        Row(
            f"{one.kind}, in {counted(one.repetitions, 'note')}",
            (
                Cell(f"{one.canaries}"),
                Cell(ratio(one.bits)),
                Cell(interval(one.low, one.high) or NONE),
                Cell(ratio(one.most)),
            ),
        )
        for one in found
    )
    chart = estimate_chart(
        f"{found[0].method}: planted secrets",
        [
            Estimate(f"{one.kind}, {counted(one.repetitions, 'note')}", one.bits, one.low, one.high)
            for one in found
        ],
        x_label="bits (1.44 is chance)",
    )
    return [
        Table(
            caption=f"{found[0].method}: exposure of planted secrets",
            head=("Planted", "secrets", "bits", "95 % interval", "most"),
            groups=(Group("", rows),),
            view=view,
        ),
        Figures((chart,), view=view),
    ]


def _rare_words(found: Sequence[RareWords], view: Mapping[str, str]) -> list[Block]:
    if not found:
        return []
    rows = tuple(
        Row(
            one.site,
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
            caption=f"{found[0].method}: rare words of one site, told from one round",
            head=("Site", "seen", "asked", "round", "words", "AUC", "95 % interval",
                  "precision (by chance)"),
            groups=(Group("", rows),),
            view=view,
        ),
    ]  # fmt: skip
