"""A chained log shows every change of it, and survives being killed at any byte."""

import json

import pytest

from fedmedlora.chain import head_file, open_chain
from fedmedlora.errors import RunError


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "notes" / "log.jsonl"
    with open_chain(path) as chain:
        for number in (1, 2, 3):
            chain.append("counted", value=number)
    return path


def values(path):
    with open_chain(path) as chain:
        return [entry.facts.get("value") for entry in chain.entries]


def test_what_was_appended_is_read_again_and_can_be_gone_on_with(log):
    assert values(log) == [1, 2, 3]
    with open_chain(log) as chain:
        assert [entry.n for entry in chain.entries] == [1, 2, 3]
        assert chain.append("counted", value=4).n == 4
        assert len(chain.entries) == 4
    assert values(log) == [1, 2, 3, 4]


def without_line(lines):
    return lines[:1] + lines[2:]


def swapped(lines):
    return [lines[1], lines[0], lines[2]]


def changed(lines):
    return [lines[0].replace(b'"value":1', b'"value":9'), *lines[1:]]


def changed_last(lines):
    return [*lines[:2], lines[2].replace(b'"value":3', b'"value":9')]


def cut(lines):
    return lines[:2]


def doubled(lines):
    return [*lines, lines[2]]


def spaced(lines):
    return [lines[0].replace(b":", b": ", 1), *lines[1:]]


def emptied(lines):
    return []


@pytest.mark.parametrize(
    "edit", [without_line, swapped, changed, changed_last, doubled, spaced, emptied]
)
def test_an_edited_log_is_refused_and_left_as_it_is(log, edit):
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(edit(lines)))
    before = log.read_bytes()
    with pytest.raises(RunError, match="edited"), open_chain(log):
        pass
    assert log.read_bytes() == before


def test_a_log_that_begins_anew_on_its_own_head_is_refused(log):
    log.unlink()
    with pytest.raises(RunError, match="edited"), open_chain(log):
        pass


@pytest.mark.parametrize("spoil", [lambda head: head.unlink(), lambda head: head.write_text("{}")])
def test_a_log_without_its_head_is_refused(log, spoil):
    spoil(head_file(log))
    with pytest.raises(RunError, match=r"log\.jsonl\.head is missing or broken"), open_chain(log):
        pass


def test_a_head_that_claims_another_line_is_refused(log):
    content = json.loads(head_file(log).read_text())
    content["last"] = content["last"].replace('"value":3', '"value":1')
    head_file(log).write_text(json.dumps(content, sort_keys=True, separators=(",", ":")))
    with pytest.raises(RunError, match="edited"), open_chain(log):
        pass


def test_a_line_that_a_killed_process_left_unfinished_is_completed(log):
    whole = log.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for length in range(start, len(whole)):
        log.write_bytes(whole[:length])
        assert values(log) == [1, 2, 3]
        assert log.read_bytes() == whole


def test_only_its_owner_can_read_it(log):
    assert log.stat().st_mode & 0o077 == 0
