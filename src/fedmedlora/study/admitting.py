"""The sites' own keys at the coordinator: what the sites sent back in, who may take part out.

FOLDER/sites/SITE.membership.json    as the site sent it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedmedlora.durable import private_folder, replace_private, resolved
from fedmedlora.errors import ConfigError, DataError, RunError
from fedmedlora.federation.deployment.journal import at_work, is_at_work
from fedmedlora.federation.deployment.layout import CoordinatorFolder, refuse_other_folders
from fedmedlora.federation.deployment.membership import (
    Membership,
    federation_id,
    read_membership,
)
from fedmedlora.federation.plan_file import PLAN_FILE
from fedmedlora.federation.signing import public_file, read_public_key
from fedmedlora.study.shared import read_shared


def admit_sites(
    root: Path, files: Sequence[Path], *, replace: bool = False
) -> dict[str, Membership]:
    """Take what sites sent back: all of the files, or none if one is not right.

    Args:
        root: the coordinator's folder.
        files: SITE.membership.json each.
        replace: whether a site's keys may take the place of others that it had.

    Returns:
        the sites of the files, in their order.

    Raises:
        ConfigError: the folder is no coordinator's.
        DataError: a file is not what a site of this federation makes, or its keys are others than
            those that were admitted for the site, or another site's.
        RunError: the federation runs, its run has begun with the keys before, or the folder cannot
            be written.
    """
    folder = CoordinatorFolder(resolved(root))
    refuse_other_folders(folder)
    sites = tuple(read_shared(folder.study).study.sites)
    taken, known = _compared(folder, files, sites, replace=replace)
    if all(known.get(site) == made for site, made in taken.items()):
        return taken
    if is_at_work(folder.state):
        raise RunError(f"the federation runs: first `fedmedlora federation stop {folder.root}`")
    with at_work(folder.state):  # who runs has read the keys already
        # Again: another command may have admitted others since.
        taken, known = _compared(folder, files, sites, replace=replace)
        new = {site: made for site, made in taken.items() if known.get(site) != made}
        _keep(folder, new, replaced=[site for site in new if site in known])
    return taken


def _compared(
    folder: CoordinatorFolder, files: Sequence[Path], sites: Sequence[str], *, replace: bool
) -> tuple[dict[str, Membership], dict[str, Membership]]:
    """What the files say, and what was admitted before; errors as of ``admit_sites``."""
    known, taken = admitted_sites(folder, sites), dict[str, Membership]()
    for path in files:
        made = read_membership(path)
        _refuse_strangers(path, made, sites, _id_of(folder))
        if made.site in taken:
            raise DataError(f"site {made.site!r} is named twice", path=path)
        before = known.get(made.site)
        if before is not None and before != made and not replace:
            raise DataError(
                f"another key was admitted for site {made.site!r} (fingerprint "
                f"{before.fingerprint}, this one {made.fingerprint}); if the site made new keys, "
                "and says so by telephone: --replace",
                path=path,
            )
        taken[made.site] = made
    _refuse_shared_keys({**known, **taken})
    return taken, known


def admitted_sites(folder: CoordinatorFolder, sites: Sequence[str]) -> dict[str, Membership]:
    """Site -> what was admitted, of those that have something, in the order of ``sites``.

    Raises:
        DataError: what is there is not what ``admit_sites`` wrote.
    """
    there = {site: folder.membership(site) for site in sites if folder.membership(site).exists()}
    found = {site: read_membership(path) for site, path in there.items()}
    for site, made in found.items():
        _refuse_strangers(there[site], made, (site,), _id_of(folder))
    return found


def all_admitted(folder: CoordinatorFolder, sites: Sequence[str]) -> dict[str, Membership]:
    """What was admitted of every site.

    Raises:
        ConfigError: some have nothing yet; the message names them.
        DataError: as of ``admitted_sites``.
    """
    found = admitted_sites(folder, sites)
    missing = [site for site in sites if site not in found]
    if missing:
        raise ConfigError(
            f"no key is admitted yet of {', '.join(missing)}: `fedmedlora federation admit "
            f"{folder.root} SITE.membership.json` takes what `site unpack` made at the site"
        )
    return found


def _id_of(folder: CoordinatorFolder) -> str:
    public = read_public_key(public_file(folder.signing_key))
    now = federation_id(folder.study.read_bytes(), public)
    founded = folder.identity.read_text("ascii").strip() if folder.identity.exists() else now
    if now != founded:
        raise DataError(
            "was changed after the federation was founded, so that no site would answer; every "
            f"{folder.kits.name}/SITE.tar.gz has it as it was (tar -xzf)",
            path=folder.study,
        )
    return now


def _refuse_strangers(path: Path, made: Membership, sites: Sequence[str], federation: str) -> None:
    if made.federation != federation:
        raise DataError(
            "it is of another federation, or made with another kit than this one's", path=path
        )
    if made.site not in sites:
        raise DataError(f"{made.site!r} is none of {', '.join(sites)}", path=path)


def _refuse_shared_keys(members: Mapping[str, Membership]) -> None:
    owners: dict[str, str] = {}
    for site, made in members.items():
        for key in (made.signing, made.node):
            other = owners.setdefault(key, site)
            if other != site:
                raise DataError(
                    f"sites {other!r} and {site!r} say that they have the same key; each unpacks "
                    "a kit of its own and makes its own keys"
                )


def _keep(
    folder: CoordinatorFolder, new: Mapping[str, Membership], *, replaced: Sequence[str]
) -> None:
    if replaced and any(folder.run.rglob(PLAN_FILE)):
        raise RunError(
            f"{folder.run}: the run has begun with the keys before of {', '.join(replaced)}; move "
            "it away to begin anew with the new ones"
        )
    for site, made in new.items():
        private_folder(folder.sites)
        replace_private(folder.membership(site), made.to_json())
