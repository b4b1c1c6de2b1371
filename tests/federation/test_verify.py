"""`verify` makes every round again from its replies: the same bits, or what differs by name."""

import json

import pytest
from federation_toy import SITES, B, Raising, plan, sites, start
from hostile import keys_in
from tampering import changed, edit, exchanged, faults_of, run
from test_methods import PartSite

from fedmedlora.aggregation.methods import METHODS
from fedmedlora.aggregation.server_optimiser import ServerOptions
from fedmedlora.cli import run_command
from fedmedlora.errors import FederationError, RunError
from fedmedlora.federation.run import run_federation
from fedmedlora.federation.verify import federations_in, verify_federation
from fedmedlora.model.adapter_files import read_adapter, save_adapter


@pytest.mark.parametrize("wire", ["fp32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_made_again_bit_for_bit(tmp_path, method, wire):
    step = {} if METHODS[method].combine is not METHODS["fed-medlora"].combine else {
        "server": ServerOptions(momentum=0.5)
    }  # fmt: skip
    result = run(tmp_path, method=method, wire=wire, rounds=3, **step)
    verdicts = verify_federation(tmp_path)
    assert [verdict.faults for verdict in verdicts] == [(), (), ()]
    assert [verdict.made for verdict in verdicts] == [r.adapter_sha256 for r in result.records]
    assert all(verdict.same for verdict in verdicts)
    assert verdicts[0].sites == SITES


def test_sites_of_ranks_of_their_own_are_made_again(tmp_path):
    ranks = (("north", 1, 4.0), ("west", 1, 2.0))
    run(tmp_path, method="flexlora", ranks=ranks)
    assert faults_of(tmp_path) == []


@pytest.mark.parametrize("method", ["fed-medlora", "fed-medlora+", "fedex-lora", "flexlora"])
def test_a_killed_and_resumed_run_is_the_same_with_signatures(tmp_path, method):
    keys = keys_in(tmp_path / "keys")
    failing = {**{name: PartSite(name) for name in SITES}, "south": Raising("south", round=3)}
    with pytest.raises(FederationError):
        run(tmp_path / "run", keys, workers=failing, method=method, rounds=4, wire="int8")
    run(tmp_path / "run", keys, resume=True, method=method, rounds=4, wire="int8")
    verdicts = verify_federation(tmp_path / "run")
    assert [(verdict.same, verdict.signed) for verdict in verdicts] == [(True, 3)] * 4


def test_a_round_without_one_site_is_the_same(tmp_path):
    workers = {**{name: PartSite(name) for name in SITES}, "south": Raising("south", round=2)}
    run(tmp_path, workers=workers, min_sites=2, method="fed-medlora+")
    assert faults_of(tmp_path) == []
    assert [verdict.sites for verdict in verify_federation(tmp_path)][1] == ("north", "west")


def test_validation_at_the_server_is_taken_as_noted(tmp_path):
    run_federation(
        plan(method="fed-medlora+", validation="server", keep_replies=True), start(),
        workers=sites(), folder=tmp_path,
        server_losses=lambda adapters: [0.1 * (n + 1) for n, _ in enumerate(adapters)],
    )  # fmt: skip
    assert faults_of(tmp_path) == []


# What is found. Hashes are made anew after each change: they alone would tell.


def another_value(place):
    file = place / "replies" / "south" / "packed.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 2
    file.write_bytes(bytes(data))


def another_adapter(place):
    adapter = read_adapter(place / "adapter")
    adapter.tensors[B][0, 0] += 1
    save_adapter(adapter, place / "adapter", base_model="")
    edit("round.json", lambda c: c.update(adapter_sha256=adapter.sha256))(place)


def weight(content):
    content["contributions"][0]["weight"] = 0.5
    content["contributions"][2]["weight"] = 0.25


def dropped(content):
    del content["contributions"][1]


def resigned(content):
    content["contributions"][0]["signed"]["signature"] = "0" * 128


def own_key(content):
    content["contributions"][0]["signed"]["public_key"] = "0" * 64


CHANGES = {
    "a reply": (another_value, "south: packed.npy is not the adapter that it stated"),
    "the adapter": (another_adapter, "another adapter: 1 of 2 tensors differ, by at most 1"),
    "a weight": (edit("contributions.json", weight), "north: the weight is 0.125, not 0.5"),
    "a recorded weight": (
        edit("round.json", lambda c: c["sites"]["north"].update(weight=0.5)), "north: the weight is"
    ),
    "who contributed": (edit("contributions.json", dropped), "counts other sites"),
    "a signature": (edit("contributions.json", resigned), "north: its signature does not fit"),
    "a key": (edit("contributions.json", own_key), "another key than the plan's"),
    "a nonce": (edit("contributions.json", lambda c: c.update(nonce="0")), "another request"),
    "a run": (edit("contributions.json", lambda c: c.update(run="x")), "another run"),
    "whose reply it is": (exchanged("north", "west"), "north: train.json is of another run, round"),
    "a statement": (
        edit("replies/west/train.json", lambda c: c["numbers"]["metrics"].update(tokens=501)),
        "west: train.json is not the statement of its reply",
    ),
    "recorded tokens": (
        edit("round.json", lambda c: c["sites"]["west"].update(tokens=501)),
        "west: its record has other tokens than it stated",
    ),
    "a reply gone": (lambda place: (place / "replies/west/packed.npy").unlink(), "No such file"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_changed_is_named_and_the_other_rounds_are_the_same(tmp_path, what):
    change, told = CHANGES[what]
    folder = tmp_path / "run"
    run(folder, keys_in(tmp_path / "keys"), rounds=3, wire="fp32")
    changed(folder, 3, change)
    first, second, third = verify_federation(folder)
    assert first.same
    assert second.same
    assert not third.same
    assert any(told in fault for fault in third.faults), third.faults


def test_a_change_that_no_hash_tells_is_found_in_the_middle_too(tmp_path):
    run(tmp_path, rounds=3, wire="fp32")
    changed(tmp_path, 2, another_adapter)
    assert [verdict.same for verdict in verify_federation(tmp_path)] == [True, False, False]


def test_losses_are_those_that_the_sites_stated(tmp_path):
    run(tmp_path, method="fed-medlora+", rounds=1)

    def better(content):
        content["contributions"][0]["validation_loss"] -= 0.5

    changed(tmp_path, 1, edit("contributions.json", better))
    assert "the validation losses are not those that the sites stated" in faults_of(tmp_path)


def test_a_flipped_bit_of_any_file_is_found(tmp_path):
    run(tmp_path, keys_in(tmp_path / "keys"), rounds=1, method="fedex-lora")
    files = [path for path in (tmp_path / "round-0001").rglob("*") if path.is_file()]
    assert len(files) == 17
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert not verify_federation(tmp_path)[0].same, path
        path.write_bytes(whole)
    assert verify_federation(tmp_path)[0].same


def test_a_run_whose_replies_were_not_kept_cannot_be_verified_and_says_so(tmp_path):
    run(tmp_path / "none", keep_replies=False)
    with pytest.raises(RunError, match="keep_replies"):
        verify_federation(tmp_path / "none")
    run(tmp_path / "late", keep_replies=False, rounds=1)
    run(tmp_path / "late", rounds=2, resume=True)
    first, second = verify_federation(tmp_path / "late")
    assert first.faults == ("its replies were not kept (federation.keep_replies)",)
    assert second.same


def test_another_initial_adapter_is_named(tmp_path):
    run(tmp_path)
    save_adapter(start(1.0), tmp_path / "initial", base_model="")
    with pytest.raises(RunError, match="initial adapter is not the one"):
        verify_federation(tmp_path)


def test_a_folder_without_rounds_or_with_a_broken_plan_is_named(tmp_path):
    with pytest.raises(RunError, match="cannot be read"):
        verify_federation(tmp_path)
    run(tmp_path, rounds=1)
    content = json.loads((tmp_path / "federation.json").read_text())
    (tmp_path / "federation.json").write_text(json.dumps({**content, "format": 3}))
    with pytest.raises(RunError, match="another release"):
        verify_federation(tmp_path)
    content["plan"]["sites"] = 7
    (tmp_path / "federation.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="no plan of this release"):
        verify_federation(tmp_path)


def test_the_command_says_same_or_not_by_its_exit_code(tmp_path, capsys):
    folder = tmp_path / "federation" / "fed-medlora"
    run(folder, rounds=2)
    assert federations_in(tmp_path) == [folder]
    assert run_command(["verify", str(tmp_path)]) == 0
    assert "\nsame, UNSIGNED: " in capsys.readouterr().out
    changed(folder, 2, another_adapter)
    assert run_command(["verify", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "round 2: another adapter" in told
    assert told.endswith("NOT THE SAME\n")
    assert run_command(["verify", str(tmp_path), "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert [one["same"] for one in content["federations"][str(folder)]] == [True, False]
    assert run_command(["verify", str(tmp_path / "nothing")]) == 2


def test_whose_work_a_round_is_stands_in_it_without_kept_replies_too(tmp_path):
    private, public = keys = keys_in(tmp_path / "keys")
    run(tmp_path / "run", keys, keep_replies=False, rounds=1)
    content = json.loads((tmp_path / "run/round-0001/contributions.json").read_text())
    told = {one["signed"]["site"]: one for one in content["contributions"]}
    assert {site: one["weight"] for site, one in told.items()} == (
        {"north": 0.125, "south": 0.25, "west": 0.625}
    )
    assert {(site, one["signed"]["public_key"]) for site, one in told.items()} == set(public)
    assert not (tmp_path / "run/round-0001/replies").exists()
    assert private.keys() == told.keys()


def test_kept_replies_change_nothing_of_the_result(tmp_path):
    kept = run(tmp_path / "1", method="fedex-lora")
    plain = run(tmp_path / "2", method="fedex-lora", keep_replies=False)
    assert kept.adapter.sha256 == plain.adapter.sha256


@pytest.mark.parametrize("spoilt", ["config", "numbers", "arrays"])
def test_a_kept_statement_without_a_part_is_named_and_does_not_end_the_command(tmp_path, spoilt):
    run(tmp_path, rounds=1)
    [site, *_] = SITES
    name = f"replies/{site}/train.json"
    changed(tmp_path, 1, edit(name, lambda content: content.update({spoilt: None})))
    assert f"{site}: train.json is not the statement of its reply" in faults_of(tmp_path)
