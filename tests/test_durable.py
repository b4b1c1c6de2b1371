"""Folders that are replaced whole: what an interruption between two steps leaves."""

from pathlib import Path

import pytest

from fedmedlora.durable import clear_leftovers, new_folder


def write(folder: Path, text: str) -> None:
    with new_folder(folder) as fresh:
        (fresh / "file").write_text(text)


def test_a_folder_is_replaced_whole_and_nothing_else_stays(tmp_path):
    write(tmp_path / "kept", "old")
    write(tmp_path / "kept", "new")
    assert (tmp_path / "kept" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


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
