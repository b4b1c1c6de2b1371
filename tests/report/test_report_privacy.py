"""F1 against epsilon, and each epsilon with what it means nothing without."""

import json

import pytest
from report_notes import FED, HOSTILE
from report_toys import full_run, write_json

from fedmedlora.report.blocks import Figures, Table, Text
from fedmedlora.report.page import render_report
from fedmedlora.report.privacy import privacy_section
from fedmedlora.report.run import read_run

TOLD = {
    "epsilon": 2.987, "budget": 3.0, "delta": 1e-5, "unit": "patient",
    "neighbours": "emptying one unit", "sampling": "Poisson", "accountant": "prv",
    "max_grad_norm": 0.5, "adversary": "sees every adapter", "covers": "per-row",
    "sites": {"north": {"epsilon": 2.987, "noise": 1.234, "rate": 0.05, "steps": 60, "units": 80},
              "south": {"epsilon": 2.5, "noise": 1.3, "rate": 0.06, "steps": 70, "units": 90}},
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """One federated row at epsilon 3; another, of the same method, without noise."""
    full_run(tmp_path)
    file = tmp_path / "methods.json"
    rows = json.loads(file.read_text())
    for row in rows:
        if row["kind"] == "federated":
            row["method"] = "ffa-lora"
    write_json(tmp_path, "methods.json", rows)
    place = f"answers/{FED}/done.json"
    done = json.loads((tmp_path / place).read_text())
    write_json(tmp_path, place, {**done, "privacy": TOLD})
    return read_run(tmp_path)


def blocks(section, kind):
    return [block for block in section.blocks if isinstance(block, kind)]


def test_a_run_without_a_promise_has_no_such_section(tmp_path):
    assert privacy_section(read_run(full_run(tmp_path))) is None


def test_each_epsilon_is_told_with_its_terms_all_of_the_site_that_spent_most(run):
    section = privacy_section(run)
    [table] = blocks(section, Table)
    [row] = table.groups[0].rows
    assert row.header == FED
    told = ["2.99", "1e-05", "patient", "1.23", "0.05", "60", "prv", "per-row"]
    assert [cell.text for cell in row.cells] == told
    said = " ".join(part for block in blocks(section, Text) for part in block.paragraphs)
    for word in ("emptying one unit", "sees every adapter", "Poisson"):
        assert word in said


def test_f1_stands_against_epsilon_and_beside_training_without_noise(run):
    section = privacy_section(run)
    strict = next(one for one in blocks(section, Figures) if one.view["matching"] == "strict")
    assert [name for _, name in strict.legend] == ["ffa-lora"]
    numbers = next(table for table in strict.numbers if table.caption.startswith("entities"))
    assert numbers.head == ("Method", "epsilon 3", "epsilon ∞")
    [row] = numbers.groups[0].rows
    # Of several seeds the mean; the other row has none, and answers everything right.
    assert [cell.text for cell in row.cells] == ["0.52", "1.00"]
    assert run.score(HOSTILE, "all", "entities").f1 == 1
    chart = str(strict.charts[0])
    assert ">∞</text>" in chart
    assert "ffa-lora: 3: 0.52, ∞: 1." in chart


def test_the_page_has_it(run):
    assert 'id="privacy"' in render_report(run)
