"""A round's record says of a site what the site stated; each value changed alone is named."""

import json
import shutil

import pytest
from federation_toy import Raising, sites, start
from hostile import keys_in
from tampering import changed, edit, faults_of, run

from fedmedlora.canonical import canonical, sha256
from fedmedlora.errors import RunError
from fedmedlora.federation.delivered import verify_delivered
from fedmedlora.federation.kept import read_seen
from fedmedlora.federation.verify import verify_federation


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two rounds, signed; south fails in the second."""
    folder = tmp_path_factory.mktemp("run")
    workers = sites(south=Raising("south", round=2, error=MemoryError))
    run(
        folder / "signed", keys_in(folder / "keys"), workers=workers, method="fed-medlora+",
        min_sites=2,
    )  # fmt: skip
    workers = sites(south=Raising("south", round=2, error=MemoryError))
    run(folder / "unsigned", workers=workers, method="fed-medlora+", min_sites=2)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of a run, ``copy("signed")`` or ``copy("unsigned")``."""
    return lambda name: shutil.copytree(whole / name, tmp_path / name)


def recorded(site, **values):
    return edit("round.json", lambda content: content["sites"][site].update(values))


def counted(content):
    content["sites"]["west"]["counts"]["rows_cut"] = 4


def test_what_was_not_changed_is_the_same(copy):
    assert faults_of(copy("signed")) == []
    assert faults_of(copy("unsigned")) == []


VALUES = {
    "examples": (recorded("west", examples=51), "west: its record has other examples than"),
    "tokens": (recorded("west", tokens=499), "west: its record has other tokens than it stated"),
    "a first loss": (recorded("west", loss_first=0.9), "west: its record has other loss_first"),
    "a last loss": (recorded("west", loss_last=None), "west: its record has other loss_last"),
    "seconds": (recorded("west", seconds=0.5), "west: its record has other seconds than"),
    "a count": (edit("round.json", counted), "west: its record has other counts than it stated"),
    "no counts": (recorded("west", counts={}), "west: its record has other counts"),
    "declared sizes": (
        recorded("west", declared={"examples": 50, "tokens": 501}),
        "west: its record has other declared sizes than it stated",
    ),
    "no declared sizes": (recorded("west", declared={}), "west: its record has other declared"),
    "a validation loss": (
        recorded("west", validation_loss=0.1),
        "west: its record has another validation loss than its contribution",
    ),
    "who scored": (
        recorded("west", scoring="refused: it lacks the record 'metrics'"),
        "west: its record says of its scoring \"refused: it lacks the record 'metrics'\"",
    ),
    "who counts": (recorded("west", status="absent"), "its record counts other sites"),
    "a site gone": (
        edit("round.json", lambda content: content["sites"].pop("west")),
        "its record has other sites than the plan",
    ),
    "the round": (
        edit("round.json", lambda content: content.update(round=2)),
        "its record is of another round or method",
    ),
    "the method": (
        edit("round.json", lambda content: content.update(method="fed-medlora")),
        "its record is of another round or method",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", VALUES)
def test_a_value_of_the_record_that_was_changed_is_named(copy, what):
    change, told = VALUES[what]
    folder = copy("signed")
    changed(folder, 1, change)
    assert any(fault.startswith(told) for fault in faults_of(folder)), faults_of(folder)


@pytest.mark.parametrize(
    ("fate", "told"),
    [
        ({"status": "absent", "reason": "no answer"}, "it stated that it had failed, and its"),
        ({"reason": "data (incident 0 in the site's own log)"}, "it stated that it had failed"),
        ({"status": "refused"}, "it stated that it had failed, and its record says otherwise"),
    ],
)
def test_another_fate_than_the_failure_that_a_site_stated_is_named(copy, fate, told):
    folder = copy("signed")
    changed(folder, 2, recorded("south", **fate))
    assert any(fault.startswith(f"south: {told}") for fault in faults_of(folder))


def restated(site, name, kind, change):
    """Another statement, and its hash in the contributions: what only a signature would tell."""

    def apply(place):
        file = place / "replies" / site / name
        content = json.loads(file.read_bytes())
        change(content)
        file.write_bytes(canonical(content))
        told = json.loads((place / "contributions.json").read_bytes())
        for one in told[kind]:
            signed = one.get("signed", one)
            if signed["site"] == site:
                signed["statement"] = sha256(file.read_bytes())
        (place / "contributions.json").write_text(json.dumps(told))

    return apply


def config(**values):
    return lambda content: content["config"].update(values)


def fewer(content):
    content["numbers"]["metrics"]["tokens"] = 499


STATED = {
    "a manifest": (
        restated("west", "train.json", "contributions", config(manifest="sha256 0")),
        "west: it stated another manifest than it was asked for",
    ),
    "a status": (
        restated("west", "train.json", "contributions", config(status="failed")),
        "west: it counts, and stated that it had failed",
    ),
    "tokens": (
        restated("west", "train.json", "contributions", fewer),
        "west: its contribution has other tokens than it stated",
    ),
    "declared sizes": (
        restated("west", "introduce.json", "declared", fewer),
        "west: it counts more than it declared",
    ),
    "the run of an introduction": (
        restated("west", "introduce.json", "declared", config(run="other")),
        "west: introduce.json is of another run, round, site or phase",
    ),
}


@pytest.mark.parametrize("what", STATED)
def test_a_statement_that_was_changed_is_named_with_and_without_signatures(copy, what):
    change, told = STATED[what]
    for name in ("signed", "unsigned"):
        folder = copy(name)
        changed(folder, 1, change)
        faults = faults_of(folder)
        assert told in faults
        assert any("signature does not fit" in fault for fault in faults) == (name == "signed")


# Sites that are left out


def left_out(content):
    content["contributions"] = [
        one for one in content["contributions"] if one["signed"]["site"] != "west"
    ]


def test_a_site_that_answered_and_does_not_appear_is_named(copy):
    folder = copy("signed")
    changed(folder, 1, edit("contributions.json", left_out))
    changed(folder, 1, recorded("west", status="absent", reason="no answer", weight=0.0))
    told = "replies/west/train.json is there, and its site is not named for it"
    assert told in faults_of(folder)


def test_a_site_that_answered_and_is_said_to_be_absent_is_named(copy):
    def turned(content):
        signed = [o["signed"] for o in content["contributions"] if o["signed"]["site"] == "west"]
        content["turned"]["train"] = signed
        left_out(content)

    folder = copy("signed")
    changed(folder, 1, edit("contributions.json", turned))
    changed(folder, 1, recorded("west", status="absent", reason="no answer", weight=0.0))
    told = "west: it answered (train.json), and its record says 'absent: no answer'"
    assert told in faults_of(folder)


def test_a_site_that_is_left_out_with_all_that_it_sent_is_named_by_who_scored_it(copy):
    def gone(content):
        left_out(content)
        content["candidates"].remove("west")
        content["scorers"] = [one for one in content["scorers"] if one["site"] != "west"]
        content["declared"] = [one for one in content["declared"] if one["site"] != "west"]

    folder = copy("signed")
    changed(folder, 1, edit("contributions.json", gone))
    nothing = {"weight": 0.0, "declared": {}, "scoring": None, "validation_loss": None}
    changed(folder, 1, recorded("west", status="absent", reason="not connected", **nothing))
    changed(folder, 1, lambda place: shutil.rmtree(place / "replies" / "west"))
    assert "north: its losses are not of the candidates north, south" in faults_of(folder)


def written(name, text):
    return lambda place: (place / name).write_text(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"round": 1, "method": "m", "sites": []}', "{}"])
@pytest.mark.parametrize("name", ["round.json", "replies/west/train.json"])
def test_a_file_that_holds_something_else_is_a_fault_of_its_round(copy, name, text):
    folder = copy("signed")
    changed(folder, 1, written(name, text))
    first, second = verify_federation(folder)
    if name == "round.json":
        assert first.faults == (f"{folder / 'round-0001' / name} cannot be read",)
    else:
        assert first.faults[0] == "west: train.json is not the statement of its reply"
        assert second.faults == ()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"round": 2, "method": "m", "sites": []}'])
def test_a_record_that_holds_something_else_is_set_aside_and_its_round_made_again(copy, text):
    folder = copy("unsigned")
    changed(folder, 2, written("round.json", text))
    [_, again] = run(folder, resume=True, method="fed-medlora+", min_sites=2).records
    assert again.sites["south"].status == "ok"
    assert (folder / "round-0002.broken").is_dir()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"round": 2, "method": "m", "sites": []}'])
def test_a_delivered_adapter_is_held_against_no_round_that_cannot_be_read(copy, tmp_path, text):
    folder = tmp_path / "whole" / "federation" / "fed-medlora+"
    shutil.copytree(copy("unsigned"), folder)
    shutil.copytree(folder / "round-0002" / "adapter", tmp_path / "whole/adapters/fed-medlora+")
    assert verify_delivered(folder).faults == ()
    changed(folder, 2, written("round.json", text))
    assert verify_delivered(folder).faults == ("round-0002, which it should be of, cannot be read",)


def test_what_was_seen_of_a_round_that_is_not_there_is_an_error_of_the_run(copy):
    folder = copy("unsigned")
    assert set(read_seen(folder, 1, initial=start()).replies) == {"north", "south", "west"}
    with pytest.raises(RunError, match=r"round\.json cannot be read"):
        read_seen(folder, 3, initial=start())
    (folder / "round-0001" / "replies" / "west" / "packed.npy").write_bytes(b"something else")
    with pytest.raises(RunError, match=r"packed\.npy cannot be read"):
        read_seen(folder, 1, initial=start())
