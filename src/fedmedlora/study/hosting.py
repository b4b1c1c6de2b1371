"""A hospital's side of a federation: its settings in, the worker that trains on its notes out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fedmedlora.config_deployment import SiteSettings, load_site
from fedmedlora.federation.client import Desk
from fedmedlora.federation.deployment.layout import INCIDENTS, SiteFolder
from fedmedlora.federation.plan import SiteWorker
from fedmedlora.federation.signing import read_public_key
from fedmedlora.study.arms import study_arms
from fedmedlora.study.securing import secure_terms
from fedmedlora.study.shared import Shared, read_shared, site_study


def site_desk(file: Path) -> Desk:
    """What answers for a site.

    Args:
        file: its settings.

    Raises:
        ConfigError: they, or the study file beside them, are wrong.
    """
    settings, shared, work = _read(file)
    folder = SiteFolder(file.parent)
    return Desk(
        (settings.name,),
        partial(site_worker, file),
        logs=work / INCIDENTS,
        own=work / "federation" / shared.arm.label,
        keys={settings.name: folder.signing_key},
        audit=work,
        run=shared.run_id,
        secure=secure_terms(shared, settings.name, folder),
        coordinator=read_public_key(folder.coordinator),
    )


def site_worker(file: Path, name: str) -> SiteWorker:
    """The same worker that a study on one machine makes for this site.

    Args:
        file: the site's settings.
        name: the site's.
    """
    # They load torch, and a desk is made where nothing is trained as well.
    from fedmedlora.study.data import load_data
    from fedmedlora.study.ledgers import refuse_other_names
    from fedmedlora.study.methods import MethodRunner
    from fedmedlora.study.privacy import check_privacy, is_private, ledger_of

    settings, shared, work = _read(file)
    study = site_study(shared, settings, folder=file.parent)
    runner = MethodRunner(study, load_data(study), work, lambda kind, facts: None)
    [arm] = [arm for arm in study_arms(study) if arm.label == shared.arm.label]
    check_privacy([arm], runner.data)
    if is_private(arm):
        refuse_other_names(ledger_of(arm, name, run=work))
    return runner.worker(arm, name, share_first=False)


def _read(file: Path) -> tuple[SiteSettings, Shared, Path]:
    settings = load_site(file)
    return settings, read_shared(file.parent / settings.study), file.parent / settings.work
