"""Before a site joins: its settings in, what passes out, and what to do about what does not.

Nothing is trained and nothing of the notes leaves this machine.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedmedlora import __version__
from fedmedlora.aggregation.methods import METHODS
from fedmedlora.config import Study
from fedmedlora.config_deployment import SiteSettings, load_site
from fedmedlora.durable import resolved
from fedmedlora.errors import ConfigError, FedMedLoRAError, RunError
from fedmedlora.evaluation.tables import Table
from fedmedlora.federation.deployment.journal import is_at_work
from fedmedlora.federation.deployment.kit import changed_files
from fedmedlora.federation.deployment.layout import SiteFolder
from fedmedlora.federation.deployment.members import known_members
from fedmedlora.federation.deployment.membership import refuse_changed_terms, refuse_other_keys
from fedmedlora.federation.deployment.reaching import reach
from fedmedlora.federation.deployment.services import refuse_taken_port
from fedmedlora.privacy.ledger import open_ledger
from fedmedlora.study.arms import secure_options, study_arms
from fedmedlora.study.connecting import Check, connection_checks
from fedmedlora.study.data import StudyData, load_data
from fedmedlora.study.ledgers import check_ledgers, refuse_other_names
from fedmedlora.study.privacy import check_privacy, is_private, ledger_of, terms_of
from fedmedlora.study.shared import Shared, read_shared, site_study

#: Estimates of memory were up to 11 % low (docs/performance.md).
_ROOM = 1.2
_KIT_FILES = "set right what is named; study.yaml and coordinator.pub are in the kit (tar -xzf)"
_NEW_KEYS = "unpack the kit into a new folder and have its membership admitted (--replace)"


def check_site(file: Path) -> list[Check]:
    """Look at everything that a site needs, in the order in which it is needed.

    Raises:
        ConfigError: there is no such file, or it is a folder.
    """
    file = resolved(file)
    if file.is_dir():
        raise ConfigError(f"{file}: is a folder; give the file of the site's settings in it")
    if not file.exists():
        raise ConfigError(f"{file}: there is no such file")
    try:
        settings = load_site(file)
        shared = read_shared(file.parent / settings.study)
        study = site_study(shared, settings, folder=file.parent)
    except FedMedLoRAError as error:
        return [Check("settings", "wrong", str(error), f"change {file.name}")]
    folder = SiteFolder(file.parent)
    name = f"site {settings.name} of {shared.study.name!r}, method {shared.arm.label}"
    checks = [Check("settings", "ok", name)]
    checks += _guarded("kit", "unpack the site's kit again", lambda: _versions(folder))
    checks += _guarded("files", "unpack the site's kit again", lambda: _files(folder))
    checks += _guarded("terms", _KIT_FILES, lambda: _terms(folder, settings))
    checks += _keys(folder, settings)
    checks += _guarded("sites", "see docs/deploy.md", lambda: _members(folder, shared, settings))
    checks += _guarded("notes", "change notes in the settings", lambda: _notes(study))
    if METHODS[shared.arm.federated_method].scored:
        checks += _guarded("validation", "give more validation notes", lambda: _scoring(study))
    checks += _guarded("privacy", "see docs/privacy.md", lambda: _promise(study, settings))
    checks += _guarded("backbone", "see docs/deploy.md", lambda: _backbone(study, shared, folder))
    checks += _guarded("memory", "see `fedmedlora estimate`", lambda: _machine(study, settings))
    checks += _guarded("work", "see docs/deploy.md", lambda: _work(folder, settings))
    found = reach(settings.coordinator, folder.authority)
    checks += connection_checks(found, settings.coordinator)
    return checks


def check_table(checks: list[Check]) -> Table:
    """The checks for a person."""
    rows = tuple((one.what, one.state, one.found, one.advice) for one in checks)
    return Table("", ("check", "state", "found", "what to do"), rows, left=4)


def _guarded(what: str, advice: str, look: Callable[[], list[Check]]) -> list[Check]:
    try:
        return look()
    except FedMedLoRAError as error:
        return [Check(what, "wrong", str(error), advice)]


def _versions(folder: SiteFolder) -> list[Check]:
    expected = _expected(folder)
    here = {"fedmedlora": __version__, "flwr": version("flwr")}
    checks = []
    for package, found in here.items():
        wanted = str(expected.get(package, found))
        same = found.split(".")[:2] == wanted.split(".")[:2]
        advice = "" if same else f"pip install '{package}=={wanted}'"
        told = found if same else f"{found}, the coordinator has {wanted}"
        checks.append(Check(f"version of {package}", "ok" if same else "wrong", told, advice))
    return checks


def _files(folder: SiteFolder) -> list[Check]:
    changed = changed_files(folder.root)
    if not changed:
        return [Check("files", "ok", "as they came in the kit")]
    advice = "take them out of the kit again (tar -xzf)"
    return [Check("files", "wrong", f"changed or missing: {', '.join(changed)}", advice)]


def _terms(folder: SiteFolder, settings: SiteSettings) -> list[Check]:
    refuse_changed_terms(folder, settings.name, study=folder.root / settings.study)
    return [Check("terms", "ok", "study and coordinator are those of the kit")]


def _keys(folder: SiteFolder, settings: SiteSettings) -> list[Check]:
    checks = []
    for file in (folder.node_key, folder.signing_key):
        name = str(file.relative_to(folder.root))
        if not file.is_file():
            checks.append(Check(name, "wrong", "missing", _NEW_KEYS))
            continue
        mode = stat.S_IMODE(file.stat().st_mode)
        own = os.name == "nt" or not mode & 0o077
        advice = "" if own else f"chmod 600 {name}; if others may have read it, {_NEW_KEYS}"
        checks.append(Check(name, "ok" if own else "wrong", f"mode {mode:04o}", advice))
    if all(one.state == "ok" for one in checks):
        checks += _guarded("keys", _NEW_KEYS, lambda: _own_keys(folder, settings))
    return checks


def _own_keys(folder: SiteFolder, settings: SiteSettings) -> list[Check]:
    refuse_other_keys(folder, settings.name)
    return [Check("keys", "ok", "those that the membership names")]


def _members(folder: SiteFolder, shared: Shared, settings: SiteSettings) -> list[Check]:
    """The other sites' keys, where secure aggregation needs them."""
    if secure_options(shared.arm.study) is None:
        return []
    sites = shared.arm.study.site_names
    found = known_members(folder, settings.name, sites)
    checks = []
    for site in sites:
        if site == settings.name:
            continue
        if site in found:
            advice = f"right if {site} reads out the same by telephone"
            checks.append(Check(f"key of {site}", "ok", found[site].fingerprint, advice))
        else:
            advice = f"ask for {site}.membership.json, and put it into {folder.members.name}/"
            checks.append(Check(f"key of {site}", "wrong", "missing", advice))
    return checks


def _notes(study: Study) -> list[Check]:
    data = load_data(study)
    [site] = data.sites
    [test] = data.cohorts
    splits = {"train": site.train, "validation": site.validation, "test": test.documents}
    told = ", ".join(f"{len(documents)} {name}" for name, documents in splits.items())
    checks = [Check("notes", "ok", told)]
    types = study.make_scheme().types
    asked = [name for name in types if name in site.covers]
    others = [name for name in types if name not in site.covers]
    checks.append(Check("annotated types", "ok", f"{len(asked)} of {len(types)}: {_few(asked)}"))
    if others:
        advice = "right if nobody looked for them here; else notes.annotates"
        checks.append(Check("types not annotated", "ok", _few(others), advice))
    checks.append(Check("tasks", "ok", ", ".join(site.tasks)))
    checks.append(_groups(data))
    return checks


def _scoring(study: Study) -> list[Check]:
    [site] = load_data(study).sites
    marked = sum(bool(document.entities) for document in site.validation)
    if marked:
        return [Check("validation", "ok", f"{marked} notes with entities score the candidates")]
    raise ConfigError("the method is weighed by validation notes, and none here has an entity")


def _promise(study: Study, settings: SiteSettings) -> list[Check]:
    """What the study promises of this site's notes, and what is left of it."""
    [arm] = [arm for arm in study_arms(study) if arm.kind == "federated"]
    if not is_private(arm):
        told = "none is promised: what leaves can hold something of single notes"
        return [Check("privacy", "ok", told)]
    check_privacy([arm], load_data(study))
    work = Path(study.root) / settings.work
    check_ledgers([(study, work)])
    terms = terms_of(arm.study, settings.name)
    path = ledger_of(arm, settings.name, run=work)
    refuse_other_names(path)
    spent = 0.0
    if path.exists():
        with open_ledger(path, site=settings.name, unit=terms.unit, of=terms.of) as ledger:
            spent = terms.budget.spent(ledger.mechanisms)
    told = (
        f"epsilon {terms.budget.epsilon:g} at delta {terms.budget.delta:g}, unit: {terms.unit}; "
        f"{spent:.2f} is spent, by {path}"
    )
    return [Check("privacy", "ok", told)]


def _groups(data: StudyData) -> Check:
    [site], [test] = data.sites, data.cohorts
    every = [*site.train, *site.validation, *test.documents]
    grouped = sum(document.group is not None for document in every)
    told = f"{grouped} of {len(every)} notes name their patient or report (group)"
    if grouped == len(every):
        return Check("groups", "ok", f"{told}; none is in two splits")
    advice = "make sure that no patient has notes in two splits: it cannot be checked here"
    return Check("groups", "unsure", told, advice)


def _backbone(study: Study, shared: Shared, folder: SiteFolder) -> list[Check]:
    from fedmedlora.model.backbone import fingerprints_of

    name = study.encoder.name if shared.arm.is_tagger else study.backbone.name
    found = dict(zip(("backbone", "tokenizer"), fingerprints_of(name), strict=True))
    expected = _expected(folder)
    checks = []
    for what, here in found.items():
        wanted = expected.get(what)
        if wanted is None:
            checks.append(Check(what, "unsure", here[:12], "expected.json of the kit is missing"))
        elif here == wanted:
            checks.append(Check(what, "ok", f"{name}, {here[:12]}"))
        else:
            told = f"{name} is {here[:12]}, the coordinator's is {wanted[:12]}"
            advice = "copy the coordinator's files, and name their folder as `backbone`"
            checks.append(Check(what, "wrong", told, advice))
    return checks


def _machine(study: Study, settings: SiteSettings) -> list[Check]:
    if settings.device != "auto":  # before torch looks
        os.environ["CUDA_VISIBLE_DEVICES"] = "" if settings.device == "cpu" else settings.device
    import torch

    from fedmedlora.model.memory import PROCESS_BYTES, Estimator, available_memory

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    told = torch.cuda.get_device_name(0) if on_gpu else f"CPU, {settings.threads} threads"
    advice = ""
    if not on_gpu and settings.device not in ("auto", "cpu"):
        advice = "no such GPU is visible: check the driver, or say device: cpu"
    checks = [Check("device", "wrong" if advice else "ok", told, advice)]
    free = available_memory(device)
    estimator = Estimator(
        study.backbone.name, precision=study.backbone.precision, **study.adapter.model_dump()
    )
    needs = {}
    for checkpointing in (True, False):
        memory = estimator.training(
            batch=study.training.batch,
            tokens=study.training.max_tokens,
            checkpointing=checkpointing,
            objective=study.training.objective,
        )
        needs[checkpointing] = _ROOM * memory.total + (0 if on_gpu else PROCESS_BYTES)
    least = min(needs.values())
    enough = least <= free
    told = f"{least / 1e9:.2f} GB needed at least, {free / 1e9:.2f} GB free"
    advice = "" if enough else "free memory, or ask for a smaller batch or precision: nf4"
    checks.append(Check("memory", "ok" if enough else "wrong", told, advice))
    return checks


def _work(folder: SiteFolder, settings: SiteSettings) -> list[Check]:
    """Where logs go, and the port on this machine: free, unless this site is started."""
    work = folder.root / settings.work
    if is_at_work(work):
        return [Check("work", "ok", f"site {settings.name} is started already")]
    there = next(place for place in (work, *work.parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        advice = "let this user write there, or name another folder as `work`"
        return [Check("work", "wrong", f"{there} cannot be written", advice)]
    try:
        refuse_taken_port(settings.port, key="port")
    except RunError as error:
        return [Check("port", "wrong", str(error), "give another free port as `port`")]
    return [Check("work", "ok", f"{work}, port {settings.port}")]


def _expected(folder: SiteFolder) -> dict[str, Any]:
    try:
        content = json.loads((folder.root / "expected.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder.root / 'expected.json'} cannot be read") from error
    return content if isinstance(content, dict) else {}


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
