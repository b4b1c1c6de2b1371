"""What a study needs of a site, from its file alone."""

from pathlib import Path

from fedmedlora.cli import run_command
from fedmedlora.config import load_study
from fedmedlora.evaluation.tables import render_text
from fedmedlora.study.estimating import estimate_tables

ROOT = Path(__file__).resolve().parents[2]


def texts(name, *settings):
    return [render_text(t) for t in estimate_tables(load_study(ROOT / "studies" / name, settings))]


def row(text, start):
    return next(line for line in text.splitlines() if line.startswith(start)).split("  ")


def test_the_papers_study_needs_no_cohort_and_no_download():
    adapter, traffic, memory = texts("paper.yaml")
    assert "41,943,040" in adapter
    assert "0.522%" in adapter
    plain = [cell.strip() for cell in row(traffic, "fed-medlora ") if cell.strip()]
    assert plain[1:5] == ["83.9 MB", "83.9 MB", "0.52%", "3"]
    # Every site of three scores the adapters of all.
    assert row(traffic, "fed-medlora+")[1].strip() == "336 MB"
    assert memory.count("this study") == 1


def test_methods_send_what_they_send():
    settings = (
        "methods=[fed-medlora, ffa-lora, rolora, fedex-lora]", "federation.rounds=3",
        "federation.wire=fp32",
    )  # fmt: skip
    _, traffic, _ = texts("demo.yaml", *settings)
    sizes = {line.split()[0]: line.split()[1:5] for line in traffic.splitlines()[3:]}
    assert sizes["fed-medlora"] == ["696", "kB", "696", "kB"]
    assert sizes["ffa-lora"][:2] == sizes["ffa-lora"][2:] != sizes["fed-medlora"][:2]
    # The residual of two rounds of three sites: four times the adapter's rank.
    assert sizes["fedex-lora"] == ["3.48", "MB", "696", "kB"]


def test_masked_rows_are_eight_bytes_a_value_and_nobody_scores_the_others():
    settings = (
        "methods=[fed-medlora, fed-medlora+]", "federation.wire=fp32",
        "federation.secure_aggregation={}",
    )  # fmt: skip
    _, traffic, _ = texts("demo.yaml", *settings)
    sizes = {line.split()[0]: line.split()[1:5] for line in traffic.splitlines()[3:]}
    assert sizes["fed-medlora"] == sizes["fed-medlora+"] == ["696", "kB", "1.39", "MB"]


def test_a_study_without_a_federation_has_no_traffic():
    assert len(texts("demo.yaml", "methods=[zero-shot, dictionary]")) == 2


def test_the_command_prints_the_tables_and_names_what_is_wrong(capsys):
    study = str(ROOT / "studies" / "demo.yaml")
    assert run_command(["estimate", study]) == 0
    assert "fed-medlora+" in capsys.readouterr().out
    assert run_command(["estimate", study, "--set", "backbone.name=./nowhere"]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert run_command(["estimate", "no.yaml"]) == 2
