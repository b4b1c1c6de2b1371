"""Every file of a round is covered by a hash: a damaged last round is set aside, and made again."""

import json
import subprocess

import pytest
from federation_toy import plan, sites, start
from hostile import keys_in

from fedmedlora.errors import AdapterError, RunError
from fedmedlora.federation.run import run_federation
from fedmedlora.federation.sums import check_sums, write_sums


def run(folder, keys=({}, ()), *, resume=False, told=None, **changes):
    return run_federation(
        plan(**{"keep_replies": True, "public_keys": keys[1], "method": "fedex-lora", **changes}),
        start(), workers=sites(), folder=folder, keys=keys[0], resume=resume,
        on_event=None if told is None else lambda kind, **facts: told.append((kind, facts)),
    )  # fmt: skip


def test_a_flipped_bit_in_any_file_of_the_last_round_costs_that_round_alone(tmp_path):
    keys = keys_in(tmp_path / "keys")
    folder = tmp_path / "run"
    whole = run(folder, keys, rounds=2)
    last = folder / "round-0002"
    names = sorted(path.relative_to(last) for path in last.rglob("*") if path.is_file())
    assert {path.name for path in names} == {
        "round.json", "contributions.json", "server.safetensors", "SHA256SUMS", "packed.npy",
        "introduce.json", "train.json", "adapter_model.safetensors", "adapter_config.json",
        "fedmedlora.json", "sketches.json",
    }  # fmt: skip
    for turn, name in enumerate(names):
        data = bytearray((last / name).read_bytes())
        data[(0, len(data) // 2, -1)[turn % 3]] ^= 1 << turn % 8
        (last / name).write_bytes(bytes(data))
        told = []
        again = run(folder, keys, rounds=2, resume=True, told=told)
        assert told[0] == ("set-aside", {"rounds": ("round-0002.broken",)}), name
        assert again.adapter.sha256 == whole.adapter.sha256
        assert [record.round for record in again.records] == [1, 2]


@pytest.mark.parametrize("fault", ["gone", "added", "no sums"])
def test_a_round_with_a_file_too_few_or_too_many_is_set_aside(tmp_path, fault):
    run(tmp_path, rounds=2)
    last = tmp_path / "round-0002"
    if fault == "added":
        (last / "more.txt").write_text("")
    else:
        (last / {"gone": "contributions.json", "no sums": "SHA256SUMS"}[fault]).unlink()
    told = []
    run(tmp_path, rounds=2, resume=True, told=told)
    assert told[0] == ("set-aside", {"rounds": ("round-0002.broken",)})


def test_a_round_of_another_run_is_not_taken_for_the_next_one(tmp_path):
    """Whole by itself; but it was made after another first round."""
    run(tmp_path / "1", rounds=2)
    run(tmp_path / "2", rounds=1)
    (tmp_path / "1" / "round-0002").rename(tmp_path / "2" / "round-0002")
    told = []
    run(tmp_path / "2", rounds=2, resume=True, told=told)
    assert told[0] == ("set-aside", {"rounds": ("round-0002.broken",)})


def test_the_hashes_are_those_that_sha256sum_checks(tmp_path):
    run(tmp_path, rounds=1)
    place = tmp_path / "round-0001"
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=place, check=True)
    check_sums(place)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace("  a", " a"), "broken"),
        (lambda text: text[:-1], "broken"),
        (lambda text: text * 2, "broken"),
        (lambda text: text.replace("b/c", "b/d"), "d is missing|c was added"),
        (lambda text: "", "was added"),
    ],
)
def test_hashes_that_are_not_of_these_files_are_refused(tmp_path, change, told):
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_text("1")
    (tmp_path / "b" / "c").write_text("2")
    write_sums(tmp_path)
    check_sums(tmp_path)
    file = tmp_path / "SHA256SUMS"
    file.write_text(change(file.read_text()))
    with pytest.raises(AdapterError, match=told):
        check_sums(tmp_path)


def test_a_run_of_the_release_before_goes_on(tmp_path):
    """Its rounds have no hashes of all files, its plan fewer settings."""
    whole = run(tmp_path / "whole", rounds=3, keep_replies=False)
    run(tmp_path / "old", rounds=2, keep_replies=False)
    for number in (1, 2):
        for name in ("SHA256SUMS", "contributions.json"):
            (tmp_path / "old" / f"round-000{number}" / name).unlink()
    file = tmp_path / "old" / "federation.json"
    content = json.loads(file.read_text())
    del content["format"], content["plan"]["public_keys"], content["plan"]["keep_replies"]
    file.write_text(json.dumps(content))
    told = []
    again = run(tmp_path / "old", rounds=3, keep_replies=False, resume=True, told=told)
    assert "set-aside" not in [kind for kind, _ in told]
    assert again.adapter.sha256 == whole.adapter.sha256
    again = run(tmp_path / "old", rounds=4, keep_replies=False, resume=True, told=told)
    assert "set-aside" not in [kind for kind, _ in told]


def test_other_keys_are_another_plan(tmp_path):
    run(tmp_path / "run", keys_in(tmp_path / "keys"), rounds=1)
    with pytest.raises(RunError, match="public_keys"):
        run(tmp_path / "run", keys_in(tmp_path / "others"), rounds=2, resume=True)


def test_a_folder_of_a_later_release_is_not_resumed(tmp_path):
    run(tmp_path, rounds=1)
    file = tmp_path / "federation.json"
    file.write_text(file.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(RunError, match="format 3: another release"):
        run(tmp_path, rounds=2, resume=True)
