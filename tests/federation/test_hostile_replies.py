"""Numbers: hostile replies and replays, none of them accepted, and the rounds go on."""

import numpy as np
import pytest
from federation_toy import SITES, Raising, plan, sites, start
from hostile import KINDS, SOUTH, as_south, keys_in, run_with, south_forged

from fedmedlora.errors import ConfigError, FederationError
from fedmedlora.federation import run as run_module
from fedmedlora.federation.client import Desk, client_app
from fedmedlora.federation.flower import from_bytes, to_bytes
from fedmedlora.federation.grid import SequentialSwitch, answer
from fedmedlora.federation.signing import make_key


def test_two_hundred_hostile_replies_are_refused_and_every_round_goes_on(monkeypatch, tmp_path):
    keys = keys_in(tmp_path / "keys")
    rng = np.random.default_rng(7)
    heard = []

    def replies_of(reply, request, number):
        if request is None:
            if reply.content["config"]["site"] == "north":
                heard.append(reply.content)
            return []
        name = KINDS[(number - 1) % len(KINDS)]
        return south_forged(name, reply, request, heard[-1], keys, rng)

    result = run_with(monkeypatch, tmp_path / "run", keys, replies_of, rounds=200)
    south = [record.sites["south"] for record in result.records]
    accepted = [
        KINDS[number % len(KINDS)] for number, site in enumerate(south) if site.status == "ok"
    ]
    assert accepted == []
    assert len(south) == 200
    assert all(site.status == "refused" and site.reason and site.weight == 0 for site in south)
    assert not any("Zyxwvut" in site.reason for site in south)
    for record in result.records:
        weights = [record.sites[name].weight for name in ("north", "west")]
        assert weights == pytest.approx([1 / 6, 5 / 6])
    # A site's own key does not open the door: what it signs is looked at all the same.
    own = {KINDS[n % len(KINDS)]: site.reason for n, site in enumerate(south)}
    assert "not finite" in own["infinite"]
    assert "manifest" in own["another rank"]
    assert "examples" in own["too many examples"]


def test_an_honest_reply_passes_where_the_hostile_ones_did_not(monkeypatch, tmp_path):
    keys = keys_in(tmp_path / "keys")
    result = run_with(
        monkeypatch, tmp_path / "run", keys,
        lambda reply, request, number: [] if request is None else [as_south(reply, reply.content)],
    )  # fmt: skip
    assert [record.sites["south"].status for record in result.records] == ["ok", "ok"]


def test_a_hundred_replays_of_genuine_replies_are_refused(monkeypatch, tmp_path):
    keys = keys_in(tmp_path / "keys")
    old = {}

    def listening(run):
        def replies_of(reply, request, number):
            site = reply.content["config"]["site"]
            old[run, site, number] = reply.content
            return [] if request is None else [reply]

        return replies_of

    run_with(monkeypatch, tmp_path / "1", keys, listening("before"), rounds=25)
    run_with(monkeypatch, tmp_path / "2", keys, listening("other"), rounds=25, run_id="other")
    replayed = []

    def replies_of(reply, request, number):
        listening("now")(reply, request, number)
        if request is None:
            return []
        sources = (
            ("before", "south", (number - 1) % 25 + 1),  # an earlier attempt at this very round
            ("other", "south", (number - 1) % 25 + 1),  # another run
            ("now", "south", max(1, number - 1 - number % 3)),  # another round of this run
            ("now", "north", number),  # another site, this round
        )
        source = sources[number % 4]
        replayed.append(source)
        return [as_south(reply, old[source])]

    # From round 4 on every source is there.
    result = run_with(monkeypatch, tmp_path / "3", keys, replies_of, rounds=100)
    own = [
        number for number, source in enumerate(replayed, 1) if source == ("now", "south", number)
    ]
    south = [record.sites["south"] for record in result.records]
    accepted = [n for n, site in enumerate(south, 1) if site.status == "ok"]
    assert (accepted, own) == ([], [])
    assert len(replayed) == 100
    assert {site.status for site in south} == {"refused"}
    assert all(record.sites["west"].status == "ok" for record in result.records)


def test_the_first_round_of_a_run_of_the_same_name_is_no_answer_to_this_one(monkeypatch, tmp_path):
    """Run, round, site and broadcast are equal: the nonce alone tells the attempts apart."""
    keys = keys_in(tmp_path / "keys")
    old = []

    def keep(reply, request, number):
        old.extend([] if request is None else [reply.content])
        return [reply]

    run_with(monkeypatch, tmp_path / "1", keys, keep, rounds=1)
    result = run_with(
        monkeypatch, tmp_path / "2", keys,
        lambda reply, request, number: [] if request is None else [as_south(reply, old[0])],
        rounds=1,
    )  # fmt: skip
    assert "signature" in result.records[0].sites["south"].reason


def test_scores_are_signed_as_well(monkeypatch, tmp_path):
    private, public = keys_in(tmp_path / "keys")

    class Better(SequentialSwitch):
        """South's adapter does well, says whoever changes west's scores on their way."""

        def receive(self):
            reply = from_bytes(super().receive())
            if (reply.metadata.src_node_id, reply.metadata.message_type) == (3, "evaluate"):
                reply.content["metrics"]["losses"] = [9.0, 0.1, 9.0]
            return to_bytes(reply)

    def run(folder):
        return run_module.run_federation(
            plan(rounds=1, method="fed-medlora+", min_sites=2, public_keys=public), start(),
            workers=sites(), folder=folder, keys=private,
        ).records[0].sites  # fmt: skip

    assert {site.scoring for site in run(tmp_path / "1").values()} == {"ok"}
    monkeypatch.setattr(run_module, "SequentialSwitch", Better)
    assert "signature does not fit" in run(tmp_path / "2")["west"].scoring


# Who a node is


def test_a_site_without_its_key_is_not_let_in(tmp_path):
    private, public = keys_in(tmp_path / "keys")
    make_key(tmp_path / "keys" / "stranger")
    told = []
    result = run_module.run_federation(
        plan(rounds=1, min_sites=2, public_keys=public, connect_s=0.1), start(), workers=sites(),
        folder=tmp_path / "run", keys={**private, "south": tmp_path / "keys" / "stranger"},
        on_event=lambda kind, **facts: told.append((kind, facts)),
    )  # fmt: skip
    assert ("not-believed", {"site": "south"}) in told
    assert result.records[0].sites["south"].status == "absent"


def test_a_node_that_claims_a_site_without_its_key_does_not_end_the_run(monkeypatch, tmp_path):
    """Without keys two nodes of one name end it: which of them is right cannot be known."""
    private, public = keys_in(tmp_path / "keys")

    class Impostor(SequentialSwitch):
        """South's node says that it is north, and signs with south's key."""

        def receive(self):
            node, data = self._waiting.pop(0)
            desk = Desk(("?", "north", "?"), sites(), keys={"north": private["south"]})
            return answer(client_app(desk) if node == SOUTH else self._app, node, 3, data)

    monkeypatch.setattr(run_module, "SequentialSwitch", Impostor)
    result = run_module.run_federation(
        plan(rounds=1, min_sites=2, public_keys=public, connect_s=0.0), start(), workers=sites(),
        folder=tmp_path / "run", keys=private,
    )  # fmt: skip
    statuses = {name: site.status for name, site in result.records[0].sites.items()}
    assert statuses == {"north": "ok", "south": "absent", "west": "ok"}


def test_where_there_are_keys_unsigned_replies_do_not_count(tmp_path):
    _, public = keys_in(tmp_path / "keys")
    with pytest.raises(FederationError, match="0 of 3 sites trained"):
        run_module.run_federation(
            plan(rounds=1, min_sites=1, public_keys=public, connect_s=0.0), start(),
            workers=sites(), folder=tmp_path / "run",
        )  # fmt: skip


def test_a_failure_is_signed_too_and_told_as_one(tmp_path):
    private, public = keys_in(tmp_path / "keys")
    workers = sites(south=Raising("south", error=MemoryError))
    result = run_module.run_federation(
        plan(rounds=1, min_sites=2, public_keys=public), start(), workers=workers,
        folder=tmp_path / "run", keys=private,
    )  # fmt: skip
    south = result.records[0].sites["south"]
    assert (south.status, south.reason.split(" (")[0]) == ("failed", "memory")


@pytest.mark.parametrize(
    "keys",
    [
        (("north", "a" * 64),),
        tuple((site, "A" * 64) for site in SITES),
        tuple((site, "a" * 63) for site in SITES),
        tuple(("north", "a" * 64) for _ in SITES),
    ],
)
def test_a_plan_has_a_key_for_every_site_or_for_none(keys):
    with pytest.raises(ConfigError, match="public_keys"):
        plan(public_keys=keys)
