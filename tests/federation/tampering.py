"""Runs that keep their replies, and changes of their folders with all hashes made anew."""

import json

from federation_toy import SITES, plan, start
from test_methods import PartSite

from fedmedlora.federation.checkpoints import round_name
from fedmedlora.federation.run import run_federation
from fedmedlora.federation.sums import sums_sha256, write_sums
from fedmedlora.federation.verify import verify_federation


def run(folder, keys=(None, ()), *, workers=None, resume=False, **changes):
    a_plan = plan(**{"keep_replies": True, "public_keys": keys[1], **changes})
    people = workers or {name: PartSite(name) for name in SITES}
    return run_federation(
        a_plan, start(), workers=people, folder=folder, keys=keys[0], resume=resume
    )


def faults_of(folder):
    return [fault for verdict in verify_federation(folder) for fault in verdict.faults]


def changed(folder, number, change):
    """Change a round, and all hashes that say so, those of the rounds after it too."""
    place = folder / round_name(number)
    change(place)
    last = max(int(one.name[6:]) for one in folder.glob("round-????"))
    write_sums(place)
    for later in range(number + 1, last + 1):
        file = folder / round_name(later) / "contributions.json"
        content = json.loads(file.read_bytes())
        content["before"] = sums_sha256(folder / round_name(later - 1))
        file.write_text(json.dumps(content))
        write_sums(file.parent)


def edit(name, change):
    def apply(place):
        content = json.loads((place / name).read_bytes())
        change(content)
        (place / name).write_text(json.dumps(content))

    return apply


def exchanged(one, two):
    def apply(place):
        first, second = (place / "replies" / name for name in (one, two))
        first.rename(place / "between")
        second.rename(first)
        (place / "between").rename(second)

    return apply
