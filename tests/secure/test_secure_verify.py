"""Masked rounds made again from what was kept of them, and what is found where something is not."""

import json
import shutil

import numpy as np
import pytest
from rounds_toys import NAMES, Trainee, keys_in, masked_plan, run_masked, start
from typer.testing import CliRunner

from fedmedlora.cli import app
from fedmedlora.errors import RunError
from fedmedlora.federation import checkpoints
from fedmedlora.federation.contributions import UNMASKING_FILE, Contributions
from fedmedlora.federation.kept import read_seen
from fedmedlora.federation.secure.keys import agreed_key, derived_key
from fedmedlora.federation.secure.masks import take_mask
from fedmedlora.federation.secure.options import SecureOptions
from fedmedlora.federation.secure.roster import Attempt
from fedmedlora.federation.secure.unmasking import Unmasking
from fedmedlora.federation.sums import write_sums
from fedmedlora.federation.verify import verify_federation


class Silent(Trainee):
    """Cannot train in the second round."""

    def train(self, adapter, order):
        if order.round == 2:
            raise OSError("gone")
        return super().train(adapter, order)


FEW = {"secure": SecureOptions(3), "min_sites": 3, "keep_replies": True}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A federation of four sites, of which one sends no row in the second of two rounds."""
    folder = tmp_path_factory.mktemp("kept")
    workers = {name: Trainee(name) for name in NAMES[:3]} | {"dogwood": Silent("dogwood")}
    run_masked(folder, 4, workers=workers, **FEW)
    return folder / "run"


@pytest.fixture
def run(kept, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(kept, tmp_path / "run")


def faults(run):
    return [fault for verdict in verify_federation(run) for fault in verdict.faults]


@pytest.mark.parametrize(
    "method", ["fed-medlora", "fed-medlora+", "ffa-lora", "rolora", "fedsvd", "fedavgm"]
)
def test_masked_rounds_are_made_again(tmp_path, method):
    recuts = {"refactor_every": 1} if method == "fedsvd" else {}
    run_masked(tmp_path, 3, method=method, keep_replies=True, **recuts)
    verdicts = verify_federation(tmp_path / "run")
    assert [verdict.faults for verdict in verdicts] == [(), ()]
    assert all(verdict.same for verdict in verdicts)
    assert [verdict.signed for verdict in verdicts] == [3, 3]


def test_a_round_that_a_site_left_after_sharing_keys_is_made_again(kept):
    first, second = verify_federation(kept)
    assert first.same
    assert second.same
    assert (first.sites, second.sites) == (NAMES[:4], NAMES[:3])
    told = json.loads((kept / "round-0002" / UNMASKING_FILE).read_text())
    assert (list(told["seeds"]), list(told["masks"])) == (list(NAMES[:3]), ["dogwood"])


def test_the_command_says_that_masked_rounds_are_the_same(kept):
    told = CliRunner().invoke(app, ["verify", str(kept)])
    assert told.exit_code == 0
    assert "same, signed" in told.output


def test_where_nothing_was_kept_verify_says_what_is_missing(tmp_path):
    run_masked(tmp_path, 3, rounds=1)
    assert not (tmp_path / "run/round-0001" / UNMASKING_FILE).exists()
    with pytest.raises(RunError, match=r"can be verified, with federation\.keep_replies"):
        verify_federation(tmp_path / "run")


def change(run, number, **changes):
    """Change what unmasks a round, with hashes to match: who keeps the folder can do that."""
    place = run / checkpoints.round_name(number) / UNMASKING_FILE
    content = json.loads(place.read_text())
    place.write_text(json.dumps({**content, **{k: f(content[k]) for k, f in changes.items()}}))
    write_sums(place.parent)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": lambda old: {**old, "ash": "00" * 32}}, "'ash' give another seed"),
        ({"masks": lambda old: {"dogwood": "11" * 32}}, "'dogwood' give another key"),
        ({"masks": lambda old: {"dogwood": "11"}}, "'dogwood' give another key"),
        ({"seeds": lambda old: list(old)}, "cannot be read"),
        ({"seeds": lambda old: {**old, "ash": 7}}, "cannot be read"),
        ({"roster": lambda old: "ash"}, "cannot be read"),
        ({"masks": lambda old: {}}, "of other sites than the list of survivors"),
        (
            {"signatures": lambda old: old[:2]},
            "2 sites have signed the list of survivors, 3 are needed",
        ),
        ({"asked": lambda old: "b" * 64}, "signed another list"),
        ({"survivors": lambda old: old[:2]}, "2 sites are left"),
        ({"shared": lambda old: old[:3]}, "signed another list"),
        ({"roster": lambda old: [{**old[0], "seed": old[1]["seed"]}, *old[1:]]}, "not signed"),
    ],
)
def test_what_the_sites_did_not_sign_or_commit_to_is_found(run, changes, told):
    change(run, 2, **changes)
    first, second = verify_federation(run)
    assert first.same
    assert not second.same
    assert any(told in fault for fault in second.faults)


def test_a_row_that_its_site_did_not_sign_is_found(run):
    path = run / "round-0002" / "replies" / "ash" / "packed.npy"
    row = np.load(path)
    row[1] += np.uint64(1 << 55)
    np.save(path, row)
    write_sums(path.parents[2])
    assert any("ash: packed.npy is not the row that it stated" in one for one in faults(run))


def test_an_adapter_that_is_not_that_of_the_sum_is_found(run):
    # Another step of the server: the sum is the same.
    plan = run / "federation.json"
    content = json.loads(plan.read_text())
    content["plan"]["server"]["learning_rate"] = 0.5
    plan.write_text(json.dumps(content))
    assert any("another adapter" in one for one in faults(run))


def test_a_weight_that_is_not_that_of_the_sum_is_found(run):
    place = run / "round-0001" / "round.json"
    record = json.loads(place.read_text())
    record["secure"]["weight"] += 1
    place.write_text(json.dumps(record))
    write_sums(place.parent)
    assert any("its record says otherwise" in one for one in faults(run))


def test_sites_that_trained_another_model_than_the_round_before_left_are_found(run):
    shutil.rmtree(run / "initial")
    other = checkpoints.read_adapter(run / "round-0001" / "adapter")
    checkpoints.save_adapter(other, run / "initial", base_model="")
    content = json.loads((run / "federation.json").read_text())
    content["initial_sha256"] = other.sha256
    (run / "federation.json").write_text(json.dumps(content))
    assert any("asked to train something else" in one for one in faults(run))


def test_what_is_kept_unmasks_no_single_row(tmp_path):
    class Still(Trainee):
        def train(self, adapter, order):
            update = super().train(adapter, order)
            update.adapter.tensors.update({n: t.copy() for n, t in adapter.tensors.items()})
            return update

    made = {name: Trainee(name) for name in NAMES[:4]}
    made |= {"ash": Still("ash"), "dogwood": Silent("dogwood")}
    _, public = keys = keys_in(tmp_path / "keys", 4)
    run_masked(tmp_path, 4, workers=made, keys=keys, **FEW)
    terms = masked_plan(4, public, **FEW).terms
    place = tmp_path / "run" / "round-0002"
    attempt = Attempt("toy", 2, Contributions.read(place).nonce)
    unmasking = Unmasking.from_json((place / UNMASKING_FILE).read_bytes(), terms, attempt)
    told, roster = unmasking.survivors, unmasking.survivors.roster
    row = np.load(place / "replies" / "ash" / "packed.npy")
    take_mask(row, derived_key(unmasking.seeds["ash"], roster.own("ash")))
    about = roster.pair("ash", "dogwood", told.asked)
    public = bytes.fromhex(roster.of("ash").mask)
    take_mask(row, agreed_key(unmasking.masks["dogwood"], public, about))
    # What is left are the masks with the other survivors: the update was zero.
    assert np.all(row[1:] != 0)
    assert set(unmasking.masks) == {"dogwood"}


def test_masked_rows_are_not_taken_for_adapters(kept):
    seen = read_seen(kept, 1, initial=start())
    assert seen.replies == {}
    assert seen.after.sha256 != seen.before.sha256
