"""All sites of a federation, as one of them knows them: their memberships in, their keys out.

FOLDER/members/SITE.membership.json    of every other site: from it, or from the coordinator

A membership proves that its maker has its keys, not who that is: that its fingerprint is the one
which the other hospital reads out is what keeps anybody from standing in between.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedmedlora.errors import ConfigError
from fedmedlora.federation.deployment.layout import SiteFolder, membership_file
from fedmedlora.federation.deployment.membership import Membership, read_membership


def known_members(folder: SiteFolder, own: str, sites: Sequence[str]) -> dict[str, Membership]:
    """Site -> what it says of itself, of all sites whose file is here.

    Args:
        folder: of a site.
        own: its name.
        sites: all of the federation's, in the plan's order.

    Raises:
        DataError: a file is not what its site signed.
        ConfigError: one is of another federation, another site, or has this site's own key.
    """
    mine = read_membership(membership_file(folder.root, own))
    found = {}
    for site in sites:
        path = membership_file(folder.members, site)
        if site == own:
            found[site] = mine
        elif path.exists():
            found[site] = read_membership(path)
            _check(found[site], mine, site, str(path))
    return found


def _check(made: Membership, mine: Membership, site: str, path: str) -> None:
    if (made.site, made.federation) != (site, mine.federation):
        raise ConfigError(f"{path} is of another site or another federation")
    if made.signing == mine.signing:
        raise ConfigError(f"{path} has the key of this site itself")


def all_members(folder: SiteFolder, own: str, sites: Sequence[str]) -> dict[str, Membership]:
    """Those of all sites; errors as of ``known_members``.

    Raises:
        ConfigError: some are missing; the message names them.
    """
    found = known_members(folder, own, sites)
    missing = [site for site in sites if site not in found]
    if missing:
        raise ConfigError(
            f"{folder.members}: secure aggregation needs what every other site says of itself; "
            f"missing: {', '.join(f'{site}.membership.json' for site in missing)}; ask these sites "
            "or the coordinator for them, and compare fingerprints by telephone"
        )
    return found
