"""A federation whose ends sign and log: the logs agree, and have what the rounds were made of."""

import json
from dataclasses import replace

import pytest
from federation_toy import SITES, Raising, ToySite, dying_site, plan, sites, start, toy_site
from flwr.app import Error
from hostile import keys_in, run_with

from fedmedlora.canonical import sha256
from fedmedlora.errors import FederationError
from fedmedlora.federation import run as run_module
from fedmedlora.federation.audit_check import check_log, compare_ends
from fedmedlora.federation.flower import Message
from fedmedlora.federation.grid import InProcessGrid
from fedmedlora.federation.run import run_federation
from fedmedlora.federation.signing import make_key


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
        assert [one["kind"] for one in theirs] == ["received", *["sent", "received"] * 4]
        assert [one["phase"] for one in theirs[:2]] == ["introduce", "train"]
        asked = [one for one in coordinator.entries if one.get("node") == theirs[0]["node"]]
        assert (asked[0]["kind"], asked[0]["phase"]) == ("sent", "introduce")
        # What is said of a message is the same at both ends.
        here = {one["sha256"]: one["bytes"] for one in log.entries if one["kind"] != "begun"}
        there = {one["sha256"]: one["bytes"] for one in [asked[0], *theirs]}
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
    assert received == [(0, "ok"), (1, "ok"), (2, "failed"), (0, "ok"), (2, "ok"), (3, "ok")]
    for kind in ("sent", "received"):
        assert kinds(coordinator).count((kind, "introduce", 0)) == 2 * len(SITES)
    # The word that left is in the site's own log.
    words = [one["said"]["config"].get("code") for one in ours["south"].entries
             if one["kind"] == "sent"]  # fmt: skip
    assert words == [None, None, "error", None, None, None]


def without(log, of, **more):
    """A coordinator's log as it would be if it had not entered some answers, or so only."""
    entries = []
    for one in log.entries:
        if one["kind"] == "received" and all(one.get(name) == of[name] for name in of):
            if not more:
                continue
            one = {name: one[name] for name in ("kind", "site", "run", "phase", "round")} | more
        entries.append(one)
    assert list(log.entries) != entries
    return replace(log, entries=tuple(entries))


def test_a_reply_that_the_coordinator_does_not_have_shows_by_the_sites_log(tmp_path):
    run(tmp_path)
    coordinator, ours = logs(tmp_path)
    last = {"site": "south", "phase": "train", "round": 2}
    left_out = without(coordinator, last)
    number = ours["south"].entries[-1]["n"]
    assert compare_ends(ours["south"], left_out) == (
        f"entry {number} (sent) of south's log is not in the coordinator's (received): it did not "
        "arrive in time, or was left out",
    )
    assert compare_ends(ours["north"], left_out) == ()
    late = without(coordinator, last, status="refused", reason="late")
    assert compare_ends(ours["south"], late) == ()


def test_a_reply_to_a_coordinator_that_was_killed_and_asked_again_is_not_missed(tmp_path):
    with pytest.raises(FederationError):
        run(tmp_path, workers=sites(south=Raising("south", round=2)))
    run(tmp_path, resume=True)
    coordinator, ours = logs(tmp_path)
    lost = {"site": "north", "phase": "train", "round": 2}
    [first, again] = [
        one for one in coordinator.entries
        if one["kind"] == "received" and lost.items() <= one.items()
    ]  # fmt: skip
    assert compare_ends(ours["north"], without(coordinator, {"n": first["n"]})) == ()
    assert len(compare_ends(ours["north"], without(coordinator, {"n": again["n"]}))) == 1


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
        one for one in coordinator.entries
        if (one["kind"], one.get("phase"), one.get("site")) == ("received", "train", "south")
    ]  # fmt: skip
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


def test_a_process_that_dies_is_in_both_logs_and_signed_for(tmp_path):
    keys = keys_in(tmp_path / "keys")
    result = run(tmp_path / "run", keys, rounds=1, workers=dying_site, processes=3, min_sites=2)
    south = result.records[0].sites["south"]
    assert (south.status, south.reason.split(" (")[0]) == ("failed", "process-died")
    coordinator, ours = logs(tmp_path / "run")
    assert compare_ends(ours["south"], coordinator) == ()
    assert ours["south"].entries[-1]["said"]["config"]["code"] == "process-died"
    told = [one for one in coordinator.entries if one.get("status") == "failed"]
    assert [one["site"] for one in told] == ["south"]


def test_a_node_that_fails_or_lies_at_joining_is_in_the_logs(tmp_path):
    keys = keys_in(tmp_path / "keys")
    make_key(tmp_path / "keys" / "stranger")
    with pytest.raises(FederationError, match="south absent"):
        run(tmp_path / "run", ({**keys[0], "south": tmp_path / "keys" / "stranger"}, keys[1]),
            rounds=1, connect_s=0.0)  # fmt: skip
    coordinator, _ = logs(tmp_path / "run")
    [told, *_] = [one for one in coordinator.entries if one.get("site") == "south"]
    assert (told["kind"], told["phase"], told["status"]) == ("received", "introduce", "refused")
    assert "does not bear the signature" in told["reason"]
    assert len(told["sha256"]) == 64


class Ended(InProcessGrid):
    """South's app ends as Flower tells it, with words of its own."""

    kind = ""

    def pull_messages(self, message_ids):
        for reply in super().pull_messages(message_ids):
            meta = reply.metadata
            if (meta.src_node_id, meta.message_type) == (2, self.kind):
                meta.__dict__.update(
                    _src_node_id=0, _dst_node_id=2, _message_id=meta.reply_to_message_id
                )
                yield Message(Error(code=1, reason="Mrs Zyxwvut"), reply_to=reply)
            else:
                yield reply


@pytest.mark.parametrize("kind", ["train", "query.introduce"])
def test_an_app_that_ends_without_an_answer_is_in_the_coordinators_log(monkeypatch, tmp_path, kind):
    monkeypatch.setattr(Ended, "kind", kind)
    monkeypatch.setattr(run_module, "InProcessGrid", Ended)
    run(tmp_path, rounds=1, min_sites=2, connect_s=0.0)
    coordinator, _ = logs(tmp_path)
    failed = [one for one in coordinator.entries if one.get("status") == "failed"]
    site = "south" if kind == "train" else ""
    assert {(one["site"], one["reason"]) for one in failed} == (
        {(site, "its app ended with Flower error 1")}
    )
    assert b"Zyxwvut" not in (tmp_path / "audit.jsonl").read_bytes()


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
