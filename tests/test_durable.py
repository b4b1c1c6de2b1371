"""Folders that are replaced whole: what an interruption between two steps leaves."""

import os
import stat
from pathlib import Path

import pytest

from fedmedlora.durable import (
    clear_leftovers,
    new_folder,
    open_private,
    replace_bytes,
    replace_private,
    write_private,
)
from fedmedlora.errors import RunError


def write(folder: Path, text: str) -> None:
    with new_folder(folder) as fresh:
        (fresh / "file").write_text(text)


def test_a_folder_is_replaced_whole_and_nothing_else_stays(tmp_path):
    write(tmp_path / "kept", "old")
    write(tmp_path / "kept", "new")
    assert (tmp_path / "kept" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_the_disk_has_every_file_and_folder_before_it_takes_its_place(tmp_path, monkeypatch):
    synced = []

    def noted(handle):
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", noted)
    with new_folder(tmp_path / "a" / "b" / "kept") as fresh:
        (fresh / "one" / "two").mkdir(parents=True)
        (fresh / "one" / "two" / "moved").write_text("not waited for by who wrote it")
        (fresh / "file").write_text("nor this")
    inside = [
        path.relative_to(fresh).as_posix() for path in synced if fresh in (path, *path.parents)
    ]
    assert sorted(inside) == [".", "file", "one", "one/two", "one/two/moved"]
    order = {name: place for place, name in enumerate(inside)}
    assert order["one/two/moved"] < order["one/two"] < order["one"] < order["."]
    # Then the folders that got a new entry: the one that it is in, and those that were made.
    assert synced[len(inside) :] == [tmp_path / "a" / "b", tmp_path / "a", tmp_path]


def test_an_interruption_between_the_two_renamings_keeps_the_old_folder(tmp_path, monkeypatch):
    write(tmp_path / "kept", "old")
    rename = Path.replace

    def interrupted(self, target):
        if self.suffix == ".tmp":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "kept", "new")
    assert (tmp_path / "kept" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_what_was_being_replaced_when_the_process_was_killed_is_put_back(tmp_path):
    # Killed between the two renamings: both stand there under names of their own.
    write(tmp_path / "site" / "v1.2", "old")
    (tmp_path / "site" / "v1.2").rename(tmp_path / "site" / ".v1.2.01234567.old")
    write(tmp_path / "site" / ".v1.2.01234567.tmp", "new")
    # Killed after them: the old one is of no use any more.
    write(tmp_path / "other", "new")
    write(tmp_path / ".other.89abcdef.old", "old")
    clear_leftovers(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "other", "other/file", "site", "site/v1.2", "site/v1.2/file"
    ]  # fmt: skip
    assert (tmp_path / "site" / "v1.2" / "file").read_text() == "old"
    assert (tmp_path / "other" / "file").read_text() == "new"


@pytest.fixture
def open_umask():
    """New files would be everybody's."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("open_umask")
def test_private_files_and_the_folders_made_for_them_are_the_owners_alone(tmp_path):
    write_private(tmp_path / "a" / "b" / "new", b"1")
    with open_private(tmp_path / "c" / "d" / "log") as file:
        file.write(b"1")
    replace_private(tmp_path / "a" / "state", b"1")
    replace_private(tmp_path / "a" / "state", b"2")
    assert (tmp_path / "a" / "state").read_bytes() == b"2"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert {mode(path) for path in files} == {0o600}
    assert {mode(path) for path in folders} == {0o700}
    assert (len(files), len(folders)) == (3, 4)


@pytest.mark.usefixtures("open_umask")
def test_a_log_that_was_open_to_others_is_closed_to_them_and_appended_to(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "log").write_bytes(b"1")
    assert mode(tmp_path / "log") == 0o666
    with open_private(tmp_path / "log") as file:
        file.write(b"2")
        file.seek(0)
        assert file.read() == b"12"
    assert mode(tmp_path / "log") == 0o600
    assert mode(tmp_path) == 0o755  # it was there: somebody else's choice


def test_a_private_file_is_never_written_over(tmp_path):
    write_private(tmp_path / "key", b"1")
    with pytest.raises(RunError, match="never overwritten"):
        write_private(tmp_path / "key", b"2")
    assert (tmp_path / "key").read_bytes() == b"1"


@pytest.mark.parametrize("replace", [replace_bytes, replace_private])
def test_what_cannot_take_the_place_of_another_leaves_it_and_nothing_else(tmp_path, replace):
    place = tmp_path / "file"
    place.mkdir()
    (place / "in the way").write_text("old")
    with pytest.raises(RunError, match=f"cannot write {place}: Is a directory"):
        replace(place, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (place / "in the way").read_text() == "old"
