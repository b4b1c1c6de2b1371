"""The audit log: whole after a kill at any byte, and whatever is done to it afterwards shows."""

import json
import random
import shutil
import subprocess
import sys
import time

import pytest

from fedmedlora import chain
from fedmedlora.canonical import canonical, sha256
from fedmedlora.cli import run_command
from fedmedlora.errors import MisnamedError, RunError
from fedmedlora.federation.audit import AuditLog, Head, head_file
from fedmedlora.federation.audit_check import check_log, compare_ends
from fedmedlora.federation.signing import make_key

ROUNDS = 5


def site_log(folder, key=None):
    return AuditLog(folder / "north.jsonl", owner="north", role="site", key=key)


def written(folder, *, key=None, rounds=ROUNDS):
    """The logs of both ends after some rounds between a coordinator and the site north."""
    site = site_log(folder, key)
    coordinator = AuditLog(folder / "coordinator.jsonl", owner="hub", role="coordinator")
    for number in range(1, rounds + 1):
        facts = {"run": "study", "round": number, "phase": "train"}
        theirs = str(coordinator.head())
        coordinator.append("sent", site="north", bytes=50, sha256=f"request {number}", **facts)
        site.append("received", bytes=50, sha256=f"request {number}", head=theirs, **facts)
        ours = str(site.head())
        said = {"config": {"status": "ok"}, "numbers": {"counts": {"steps": number}}}
        site.append("sent", bytes=70, sha256=f"reply {number}", said=said, **facts)
        coordinator.append(
            "received", site="north", bytes=70, sha256=f"reply {number}", head=ours, **facts
        )
    return site.path, coordinator.path


def test_a_log_as_it_was_written_has_no_faults(tmp_path):
    site, coordinator = written(tmp_path)
    checked = check_log(site)
    assert checked.faults == ()
    assert [entry["kind"] for entry in checked.entries] == ["begun", *["received", "sent"] * ROUNDS]
    assert [entry["n"] for entry in checked.entries] == list(range(1, 2 * ROUNDS + 2))
    assert checked.owner == "north"
    assert compare_ends(checked, check_log(coordinator)) == ()


def test_a_log_goes_on_where_another_process_left_it(tmp_path):
    first = site_log(tmp_path).append("sent", bytes=1)
    second = site_log(tmp_path).append("sent", bytes=2)
    assert (first.log, first.entries, second.entries) == (second.log, 2, 3)
    assert check_log(tmp_path / "north.jsonl").faults == ()


def edited(lines, rng):
    place = rng.randrange(len(lines))
    line = bytearray(lines[place])
    line[rng.randrange(len(line))] ^= 1 << rng.randrange(7)
    return [*lines[:place], bytes(line), *lines[place + 1 :]]


def deleted(lines, rng):
    place = rng.randrange(len(lines))
    return lines[:place] + lines[place + 1 :]


def swapped(lines, rng):
    one, two = sorted(rng.sample(range(len(lines)), 2))
    lines = list(lines)
    lines[one], lines[two] = lines[two], lines[one]
    return lines


def truncated(lines, rng):
    return lines[: rng.randrange(len(lines))]


def inserted(lines, rng):
    place = rng.randrange(len(lines) + 1)
    before = sha256(lines[place - 1]) if place else ""
    forged = canonical({"n": place + 1, "before": before, "time": "now", "kind": "sent"})
    return [*lines[:place], forged, *lines[place:]]


def duplicated(lines, rng):
    place = rng.randrange(len(lines))
    return [*lines[: place + 1], *lines[place:]]


def cut_in_a_line(lines, rng):
    """Bytes of the end are gone, the end of a line among them."""
    data = b"\n".join(lines)
    return data[: rng.randrange(1, len(data))].split(b"\n")


TAMPER = [edited, deleted, swapped, truncated, inserted, duplicated, cut_in_a_line]


def rewritten(lines):
    """The same entries, numbered and linked anew: a chain that is whole."""
    made = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        entry = {**entry, "n": len(made) + 1, "before": sha256(made[-1]) if made else ""}
        made.append(canonical(entry))
    return made


def headed(lines):
    """The head file that would fit."""
    content = {
        "log": sha256(lines[0])[:12], "entries": len(lines), "sha256": sha256(lines[-1]),
        "size": sum(len(line) + 1 for line in lines), "last": lines[-1].decode(), "signature": "",
    }  # fmt: skip
    return canonical(content)


def found(path, other):
    """Whether a log, or what the other end has of it, tells that it was changed."""
    checked = check_log(path)
    try:
        return bool(checked.faults or compare_ends(checked, check_log(other)))
    except RunError:  # it does not say any more that it is a site's
        return True


def test_two_hundred_tampered_copies_are_all_found(tmp_path):
    path, other = written(tmp_path)
    lines, head = path.read_bytes().split(b"\n")[:-1], head_file(path).read_bytes()
    assert headed(lines) == head  # what tampers with both knows how
    rng = random.Random(7)
    copy, missed = tmp_path / "copy.jsonl", []
    for number in range(200):
        tamper = TAMPER[number % len(TAMPER)]
        if number % 2:  # with its head file as it was, or an older one
            changed = tamper(lines, rng)
            older = headed(lines[: rng.randrange(1, len(lines))])
            heads = [head] if tamper in (truncated, cut_in_a_line) else [head, older]
        else:  # linked anew, with a head file that fits
            changed = lines
            while changed == lines:  # a changed number or link is what linking anew mends
                changed = rewritten([*tamper(lines[:-2], rng), *lines[-2:]])
            heads = [headed(changed)]
        copy.write_bytes(b"".join(line + b"\n" for line in changed))
        head_file(copy).write_bytes(rng.choice(heads))
        if not (check_log(copy).faults if number % 2 else found(copy, other)):
            missed.append((number, tamper.__name__))
    assert missed == []


def test_a_log_cut_at_any_byte_is_found(tmp_path):
    path, _ = written(tmp_path, rounds=1)
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        assert check_log(path).faults, size


def test_a_tampered_head_alone_is_found(tmp_path):
    path, _ = written(tmp_path)
    head = head_file(path)
    data = head.read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        head.write_bytes(bytes(changed))
        assert check_log(path).faults, place
    head.unlink()
    assert check_log(path).faults


@pytest.mark.parametrize("entries", range(1, 2 * ROUNDS + 1))
def test_a_log_that_was_cut_and_given_a_head_that_fits_is_found_by_the_other_end(tmp_path, entries):
    path, other = written(tmp_path)
    lines = path.read_bytes().split(b"\n")[:entries]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    head_file(path).write_bytes(headed(lines))
    assert check_log(path).faults == ()
    assert compare_ends(check_log(other), check_log(path))


@pytest.mark.parametrize("tamper", [edited, deleted, swapped])
@pytest.mark.parametrize("end", ["north.jsonl", "coordinator.jsonl"])
def test_a_log_that_was_written_anew_is_found_by_the_other_end(tmp_path, end, tamper):
    written(tmp_path)
    path = tmp_path / end
    lines = path.read_bytes().split(b"\n")[:-1]
    rng = random.Random(3)
    anew = lines
    while anew == lines:
        anew = rewritten([lines[0], *tamper(lines[1:-2], rng), *lines[-2:]])
    path.write_bytes(b"".join(line + b"\n" for line in anew))
    head_file(path).write_bytes(headed(anew))
    assert check_log(path).faults == ()
    logs = [check_log(tmp_path / name) for name in ("north.jsonl", "coordinator.jsonl")]
    assert compare_ends(*logs)


def test_a_log_begun_anew_in_the_place_of_another_is_found_by_the_other_end(tmp_path):
    path, other = written(tmp_path)
    path.unlink()
    head_file(path).unlink()
    site_log(tmp_path).append("received", run="study", round=6, sha256="request 6")
    told = compare_ends(check_log(path), check_log(other))
    assert "north's log was another then" in told[0]


def test_a_message_that_only_its_receiver_knows_is_told(tmp_path):
    _, other = written(tmp_path)
    log = AuditLog(other, owner="hub", role="coordinator")
    log.append("received", site="north", run="study", round=6, phase="train", sha256="made up")
    log.append("received", site="north", run="study", round=5, phase="train")  # late, not looked at
    told = compare_ends(check_log(tmp_path / "north.jsonl"), check_log(other))
    assert told == ("entry 12 (received) of the coordinator's log, not in north's (sent)",)


def test_a_sites_messages_of_other_federations_are_not_missed_at_this_one(tmp_path):
    path, other = written(tmp_path)
    head = str(Head("0" * 12, 3, "1" * 64))
    site_log(tmp_path).append("received", run="elsewhere", round=1, sha256="theirs", head=head)
    assert compare_ends(check_log(path), check_log(other)) == ()
    with pytest.raises(MisnamedError, match="of a site and that of a coordinator"):
        compare_ends(check_log(path), check_log(path))
    path.write_bytes(path.read_bytes().replace(b'"role":"site"', b'"role":"coordinator"'))
    with pytest.raises(RunError, match="of a site and that of a coordinator") as caught:
        compare_ends(check_log(path), check_log(other))
    assert not isinstance(caught.value, MisnamedError)  # it was changed: not the user's mistake


def test_logs_without_a_run_in_common_do_not_agree(tmp_path, capsys):
    path, other = written(tmp_path / "one")
    strange = AuditLog(tmp_path / "strange.jsonl", owner="hub", role="coordinator")
    strange.append("sent", site="north", run="elsewhere", round=1, phase="train", sha256="theirs")
    with pytest.raises(RunError, match="nothing in common"):
        compare_ends(check_log(path), check_log(strange.path))
    command = ["site", "audit", str(path), "--against"]
    assert run_command([*command, str(strange.path)]) == 1
    told = capsys.readouterr()
    assert "nothing in common" in told.err
    assert "agree" not in told.out
    # A site that only another site's coordinator knows is no common ground either.
    south = AuditLog(tmp_path / "south.jsonl", owner="south", role="site")
    south.append("received", run="elsewhere", round=1, phase="introduce", sha256="asked")
    with pytest.raises(RunError, match="nothing in common"):
        compare_ends(check_log(south.path), check_log(other))


def test_a_signed_log_given_a_head_that_fits_without_the_key_is_found(tmp_path):
    public, stranger = make_key(tmp_path / "key"), make_key(tmp_path / "other")
    path, _ = written(tmp_path, key=tmp_path / "key")
    assert check_log(path, public=public).faults == ()
    assert check_log(path, public=stranger).faults == ("it was begun with another key",)
    lines = path.read_bytes().split(b"\n")[:4]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    head_file(path).write_bytes(headed(lines))
    assert "not signed" in check_log(path).faults[0]
    with pytest.raises(RunError, match="not signed"):
        site_log(tmp_path, tmp_path / "key").append("sent")


# Killed while it writes


def killed_at(monkeypatch, folder, byte):
    """An append of which so many bytes get to the disk; head first, then the line."""
    log = site_log(folder)
    monkeypatch.setattr(chain, "append_bytes", lambda file, data: stop(file, data[:byte]))

    def stop(file, data):
        file.write(data)
        file.flush()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log.append("sent", bytes=7, sha256="half")
    monkeypatch.undo()


def test_what_a_killed_process_left_of_a_line_is_completed_and_noted(tmp_path, monkeypatch):
    whole = len(canonical({"x": 1}))  # some bytes of any line
    for byte in (0, 1, whole, 100):
        folder = tmp_path / str(byte)
        site_log(folder).append("sent", bytes=6)
        killed_at(monkeypatch, folder, byte)
        path = folder / "north.jsonl"
        assert "killed" in check_log(path).faults[0]
        site_log(folder).append("sent", bytes=8)
        checked = check_log(path)
        assert checked.faults == ()
        kinds = [(entry["kind"], entry.get("bytes")) for entry in checked.entries]
        missing = len(canonical(checked.entries[2])) + 1 - byte
        assert kinds[1:] == [("sent", 6), ("sent", 7), ("completed", missing), ("sent", 8)]


def test_a_log_killed_at_its_first_line_begins_all_the_same(tmp_path, monkeypatch):
    killed_at(monkeypatch, tmp_path, 5)
    site_log(tmp_path).append("sent", bytes=8)
    checked = check_log(tmp_path / "north.jsonl")
    assert checked.faults == ()
    assert [entry["kind"] for entry in checked.entries] == ["begun", "completed", "sent"]


def test_killed_before_the_head_is_in_its_place_nothing_was_written(tmp_path, monkeypatch):
    site_log(tmp_path).append("sent", bytes=6)

    def stop(path, data):
        path.with_name(f".{path.name}.tmp").write_bytes(data[:9])
        raise KeyboardInterrupt

    monkeypatch.setattr(chain, "replace_private", stop)
    with pytest.raises(KeyboardInterrupt):
        site_log(tmp_path).append("sent", bytes=7)
    monkeypatch.undo()
    assert check_log(tmp_path / "north.jsonl").faults == ()
    site_log(tmp_path).append("sent", bytes=8)
    assert [e.get("bytes") for e in check_log(tmp_path / "north.jsonl").entries] == [None, 6, 8]


def test_a_log_is_whole_after_real_kills_at_any_moment(tmp_path):
    code = (
        "import sys; from pathlib import Path; from fedmedlora.federation.audit import AuditLog\n"
        "log = AuditLog(Path(sys.argv[1]), owner='north', role='site')\n"
        "while True: print(log.append('sent', bytes=1).entries, flush=True)"
    )
    path = tmp_path / "north.jsonl"
    told = 0
    for wait in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
        )
        lines = [process.stdout.readline() for _ in range(20)]
        time.sleep(wait / 1000)
        process.kill()
        lines += process.communicate()[0].splitlines(keepends=True)
        told = max(told, *(int(line) for line in lines if line.endswith("\n")))
    head = site_log(tmp_path).append("sent", bytes=2)
    checked = check_log(path)
    assert checked.faults == ()
    # Nothing is lost that was once said to be on disk.
    assert len(checked.entries) == head.entries > told > 100


@pytest.mark.parametrize("tamper", [edited, truncated, duplicated])
def test_a_log_whose_end_was_changed_is_not_written_on(tmp_path, tamper):
    path, _ = written(tmp_path)
    *before, last = path.read_bytes().split(b"\n")[:-1]
    changed = {
        edited: [*before, last.replace(b"reply", b"repyl")],
        truncated: before[:-1],
        duplicated: [*before, last, last],
    }[tamper]
    path.write_bytes(b"".join(line + b"\n" for line in changed))
    with pytest.raises(RunError, match="does not end as its head file says"):
        site_log(tmp_path).append("sent")
    head_file(path).unlink()
    with pytest.raises(RunError, match="head is missing"):
        site_log(tmp_path).append("sent")
    path.unlink()
    shutil.copy(head_file(written(tmp_path / "other")[0]), head_file(path))
    with pytest.raises(RunError, match="does not end"):
        site_log(tmp_path).append("sent")


def test_a_full_disk_is_told_and_the_next_entry_completes_the_line(tmp_path, monkeypatch):
    site_log(tmp_path).append("sent", bytes=6)

    def full(file, data):
        file.write(data[:20])
        file.flush()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(chain, "append_bytes", full)
    with pytest.raises(RunError, match="No space left"):
        site_log(tmp_path).append("sent", bytes=7)
    monkeypatch.undo()
    site_log(tmp_path).append("sent", bytes=8)
    assert check_log(tmp_path / "north.jsonl").faults == ()


# The command


def test_the_command_shows_what_was_sent_and_finds_what_was_changed(tmp_path, capsys):
    path, other = written(tmp_path)
    command = ["site", "audit", str(path), "--against", str(other), "--check"]
    assert run_command(command) == 0
    told = capsys.readouterr().out
    assert "Sent: 5 x train: counts; 350 bytes." in told
    assert "study, round 5" in told
    assert "steps=5" in told
    assert "The two ends' logs agree." in told
    path.write_bytes(path.read_bytes().replace(b'"steps":5', b'"steps":6'))
    assert run_command(command) == 1
    assert "NOT AS IT WAS WRITTEN" in capsys.readouterr().out
    assert run_command([*command, "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert len(content["entries"]) == 11
    assert content["faults"] == ["its last line is not the one that its head has"]
    assert run_command(["site", "audit", str(path)]) == 0
    assert run_command(["site", "audit", str(tmp_path / "none")]) == 2


def test_a_change_of_the_other_ends_log_shows_too(tmp_path, capsys):
    path, other = written(tmp_path)
    lines = other.read_bytes().splitlines(keepends=True)
    other.write_bytes(b"".join([*lines[:-2], lines[-1], lines[-2]]))
    assert run_command(["site", "audit", str(path), "--against", str(other), "--check"]) == 1
    told = capsys.readouterr().out
    assert "- the other end's log: " in told
    assert "The two ends' logs agree." not in told


def test_what_somebody_wrote_into_a_log_does_not_get_to_the_terminal_as_it_is(tmp_path, capsys):
    (tmp_path / "log").write_bytes(b'{"kind":"\\u001b[2J","n":[],"said":7,"time":null}\nno\xff\n')
    assert run_command(["site", "audit", str(tmp_path / "log"), "--check"]) == 1
    assert "\x1b" not in capsys.readouterr().out


def test_what_is_no_log_does_not_pass_for_an_empty_one(tmp_path, capsys):
    (tmp_path / "notes.jsonl").write_text('{"id": "a"}\n\n')
    run_command(["site", "audit", str(tmp_path / "notes.jsonl")])
    told = capsys.readouterr().out
    assert "The log has no entry." in told
    assert "THE LOG IS NOT AS IT WAS WRITTEN:" in told
    assert "- line 1 is not as an entry is written" in told


@pytest.mark.parametrize("text", ["", "a:1:b", f"{'0' * 12}:0:{'1' * 64}", None, 7, "x" * 100])
def test_what_is_no_head_is_none(text):
    assert Head.parse(text) is None


def test_a_head_comes_back_from_its_text():
    head = Head("0123456789ab", 12, "f" * 64)
    assert Head.parse(str(head)) == head


@pytest.mark.parametrize("name", ["kind", "run", "phase", "round", "site", "sha256", "said"])
@pytest.mark.parametrize("value", [["a list"], {"request": ["a list"]}])
def test_a_log_of_anything_is_looked_at_and_compared_to_its_end(tmp_path, name, value):
    """Whoever hands over a log may have written it, chain, head and all."""
    site, coordinator = written(tmp_path)
    lines = [json.loads(line) for line in site.read_bytes().splitlines()]
    lines = rewritten(
        [canonical({**line, name: value} if line["n"] > 1 else line) for line in lines]
    )
    site.write_bytes(b"".join(line + b"\n" for line in lines))
    head_file(site).write_bytes(headed(lines))
    checked = check_log(site)
    told = ("10 entries are not what an end of a federation writes",)
    assert checked.faults == (() if name == "said" else told)
    assert compare_ends(checked, check_log(coordinator))
    assert run_command(["site", "audit", str(site), "--check", "--against", str(coordinator)]) == 1
