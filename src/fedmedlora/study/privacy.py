"""What a study promises of privacy, for each site of an arm: settings and rows in, terms out.

Enters: an arm and a site's rows. Leaves: the site's private rounds; or a refusal before anything is
trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedmedlora.aggregation.methods import METHODS
from fedmedlora.canonical import canonical, sha256
from fedmedlora.config import Study
from fedmedlora.config_privacy import PER_ROW
from fedmedlora.errors import ConfigError
from fedmedlora.federation.own_rounds import own_folder
from fedmedlora.federation.private_rounds import (
    PrivacyTerms,
    PrivateRounds,
    account_of,
    run_id_of,
)
from fedmedlora.privacy.accounting import Unit
from fedmedlora.privacy.ledger import Budget, open_ledger
from fedmedlora.study.arms import Arm
from fedmedlora.study.benches import Rows, questions_about
from fedmedlora.study.data import POOLED, SiteData, StudyData, asked_of
from fedmedlora.study.task_settings import task_settings

#: Against whom: what the number assumes that others see.
ADVERSARY = (
    "sees every adapter that the site sends, in every round, as the coordinator does, and knows "
    "all other units"
)

#: What differs between the notes that nobody can tell apart. Not a unit more or less: how many
#: there are is told, and decides on rate, steps and noise ("zero-out": Kairouz et al., arXiv
#: 2103.00039).
NEIGHBOURS = "one unit emptied; how many units a site has is public"

#: Methods that show training notes to whoever asks, or that are not trained by DP-SGD.
_NOT_PRIVATE = {
    "few-shot": "its prompts are training notes",
    "api": "it shows notes to a service",
    "dictionary": "it keeps the mentions of training notes as they are",
    "bert": "only LoRA adapters are trained with noise",
    "bert-single-site": "only LoRA adapters are trained with noise",
    "bert-centralised": "only LoRA adapters are trained with noise",
    "local-adaptation": "it would train on the site's notes once more",
}


#: Of a site's section, what decides which examples its notes become.
_OWN = {"annotates", "strip", "tasks"}
#: Which trainings an epsilon is about, of sites' ledgers.
_ALL = "all that the sites' ledgers hold"
_ALL_PRIVATE = (
    "what was trained with noise, by the sites' ledgers; other rows were trained on the same notes "
    "without noise, and nothing bounds what these tell"
)


def is_private(arm: Arm) -> bool:
    """Whether an arm is trained with noise."""
    return arm.study.privacy.epsilon is not None and arm.kind != "untrained"


def check_privacy(arms: Sequence[Arm], data: StudyData) -> None:
    """Refuse what a study cannot promise, before anything is trained.

    Raises:
        ConfigError: a method or dropout makes no sense with privacy, a note has no group where the
            unit is the patient, or delta or batch do not fit a site's number of notes or patients.
    """
    for arm in arms:
        study = arm.study
        if study.privacy.epsilon is None:
            continue
        reason = _NOT_PRIVATE.get("local-adaptation" if arm.kind == "new-site" else arm.method)
        off = "leave it out, or give it `set: {privacy.epsilon: null}`"
        if reason is not None:
            raise ConfigError(f"privacy.epsilon: {arm.label} cannot be private: {reason}; {off}")
        if study.adapter.dropout > 0:
            raise ConfigError(
                f"adapter.dropout: {arm.label} cannot be private with dropout: its masks are drawn "
                f"for a whole batch, so that one note would change the others'; set 0, or {off}"
            )
        if METHODS[arm.federated_method].scored and study.federation.validation == "sites":
            raise ConfigError(
                f"privacy.epsilon: {arm.label} sends losses on the sites' validation notes, "
                f"without noise; set federation.validation: server, or {off}"
            )
        if arm.kind == "centralised" and study.privacy.ledger != PER_ROW:
            raise ConfigError(
                f"privacy.ledger: the pooled notes of {arm.label} belong to no site's ledger; "
                f"{off}, or privacy.ledger: {PER_ROW}"
            )
        if study.partition is not None and study.privacy.ledger != PER_ROW:
            raise ConfigError(
                f"privacy.ledger: the sites of a partition have notes of others, whose ledgers "
                f"would not know of them; {off}, or privacy.ledger: {PER_ROW}"
            )
        if is_private(arm):
            _check_units(arm, data)


def _check_units(arm: Arm, data: StudyData) -> None:
    """What is known of a site's units before its notes are cut into examples."""
    study, privacy = arm.study, arm.study.privacy
    sites = data.sites if arm.site is None else (data.site(arm.site),)
    if privacy.unit == "patient":
        _refuse_no_groups(sites)
    for site in sites:
        if arm.kind != "centralised":
            terms_of(study, site.name).check(site=site.name, units=_most_units(site, study, data))


def _refuse_no_groups(sites: Sequence[SiteData]) -> None:
    found = []
    for site in sites:
        without = sum(document.group is None for document in site.train)
        if without:
            found.append(f"{without} of the {len(site.train)} training notes of {site.name}")
    if found:
        raise ConfigError(
            f"privacy.unit is patient, and {', '.join(found)} have no group; give every note the "
            "group of its patient (docs/formats.md says how), or take unit: note"
        )


def _most_units(site: SiteData, study: Study, data: StudyData) -> int:
    """How many units a site has, if no example is too long for the model."""
    if study.privacy.unit == "note":
        return len(site.train)
    if study.privacy.unit == "patient":
        return len({document.group for document in site.train})
    shown, covers = asked_of(site, data.sites, absent=study.absent)
    scheme, settings = study.make_scheme(), task_settings(study)
    asked = questions_about(
        shown.train, covers=covers, scheme=scheme, settings=settings, tasks=site.tasks
    )
    return max(1, len(asked))


def terms_of(study: Study, site: str) -> PrivacyTerms:
    """The privacy section as a site takes it; its epsilon is given."""
    privacy = study.privacy
    assert privacy.epsilon is not None
    assert privacy.delta is not None
    return PrivacyTerms(
        budget=Budget(privacy.epsilon, privacy.delta, privacy.accountant),
        unit=privacy.unit,
        max_grad_norm=privacy.max_grad_norm,
        batch=privacy.batch or study.training.batch,
        unit_rows=privacy.unit_rows,
        noise=privacy.noise_multiplier,
        of=_made_by(study, site) if privacy.unit == "example" else "",
    )


def _made_by(study: Study, site: str) -> str:
    """Hash of what decides which examples the notes of a site become."""
    own = study.sites.get(site)
    told = {
        "task": study.task.model_dump(mode="json"),
        "scheme": study.make_scheme().fingerprint,
        "absent": study.absent,
        "max_tokens": study.training.max_tokens,
        "site": None if own is None else own.model_dump(mode="json", include=_OWN),
    }
    return sha256(canonical(told))[:16]


def private_rounds(arm: Arm, site: str, rows: Rows, *, run: Path) -> PrivateRounds | None:
    """A site's private rounds; None if the arm has none.

    Args:
        arm: whose.
        site: its name.
        rows: with their sources.
        run: the run folder.

    Raises:
        ConfigError: a row has no group, or delta or batch do not fit.
    """
    if not is_private(arm):
        return None
    study, federation = arm.study, run / "federation" / arm.label
    return PrivateRounds(
        site,
        terms_of(study, site),
        units=_units(rows, study.privacy.unit, site=site),
        rounds=study.federation.rounds,
        ledger=ledger_of(arm, site, run=run),
        own=own_folder(federation, site, "private"),
    )


def ledger_of(arm: Arm, site: str, *, run: Path) -> Path:
    """Where a site's ledger is: in the folder that the study names, or in the row's own."""
    place = arm.study.privacy.ledger
    assert place is not None
    own = run / "federation" / arm.label / "ledgers"
    return (own if place == PER_ROW else Path(arm.study.root) / place) / f"{site}.jsonl"


def _units(rows: Rows, unit: Unit, *, site: str) -> list[str]:
    """Of each row, the name of its unit."""
    if unit == "example":
        return [str(place) for place in range(len(rows.train))]
    if unit == "note":
        return [note for note, _ in rows.sources]
    groups = [group for _, group in rows.sources if group is not None]
    if len(groups) < len(rows.sources):
        raise ConfigError(f"privacy.unit is patient, and notes of {site} have no group")
    return groups


def private_sites(arm: Arm) -> tuple[str, ...]:
    """The names under which the notes of an arm have ledgers."""
    if arm.kind == "centralised":
        return (POOLED,)
    return arm.study.site_names if arm.site is None else (arm.site,)


def privacy_note(arm: Arm, run: Path) -> dict[str, Any]:
    """What done.json says of a private arm: the number, and all that it means nothing without.

    It is what the sites' ledgers say now: a site whose replies came late, or were refused, has
    spent as well. Its epsilon is that of the site that has spent most; None if a site has no
    ledger that knows of this run.

    Args:
        arm: private, and trained.
        run: the run folder.

    Raises:
        RunError: a ledger cannot be used, or was edited.
    """
    privacy = arm.study.privacy
    sites = {site: _account(arm, site, run) for site in private_sites(arm)}
    known = [told["epsilon"] for told in sites.values() if told]
    bare = any(told.get("unprotected") for told in sites.values())
    covers = _ALL_PRIVATE if bare else _ALL
    return {
        "epsilon": max(known) if len(known) == len(sites) else None,
        "budget": privacy.epsilon,
        "delta": privacy.delta,
        "unit": privacy.unit,
        "neighbours": NEIGHBOURS,
        "sampling": "Poisson",
        "accountant": privacy.accountant,
        "max_grad_norm": privacy.max_grad_norm,
        "adversary": ADVERSARY,
        "covers": PER_ROW if privacy.ledger == PER_ROW else covers,
        "sites": sites,
    }


def _account(arm: Arm, site: str, run: Path) -> dict[str, float]:
    """What a site's ledger says of a run; empty if it does not know of it."""
    path, terms = ledger_of(arm, site, run=run), terms_of(arm.study, site)
    marked = run_id_of(own_folder(run / "federation" / arm.label, site, "private"))
    if marked is None or not path.exists():
        return {}
    with open_ledger(path, site=site, unit=terms.unit, of=terms.of) as ledger:
        plan = ledger.plan_of(marked)
        return {} if plan is None else account_of(ledger, plan, terms.budget)
