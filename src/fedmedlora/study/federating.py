"""``federation start`` and ``site start``: a folder's settings in, its processes tended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from fedmedlora import __version__
from fedmedlora.config import Study
from fedmedlora.config_deployment import SiteSettings, load_coordinator, load_site
from fedmedlora.durable import private_folder, resolved
from fedmedlora.errors import BackboneError, ConfigError, FedMedLoRAError, RunError
from fedmedlora.federation.deployment.coordinator import coordinator_services
from fedmedlora.federation.deployment.flower_files import app_configuration, write_flower_files
from fedmedlora.federation.deployment.holding import held
from fedmedlora.federation.deployment.hospital import site_services
from fedmedlora.federation.deployment.journal import at_work
from fedmedlora.federation.deployment.layout import (
    COORDINATOR_VARIABLE,
    INCIDENTS,
    SETTINGS_KEY,
    SITE_KEY,
    CoordinatorFolder,
    SiteFolder,
    refuse_other_folders,
)
from fedmedlora.federation.deployment.membership import refuse_changed_terms, refuse_other_keys
from fedmedlora.federation.deployment.services import Service, Services, refuse_taken_port
from fedmedlora.federation.deployment.tending import tend_federation
from fedmedlora.federation.offline import NO_HUB, OFFLINE
from fedmedlora.model.backbone import check_name
from fedmedlora.study.admitting import all_admitted
from fedmedlora.study.arms import Arm, study_arms
from fedmedlora.study.data import load_data
from fedmedlora.study.securing import secure_terms
from fedmedlora.study.service_files import renew_services
from fedmedlora.study.shared import read_shared, site_study

#: Of the Flower app; see ``study.flower_app``, which is not imported here: it would load Flower.
_APP = "fedmedlora.study.flower_app"
_TEND_S = 1.0


def start_federation(root: Path, *, note: Callable[[str], None]) -> None:
    """Run a coordinator's federation until it is done, or go on with it.

    Args:
        root: the coordinator's folder.
        note: told a line of what happens.

    Raises:
        ConfigError: the folder is no coordinator's, the settings are wrong, or a site's key is not
            admitted yet.
        FederationError: the run failed.
        RunError: the model is not on this machine (its disk may not be there yet), a process cannot
            be started, or another command works in this folder.
    """
    folder = CoordinatorFolder(resolved(root))
    refuse_other_folders(folder)
    settings, shared = load_coordinator(folder.settings), read_shared(folder.study)
    with held(folder):  # before a file of a federation that runs is written anew
        _refuse_missing_model(shared.arm)
        members = all_admitted(folder, tuple(shared.study.sites))
        for name in renew_services(folder, settings):
            note(f"{name} is written anew: it was of other settings")
        proxied = settings.proxy == "nginx"
        app = app_configuration(
            version=__version__, server=f"{_APP}:server", client=f"{_APP}:client"
        )
        write_flower_files(folder, port=settings.superlink_port, app=app)
        environment = _environment(settings.threads) | {COORDINATOR_VARIABLE: str(folder.root)}
        services = coordinator_services(
            folder, port=settings.superlink_port, proxy=proxied, environment=environment
        )
        private_folder(folder.logs)
        ports = [("superlink_port", settings.superlink_port)]
        if proxied:
            ports.append(("port", settings.port))
        tend_federation(
            folder,
            Services(services, logs=folder.logs),
            nodes={site: made.node for site, made in members.items()},
            ports=ports,
            note=note,
        )


def start_site(file: Path, *, note: Callable[[str], None]) -> None:
    """Take part in a federation until this process is ended.

    Args:
        file: the site's settings.
        note: told a line of what happens.

    Raises:
        ConfigError: the settings are wrong, or the keys are not this site's.
        RunError: a process cannot be started, the notes cannot be read or the model is not on this
            machine (their disk may not be there yet), or another command works for this site.
    """
    file = resolved(file)
    settings = load_site(file)
    folder, work = SiteFolder(file.parent), file.parent / settings.work
    shared = read_shared(file.parent / settings.study)
    study = site_study(shared, settings, folder=folder.root)
    secure_terms(shared, settings.name, folder)
    refuse_changed_terms(folder, settings.name, study=file.parent / settings.study)
    for file_of_kit in (folder.authority, folder.node_key, folder.signing_key):
        if not file_of_kit.is_file():
            raise ConfigError(f"{file_of_kit}: is missing; `site unpack` of the kit makes it")
    refuse_other_keys(folder, settings.name)
    _refuse_unreadable_notes(study, file)
    [arm] = [arm for arm in study_arms(study) if arm.label == shared.arm.label]
    _refuse_missing_model(arm)
    with at_work(work):
        refuse_taken_port(settings.port, key="port")
        around = _environment(settings.threads) | _device(settings)
        connection = Services(
            site_services(
                folder,
                coordinator=settings.coordinator,
                port=settings.port,
                work=work,
                node={SITE_KEY: settings.name, SETTINGS_KEY: str(file)},
                environment=around,
            ),
            logs=work / "logs",
            together=True,  # what a ClientApp does for a SuperNode that is gone is in vain
        )
        command = (sys.executable, "-m", "fedmedlora.study.site_process", str(file))
        worker = Services([Service("worker", command, around)], logs=work / "logs")
        try:
            worker.start()
            connection.start()
            note(
                f"site {settings.name} tries to join {shared.study.name!r} at "
                f"{settings.coordinator}; Ctrl-C ends it"
            )
            incidents = _incidents(work)
            while True:
                time.sleep(_TEND_S)
                if (now := _incidents(work)) != incidents:
                    incidents = now
                    note(f"what the coordinator asked for failed here; see {work / INCIDENTS}")
                for part in (worker, connection):
                    for name in part.tend():
                        note(_ended(name, part.log(name)))
        finally:
            connection.stop()
            worker.stop()


def _refuse_unreadable_notes(study: Study, file: Path) -> None:
    """Who starts a site should hear of it at once, and not the coordinator in the first round."""
    try:
        load_data(study)
    except FedMedLoRAError as error:
        raise RunError(
            f"the notes cannot be used: {error}; `fedmedlora site check {file}` looks at everything"
        ) from error


def _refuse_missing_model(arm: Arm) -> None:
    """The coordinator makes the first adapter on the model, and each site trains on it.

    Both do so in processes that ask no hub. That it was there when the federation was founded, or
    the site checked, does not make it be there now: not 2, after which a service is not started
    again.
    """
    key, name = "backbone.name", arm.study.backbone.name
    if arm.is_tagger:
        key, name = "encoder.name", arm.study.encoder.name
    try:
        check_name(name, key=key, cached=True)
    except BackboneError as error:
        raise RunError(str(error)) from error


def _incidents(work: Path) -> int:
    """Grows with everything that goes wrong in training."""
    return sum(one.stat().st_size for one in (work / INCIDENTS).glob("*.log"))


def _ended(name: str, log: Path) -> str:
    told = f"{name} has ended; it is started again; see {log}"
    if name == "supernode":
        told += (
            "; if the coordinator runs: has it admitted this site's key, is it the key of this "
            "folder, is the clock right (`site check`)?"
        )
    return told


def _environment(threads: int) -> dict[str, str]:
    """Of processes that load a model: they call nobody but the coordinator, whoever starts them."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    alone = {**OFFLINE, **NO_HUB}
    return {**dict.fromkeys(names, str(threads)), **alone, "TOKENIZERS_PARALLELISM": "false"}


def _device(settings: SiteSettings) -> dict[str, str]:
    if settings.device == "auto":
        return {}
    return {"CUDA_VISIBLE_DEVICES": "" if settings.device == "cpu" else settings.device}
