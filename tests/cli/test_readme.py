"""What the documentation says can be done can be done."""

import re
from pathlib import Path

import pytest

from fedmedlora.cli import app, run_command
from fedmedlora.config import load_study
from fedmedlora.study.data import load_data

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


def test_the_first_study_of_the_readme_runs_on_files_that_a_command_makes(tmp_path):
    [text] = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    (tmp_path / "first.yaml").write_text(text)
    sizes = ["--train", "20", "--validation", "2", "--test", "2"]
    assert run_command(["synthetic", str(tmp_path / "my-notes"), *sizes]) == 0
    data = load_data(load_study(tmp_path / "first.yaml"))
    assert [site.name for site in data.sites] == ["icu", "outpatient"]
    assert [cohort.name for cohort in data.cohorts] == ["icu", "outpatient", "elsewhere"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [
        link for link in links if not link.startswith("http") and not (page.parent / link).exists()
    ]
    assert missing == []


def test_every_command_is_in_the_readme_and_every_one_there_exists():
    commands = {command.callback.__name__ for command in app.registered_commands}
    commands |= {group.typer_instance.info.name for group in app.registered_groups}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.split("## Commands")[1].split("## ")[0]
    told = {
        name
        for cell in re.findall(r"^\| (`.*?) \|", table, flags=re.M)
        for name in re.findall(r"`(\w+)", cell)
    }
    assert told == commands


def test_every_page_of_the_documentation_is_in_its_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages - {"README.md"} if f"({page})" not in index} == set()


@pytest.mark.parametrize("study", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_study_is_valid(study):
    assert load_study(study).name == study.stem
