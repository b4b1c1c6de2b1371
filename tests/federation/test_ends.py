"""A federation whose ends sign and log: the logs agree, and have what the rounds were made of."""

import json

import pytest
from federation_toy import SITES, Raising, ToySite, plan, sites, start, toy_site
from hostile import keys_in, run_with

from fedmedlora.canonical import sha256
from fedmedlora.errors import FederationError
from fedmedlora.federation import run as run_module
from fedmedlora.federation.audit_check import check_log, compare_ends
from fedmedlora.federation.run import run_federation


def run(folder, keys=({}, ()), *, workers=None, resume=False, **changes):
    return run_federation(
        plan(**{"public_keys": keys[1], **changes}), start(), workers=workers or sites(),
        folder=folder, keys=keys[0], audit=True, resume=resume,
    )  # fmt: skip


def logs(folder):
    """The coordinator's log, and the sites' by name."""
    found = {name: check_log(folder / f"site-logs/{name}.audit.jsonl") for name in SITES}
    return check_log(folder / "audit.jsonl"), found


def kinds(log):
    return [(one["kind"], one.get("phase"), one.get("round")) for one in log.entries]


def test_every_message_is_in_both_logs_and_they_agree(tmp_path):
    keys = keys_in(tmp_path / "keys")
    result = run(tmp_path / "run", keys, rounds=2, method="fed-medlora+")
    coordinator, ours = logs(tmp_path / "run")
    assert coordinator.faults == ()
    for name, log in ours.items():
        assert log.faults == ()
        assert compare_ends(log, coordinator) == ()
        assert kinds(log) == [
            ("begun", None, None),
            ("received", "introduce", 0), ("sent", "introduce", 0),
            *(
                (kind, phase, number)
                for number in (1, 2)
                for phase in ("train", "score")
                for kind in ("received", "sent")
            ),
        ]  # fmt: skip
        theirs = [one for one in coordinator.entries if one.get("site") == name]
        assert [one["kind"] for one in theirs] == ["joined", *["sent", "received"] * 4]
        # What is said of a message is the same at both ends.
        here = {one["sha256"]: one["bytes"] for one in log.entries if one["kind"] != "begun"}
        there = {one["sha256"]: one["bytes"] for one in theirs}
        assert there.items() <= here.items()
        told = [one for one in log.entries if one["kind"] == "sent" and one["phase"] == "train"]
        assert [one["said"]["numbers"]["counts"]["rows_cut"] for one in told] == [3, 3]
        # Little more travels than the log says.
        phases = [record.sites[name].phases["train"][1] for record in result.records]
        for entry, travelled in zip(told, phases, strict=True):
            assert entry["bytes"] < travelled < entry["bytes"] + 600
    folder = tmp_path / "run" / "round-0002"
    for one in json.loads((folder / "contributions.json").read_bytes())["contributions"]:
        signed = one["signed"]
        entry = next(
            e for e in ours[signed["site"]].entries if e.get("sha256") == signed["statement"]
        )
        assert entry["signature"] == signed["signature"]


def test_hashes_in_a_sites_log_are_those_of_the_files_that_the_coordinator_keeps(tmp_path):
    run(tmp_path, rounds=1, keep_replies=True)
    _, ours = logs(tmp_path)
    for name, log in ours.items():
        kept = tmp_path / "round-0001" / "replies" / name
        [sent] = [e for e in log.entries if e["kind"] == "sent" and e["phase"] == "train"]
        assert (
            sha256((kept / "packed.npy").read_bytes()) == sent["said"]["arrays"]["adapter/packed"]
        )
        assert sha256((kept / "train.json").read_bytes()) == sent["sha256"]


def test_failures_and_resumption_are_in_the_logs(tmp_path):
    with pytest.raises(FederationError):
        run(tmp_path, rounds=3, workers=sites(south=Raising("south", round=2)))
    run(tmp_path, rounds=3, resume=True)
    coordinator, ours = logs(tmp_path)
    for log in ours.values():
        assert log.faults == ()
        assert compare_ends(log, coordinator) == ()
    received = [
        (one["round"], one["status"]) for one in coordinator.entries
        if one["kind"] == "received" and one["site"] == "south"
    ]  # fmt: skip
    assert received == [(1, "ok"), (2, "failed"), (2, "ok"), (3, "ok")]
    assert kinds(coordinator).count(("joined", "introduce", 0)) == 2 * len(SITES)


def test_refused_replies_are_logged_with_the_reason(monkeypatch, tmp_path):
    keys = keys_in(tmp_path / "keys")

    def more(reply, request, number):
        if request is not None:
            reply.content["metrics"]["examples"] = 99
        return [reply]

    plain = run_module.run_federation
    monkeypatch.setattr(
        run_module, "run_federation", lambda *args, **named: plain(*args, **named, audit=True)
    )
    run_with(monkeypatch, tmp_path / "run", keys, more, rounds=1)
    coordinator, ours = logs(tmp_path / "run")
    [entry] = [
        one for one in coordinator.entries if one["kind"] == "received" and one["site"] == "south"
    ]
    assert entry["status"] == "refused"
    assert "signature" in entry["reason"]
    # The site's log does not have what came: somebody changed it between the two.
    assert "received" in compare_ends(ours["south"], coordinator)[0]
    assert compare_ends(ours["north"], coordinator) == ()


def test_sites_in_processes_of_their_own_sign_and_log_alike(tmp_path):
    keys = keys_in(tmp_path / "keys")
    result = run(tmp_path / "run", keys, rounds=1, workers=toy_site, processes=2)
    assert {site.status for site in result.records[0].sites.values()} == {"ok"}
    coordinator, ours = logs(tmp_path / "run")
    assert all(compare_ends(log, coordinator) == () for log in ours.values())


def test_signing_and_logging_change_nothing_of_the_result(tmp_path):
    keys = keys_in(tmp_path / "keys")
    signed = run(tmp_path / "run", keys, method="fed-medlora+")
    plain = run_federation(
        plan(method="fed-medlora+"), start(), workers=sites(), folder=tmp_path / "plain"
    )
    assert signed.adapter.sha256 == plain.adapter.sha256
    assert not list((tmp_path / "plain").rglob("*audit*"))


class Unloggable(ToySite):
    """While it trains its log's disk gets full."""

    def __init__(self, name, log):
        super().__init__(name)
        self.log = log

    def train(self, adapter, order):
        if order.round == 2:
            self.log.with_name(f"{self.log.name}.head").write_text("{}")
        return super().train(adapter, order)


def test_what_cannot_be_logged_does_not_leave(tmp_path):
    log = tmp_path / "site-logs" / "south.audit.jsonl"
    result = run(tmp_path, min_sites=2, workers=sites(south=Unloggable("south", log)))
    first, second = (record.sites["south"] for record in result.records)
    assert first.status == "ok"
    assert (second.status, second.reason.split(" (")[0]) == ("failed", "error")
