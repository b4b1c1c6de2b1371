"""The sites' ledgers, looked at before a study trains anything: whole, theirs, and not spent.

Enters: the runs of a study. Leaves: nothing, or a refusal. No note is read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fedmedlora.config import Study
from fedmedlora.config_privacy import PER_ROW
from fedmedlora.durable import resolved
from fedmedlora.errors import ConfigError, PrivacyError
from fedmedlora.federation.own_rounds import own_folder
from fedmedlora.federation.private_rounds import run_id_of
from fedmedlora.privacy.accounting import check_left
from fedmedlora.privacy.ledger import open_ledger
from fedmedlora.study.arms import Arm, study_arms
from fedmedlora.study.privacy import is_private, ledger_of, private_sites, terms_of
from fedmedlora.study.run_folder import RunFolder


def check_ledgers(runs: Sequence[tuple[Study, Path]]) -> None:
    """Refuse what the sites' ledgers will not let through, as far as they tell it by themselves.

    That all rounds of a row fit into what is left, the row's sites see before it is trained.

    Args:
        runs: all runs of a study and their folders.

    Raises:
        ConfigError: two rows would each use up the whole budget of one ledger, a row would begin
            another one than the notes have, or there can be no ledgers where they should be.
        PrivacyError: a budget is spent, or a ledger is another site's or counts another unit.
        RunError: a ledger cannot be used, or was edited.
    """
    _refuse_second_places(runs)
    first: dict[Path, str] = {}
    for study, folder in runs:
        for arm in study_arms(study):
            if not is_private(arm) or RunFolder(folder).done(arm.label):
                continue
            for site in private_sites(arm):
                path = ledger_of(arm, site, run=folder)
                if _is_planned(arm, site, path, folder):
                    continue
                if arm.study.privacy.noise_multiplier is not None:
                    continue
                if path in first:
                    raise ConfigError(_twice(first[path], arm.label, site))
                first[path] = arm.label


def _refuse_second_places(runs: Sequence[tuple[Study, Path]]) -> None:
    """Refuse rows that would have their notes begin another budget than they have."""
    folders: dict[Path | None, str] = {}
    ledgers: set[Path] = set()
    for study, run in runs:
        for arm in study_arms(study):
            if is_private(arm):
                own = arm.study.privacy.ledger == PER_ROW
                found = {resolved(ledger_of(arm, site, run=run)) for site in private_sites(arm)}
                folders.setdefault(None if own else next(iter(found)).parent, arm.label)
                ledgers |= set() if own else found
    if len(folders) > 1:
        one, other = list(folders.values())[:2]
        raise ConfigError(
            f"privacy.ledger: {one} and {other} have ledgers in two places, and neither would know "
            "what the other spent; name one folder for the study, from / on where roots differ"
        )
    for folder in {ledger.parent for ledger in ledgers}:
        _refuse_no_folder(folder)
        known = {study_site for study, _ in runs for study_site in study.sites}
        others = [one.stem for one in sorted(folder.glob("*.jsonl")) if one.stem not in known]
        new = sorted(one.stem for one in ledgers if not one.exists())
        if others and new:
            raise ConfigError(
                f"privacy.ledger: {folder} has what {', '.join(others)} spent, and "
                f"{', '.join(new)} would begin a budget there: notes keep their site's earlier "
                "name; a site with other notes needs another folder"
            )


def _refuse_no_folder(folder: Path) -> None:
    """Refuse a place where ledgers could not be written, before a run is begun for them."""
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise ConfigError(f"privacy.ledger: {there} is no folder; name a folder for the ledgers")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"privacy.ledger: {there}: no permission to write there")


def note_unprotected(runs: Sequence[tuple[Study, Path]]) -> None:
    """Have the sites' ledgers know of rows that are about to be trained without noise.

    Args:
        runs: all runs of a study and their folders.

    Raises:
        RunError: a ledger cannot be written, or was edited.
        PrivacyError: it is another site's.
    """
    for study, folder in runs:
        for arm in study_arms(study):
            bare = not is_private(arm) and arm.method != "zero-shot" and arm.kind != "new-site"
            if not bare or arm.study.privacy.ledger in (None, PER_ROW):
                continue
            # The sites of a partition have notes of all.
            for site in [arm.site] if arm.site in study.sites else list(study.sites):
                path = ledger_of(arm, str(site), run=folder)
                with open_ledger(path, site=str(site), unit=None) as ledger:
                    ledger.note_unprotected(f"{study.name}/{arm.label}")


def refuse_other_names(ledger: Path) -> None:
    """Refuse a second ledger in the folder of one hospital, which has one set of notes.

    Args:
        ledger: of the site, under the name that the study gives it.

    Raises:
        ConfigError: there is another, of another name.
    """
    others = [one.stem for one in sorted(ledger.parent.glob("*.jsonl")) if one != ledger]
    if others:
        raise ConfigError(
            f"ledger: {ledger.parent} has what {', '.join(others)} spent, and this study calls the "
            f"site {ledger.stem}: what one hospital spends adds up in one ledger; have the study "
            "use the earlier name"
        )


def _is_planned(arm: Arm, site: str, path: Path, folder: Path) -> bool:
    """Whether the ledger knows the row already; if not, there must be something left for it."""
    if not path.exists():
        return False
    terms = terms_of(arm.study, site)
    with open_ledger(path, site=site, unit=terms.unit, of=terms.of) as ledger:
        run = run_id_of(own_folder(folder / "federation" / arm.label, site, "private"))
        if run is not None and ledger.plan_of(run) is not None:
            return True
        try:
            check_left(
                terms.budget.epsilon,
                delta=terms.budget.delta,
                spent=ledger.mechanisms,
                accountant=terms.budget.accountant,
            )
        except PrivacyError as error:
            raise PrivacyError(
                f"site {site}, {path}: {error}. A larger privacy.epsilon promises less and leaves "
                f"more; privacy.ledger: {PER_ROW} is for comparing rows of which none is released"
            ) from error
    return False


def _twice(one: str, other: str, site: str) -> str:
    rows = f"{one}, of two runs," if one == other else f"{one} and {other} both"
    return (
        f"privacy.ledger: {rows} would train on the notes of {site}, and each would use up the "
        "whole budget: train one, share it by privacy.noise_multiplier, or take ledger: "
        f"{PER_ROW} to compare rows of which none is released"
    )
