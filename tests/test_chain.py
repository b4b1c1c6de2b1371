"""A chained log shows every change of it, and survives being killed at any byte.

What an audit log does on top of it is in federation/test_audit.py.
"""

import pytest

from fedmedlora.chain import head_file, open_log, read_log, read_state
from fedmedlora.errors import RunError


def opened(path):
    return open_log(path, begun=lambda: {"owner": "north"}, advice="was it edited?")


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "notes" / "log.jsonl"
    with opened(path) as chain:
        for number in (1, 2, 3):
            chain.append("counted", value=number)
    return path


def values(path):
    read = read_log(path)
    assert read.faults == ()
    return [entry.get("value") for entry in read.entries]


def test_what_was_appended_is_read_again_and_can_be_gone_on_with(log):
    assert values(log) == [None, 1, 2, 3]
    with opened(log) as chain:
        assert chain.state.entries == 4
        assert chain.append("counted", value=4).entries == 5
    assert values(log) == [None, 1, 2, 3, 4]
    assert read_log(log).entries[0]["owner"] == "north"


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: lines[:3],
        lambda lines: [*lines, lines[3]],
        lambda lines: [*lines[:3], lines[3].replace(b'"value":3', b'"value":9')],
        lambda lines: [],
    ],
    ids=["cut and written on", "doubled", "changed", "emptied"],
)
def test_a_log_whose_end_was_changed_is_refused_and_left_as_it_is(log, edit):
    lines = log.read_bytes().splitlines(keepends=True)
    changed = edit(lines)
    log.write_bytes(b"".join([*changed, b"{}\n"] if len(changed) == 3 else changed))
    before = log.read_bytes()
    with pytest.raises(RunError, match="edited"), opened(log):
        pass
    assert log.read_bytes() == before


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: [*lines[:1], *lines[2:]],
        lambda lines: [lines[0], lines[2], lines[1], lines[3]],
        lambda lines: [lines[0], lines[1].replace(b'"value":1', b'"value":9'), *lines[2:]],
        lambda lines: [lines[0].replace(b":", b": ", 1), *lines[1:]],
    ],
    ids=["without a line", "swapped", "changed", "spaced"],
)
def test_a_log_that_was_changed_before_its_end_has_faults(log, edit):
    log.write_bytes(b"".join(edit(log.read_bytes().splitlines(keepends=True))))
    assert read_log(log).faults


def test_a_log_that_begins_anew_on_its_own_head_is_refused(log):
    log.unlink()
    with pytest.raises(RunError, match="edited"), opened(log):
        pass


@pytest.mark.parametrize("spoil", [lambda head: head.unlink(), lambda head: head.write_text("{}")])
def test_a_log_without_its_head_is_refused(log, spoil):
    spoil(head_file(log))
    with pytest.raises(RunError, match=r"log\.jsonl\.head is missing or broken"), opened(log):
        pass


def test_a_line_that_a_killed_process_left_unfinished_is_completed_and_that_is_noted(log):
    whole = log.read_bytes()
    head = head_file(log).read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for length in range(start, len(whole)):
        log.write_bytes(whole[:length])
        head_file(log).write_bytes(head)
        with opened(log) as chain:
            assert chain.state.entries == 5
        assert log.read_bytes().startswith(whole)
        assert values(log) == [None, 1, 2, 3, None]
        assert read_log(log).entries[4]["bytes"] == len(whole) - length


def test_a_failure_while_a_log_is_open_is_not_taken_for_the_logs(log):
    with pytest.raises(FileNotFoundError, match="a note"), opened(log):
        raise FileNotFoundError("a note")
    assert read_state(log).entries == 4
