"""Which requests a site answers: those of its own run, that its coordinator signed."""

from dataclasses import replace

import pytest
from federation_toy import SITES, ToySite, plan, sites, start, toy_site
from hostile import keys_in

from fedmedlora.cli import run_command
from fedmedlora.federation import wire
from fedmedlora.federation.audit_check import check_log, compare_ends, faults_of_requests
from fedmedlora.federation.client import INTRODUCE, Desk, client_app
from fedmedlora.federation.ends import CoordinatorEnd
from fedmedlora.federation.flower import Context, Message, MessageType, RecordDict, TaskIdentity
from fedmedlora.federation.own_rounds import own_folder
from fedmedlora.federation.run import run_federation
from fedmedlora.federation.signing import make_key
from fedmedlora.model.packing import pack

ASKED = {"introduce": INTRODUCE, "train": MessageType.TRAIN, "score": MessageType.EVALUATE}


def question(phase, run="toy"):
    """A request of the toy federation, or of another run."""
    if phase == "introduce":
        return CoordinatorEnd(plan(run_id=run)).introduction()
    adapter = start()
    call = wire.Call(run, 1, adapter.manifest.to_json(), "bf16", nonce="n")
    packed = pack(adapter, "bf16")
    if phase == "score":
        return wire.scoring_request(call, [packed, packed], before=None)
    return wire.request(call, wire.adapter_arrays(packed))


def answered(desk, content, phase):
    """What north answers, as (status, code)."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 0
    message = Message(content, 1, ASKED[phase])
    message.metadata.__dict__["_message_id"] = "asked"
    context = Context(1, 1, {"site": "north"}, RecordDict(), {})
    config = client_app(desk)(message, context).content[wire.CONFIG]
    return config["status"], config.get("code")


@pytest.mark.parametrize("phase", ASKED)
def test_a_request_of_another_run_is_refused_before_the_site_is_made(phase):
    made = []

    def worker(name):
        made.append(name)
        return ToySite(name)

    desk = Desk(SITES, worker, run="toy")
    assert answered(desk, question(phase, run="other"), phase) == ("failed", "config")
    assert made == []
    assert answered(desk, question(phase), phase) == ("ok", None)
    assert made == ["north"]


# Signed requests


@pytest.fixture
def hub(tmp_path):
    """The coordinator's private key's file, and its public key."""
    return tmp_path / "hub.key", make_key(tmp_path / "hub.key")


def desk_of(folder, public):
    def worker(name):
        pytest.fail("a request that is not the coordinator's gets no worker")

    return Desk(SITES, worker, run="toy", coordinator=public, audit=folder)


def addressed(key, phase, *, node=1, site="north"):
    """A request to north, at node 1, as its coordinator sends it; or to another."""
    site = "" if phase == "introduce" else site
    end = CoordinatorEnd(plan(), key=key)
    return end.address(question(phase), phase=phase, node=node, site=site)


def other_phase(phase):
    return "train" if phase == "score" else "score"


HEAD = f"{'0' * 12}:1:{'1' * 64}"
FORGED = {
    "not signed": lambda key, phase: addressed(None, phase),
    "an empty signature": lambda key, phase: with_config(addressed(key, phase), signature=""),
    "a number for a signature": lambda key, phase: with_config(addressed(key, phase), signature=1),
    "another number": lambda key, phase: with_config(addressed(key, phase), nonce="other"),
    "another round": lambda key, phase: with_config(addressed(key, phase), round=2),
    "a head": lambda key, phase: with_config(addressed(key, phase), head=HEAD),
    "to another node": lambda key, phase: addressed(key, phase, node=2),
    "for another purpose": lambda key, phase: with_config(
        addressed(key, phase),
        signature=addressed(key, other_phase(phase))[wire.CONFIG]["signature"],
    ),
}  # fmt: skip


def with_config(content, **values):
    content[wire.CONFIG].update(values)
    return content


def refusals(folder):
    checked = check_log(folder / "north.audit.jsonl")
    assert checked.faults == ()
    *_, asked, told = checked.entries
    assert (asked["kind"], told["kind"]) == ("received", "sent")
    assert told["said"]["config"]["code"] == "request"
    return asked["status"], asked["reason"]


@pytest.mark.parametrize("phase", ASKED)
@pytest.mark.parametrize("name", FORGED)
def test_a_request_that_the_coordinator_did_not_sign_as_it_is_is_refused_and_logged(
    tmp_path, hub, name, phase
):
    key, public = hub
    content = FORGED[name](key, phase)
    assert answered(desk_of(tmp_path, public), content, phase) == ("failed", "request")
    status, reason = refusals(tmp_path)
    assert status == "refused"
    unsigned = ("not signed", "an empty signature", "a number for a signature")
    assert ("not signed" if name in unsigned else "signature does not fit") in reason


@pytest.mark.parametrize("phase", ["train", "score"])
def test_what_was_signed_for_another_site_or_by_another_key_or_changed_is_refused(
    tmp_path, hub, phase
):
    key, public = hub
    make_key(tmp_path / "stranger")
    changed = addressed(key, phase)
    packed = changed[wire.ARRAYS][wire.PACKED].numpy().copy()
    packed.flat[0] ^= 1
    changed[wire.ARRAYS] = wire.adapter_arrays(packed)
    for content in (
        addressed(key, phase, site="south"),
        addressed(tmp_path / "stranger", phase),
        changed,
    ):
        assert answered(desk_of(tmp_path, public), content, phase) == ("failed", "request")
        assert "signature does not fit" in refusals(tmp_path)[1]


@pytest.mark.parametrize("phase", ASKED)
def test_what_the_coordinator_signed_is_answered(hub, phase):
    key, public = hub
    desk = Desk(SITES, ToySite, run="toy", coordinator=public)
    assert answered(desk, addressed(key, phase), phase) == ("ok", None)


def test_a_site_can_show_from_its_log_what_it_was_asked(tmp_path, hub, capsys):
    key, public = hub
    keys = keys_in(tmp_path / "keys")
    signed = run_federation(
        plan(method="fed-medlora+", public_keys=keys[1]), start(), workers=sites(),
        folder=tmp_path / "run", keys=keys[0], key=key, audit=True,
    )  # fmt: skip
    plain = run_federation(
        plan(method="fed-medlora+"), start(), workers=sites(), folder=tmp_path / "plain"
    )
    assert signed.adapter.sha256 == plain.adapter.sha256
    hub_log = check_log(tmp_path / "run" / "audit.jsonl", public=public)
    for site in SITES:
        log = check_log(tmp_path / "run" / "site-logs" / f"{site}.audit.jsonl")
        assert faults_of_requests(log, public) == ()
        assert compare_ends(log, hub_log) == ()
        assert sum(entry["kind"] == "received" for entry in log.entries) == 5
        strange = faults_of_requests(log, keys[1][0][1])
        assert len(strange) == 5
        assert "signature does not fit" in strange[0]
    command = ["site", "audit", str(log_of(tmp_path, "north")), "--check", "--coordinator"]
    assert run_command([*command, str(tmp_path / "hub.key.pub")]) == 0
    assert run_command([*command, str(tmp_path / "keys" / "north.key.pub")]) == 1
    assert "a request of 'train': its signature does not fit" in capsys.readouterr().out


def test_each_value_that_a_request_is_signed_with_is_in_the_log(tmp_path, hub):
    key, public = hub
    run_federation(plan(rounds=1), start(), workers=sites(), folder=tmp_path / "run", key=key,
                   audit=True)  # fmt: skip
    log = check_log(log_of(tmp_path, "north"))
    [place] = [n for n, one in enumerate(log.entries)
               if (one["kind"], one.get("phase")) == ("received", "train")]  # fmt: skip
    for name in ("run", "round", "phase", "nonce", "node", "site", "sha256", "head"):
        entries = list(log.entries)
        entries[place] = {**entries[place], name: 9 if name in ("round", "node") else "x"}
        told = faults_of_requests(replace(log, entries=tuple(entries)), public)
        assert len(told) == 1, name


def log_of(folder, site):
    return folder / "run" / "site-logs" / f"{site}.audit.jsonl"


def test_sites_in_processes_of_their_own_take_signed_requests(tmp_path, hub):
    result = run_federation(
        plan(rounds=1, method="fed-medlora+", processes=2), start(), workers=toy_site,
        folder=tmp_path / "run", key=hub[0], audit=True,
    )  # fmt: skip
    assert {site.scoring for site in result.records[0].sites.values()} == {"ok"}


# A run that was begun anew


def kept_of(folder):
    """What north kept, by kind and round."""
    own = folder / "own" / "north"
    return sorted(str(place.relative_to(own)) for place in own.rglob("round-*"))


def test_a_run_that_was_begun_anew_does_not_go_on_from_what_a_site_kept_before(tmp_path, hub):
    key, public = hub
    desk = Desk(SITES, ToySite, own=tmp_path, run="toy", coordinator=public)
    first, again = "a" * 12, "b" * 12

    def trained(mark):
        end = CoordinatorEnd(plan(), key=key, begun=mark)
        asked = end.address(question("train"), phase="train", node=1, site="north")
        assert answered(desk, asked, "train") == ("ok", None)
        return kept_of(tmp_path)

    kinds = ("factors", "optimiser", "private", "rounding", "secure")
    for kind in kinds:
        (own_folder(tmp_path, "north", kind) / "round-0001").mkdir(parents=True)
    kept = [f"{kind}/round-0001" for kind in kinds]
    assert trained(first) == kept
    assert trained(first) == kept
    # What guards privacy is the same for every run.
    before = f"before/{first}"
    aside = [f"{before}/{kind}/round-0001" for kind in ("factors", "optimiser", "rounding")]
    assert trained(again) == [*aside, "private/round-0001", "secure/round-0001"]
    assert trained(again) == [*aside, "private/round-0001", "secure/round-0001"]
    # What could be no folder's name, and a coordinator that marks nothing, set nothing aside.
    for mark in ("../../elsewhere", "c" * 13, ""):
        assert trained(mark) == [*aside, "private/round-0001", "secure/round-0001"]
