"""Whose keys a federation's replies are checked with: its plan in, and what the sites say, out.

The plan is the coordinator's file: who exchanges it exchanges the keys in it. What ties a key to a
hospital is that hospital's membership, got from it and compared by its fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fedmedlora.errors import DataError
from fedmedlora.federation.deployment.membership import Membership, read_membership
from fedmedlora.federation.plan_file import read_plan

#: Where memberships are: in a site's folder, and in a coordinator's.
_PLACES = ("*.membership.json", "members/*.membership.json", "sites/*.membership.json")


def signers_of(folder: Path) -> dict[str, str]:
    """Site -> the public key that its replies must be signed with; "" where they are not signed.

    Args:
        folder: of a federation.

    Raises:
        RunError: it holds none.
        ConfigError: a value of its plan is out of range.
    """
    plan, _ = read_plan(folder)
    keys = dict(plan.public_keys)
    return {site: keys.get(site, "") for site in plan.sites}


def memberships_in(folder: Path) -> dict[str, Membership]:
    """Site -> what it says of itself: SITE.membership.json files, also in members/ or sites/.

    Raises:
        DataError: there is none, one is not what its site signed, or two of a site differ.
    """
    found: dict[str, Membership] = {}
    for path in (path for place in _PLACES for path in sorted(folder.glob(place))):
        made = read_membership(path)
        if found.setdefault(made.site, made) != made:
            raise DataError(f"there is another membership of {made.site!r}", path=path)
    if not found:
        raise DataError("holds no SITE.membership.json", path=folder)
    return found


def faults_of_signers(
    keys: Mapping[str, str], members: Mapping[str, Membership]
) -> tuple[str, ...]:
    """Sites whose key in the plan is not the one that they say themselves; one sentence each.

    Args:
        keys: of ``signers_of``.
        members: of ``memberships_in``.
    """
    return tuple(_faults(keys, members))


def _faults(keys: Mapping[str, str], members: Mapping[str, Membership]) -> Iterator[str]:
    for site, key in keys.items():
        if not key:
            yield f"{site}: what it sent is not signed"
        elif site not in members:
            yield f"{site}: its membership is not there, so nobody says that the key is its own"
        elif members[site].signing != key:
            yield f"{site}: its own key is {members[site].signing}, not the plan's {key}"
    if len({members[site].federation for site in keys if site in members}) > 1:
        yield "the memberships are of several federations"
