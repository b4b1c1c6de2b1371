"""What a study file may say, and how a wrong one is answered: the key, the value, what to do."""

from pathlib import Path

import pytest

from fedmedlora.config import load_study
from fedmedlora.config_sections import PROJECTIONS
from fedmedlora.corpus.jsonl import write_jsonl
from fedmedlora.errors import ConfigError, DataError
from fedmedlora.schema import Document, Entity
from fedmedlora.study.arms import study_arms
from fedmedlora.study.data import load_data
from fedmedlora.study.run import run_study
from fedmedlora.study.variants import further_runs

GOOD = """
name: toy
methods: [zero-shot, dictionary, single-site, fed-medlora]
sites:
  a: {synthetic: {style: icu, train: 3, validation: 1, test: 1}}
  b: {synthetic: {style: outpatient, train: 3, validation: 1, test: 1}}
"""


def load(tmp_path: Path, text: str, *overrides: str):
    file = tmp_path / "study.yaml"
    file.write_text(text, encoding="utf-8")
    return load_study(file, overrides)


def note(name: str, text: str = "no fever", kind: str = "problem", **more) -> Document:
    start = text.index("fever")
    return Document(name, text, (Entity("T1", kind, start, start + 5),), **more)


def files(tmp_path: Path, **splits) -> str:
    for split, documents in splits.items():
        write_jsonl(documents, tmp_path / f"{split}.jsonl")
    names = ", ".join(f"{split}: {split}.jsonl" for split in ("train", "validation", "test"))
    return f"name: toy\nmethods: [zero-shot]\nsites:\n  a: {{{names}}}\n"


def test_single_sites_and_dictionaries_have_a_row_for_each_site(tmp_path):
    assert [arm.label for arm in study_arms(load(tmp_path, GOOD))] == [
        "zero-shot",
        "dictionary/a",
        "dictionary/b",
        "dictionary",
        "single-site/a",
        "single-site/b",
        "fed-medlora",
    ]


def test_a_setting_on_the_command_line_reaches_its_section(tmp_path):
    study = load(tmp_path, GOOD, "training.steps=5", "seed=3", "methods=[centralised]")
    assert (study.training.steps, study.seed, [m.label for m in study.methods]) == (
        5,
        3,
        ["centralised"],
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "sites: {}\n", "occurs twice"),
        (GOOD + "colour: red\n", "colour: there is no such setting"),
        (GOOD + "training: {batch: 0}\n", "training.batch"),
        (GOOD + "federation: {min_sites: 3}\n", "min_sites"),
        (GOOD + "federation: {validation: server}\n", "server_validation"),
        (GOOD + "federation: {engine: ray}\n", "federation.engine.*'in-process' or 'flower'"),
        (GOOD + "cohorts: {a: {test: x.jsonl}}\n", "same name"),
        (GOOD.replace("zero-shot, ", "zero-shot, zero-shot, "), "twice"),
        (GOOD.replace("  b:", "  all:"), "taken"),
        (GOOD.replace("test: 1}}", "test: 1}, annotates: [fever]}", 1), "fever"),
        ("name: [", "not YAML"),
        ("just text", "a mapping of keys"),
        ("name: x\nmethods: [zero-shot]\nsites: {}\n", "sites"),
        ("name: x\nmethods: [zero-shot]\nsites: {a: {train: t.jsonl}}\n", "train, validation"),
    ],
)
def test_a_wrong_study_file_is_refused_by_key(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        load(tmp_path, text)


@pytest.mark.parametrize("setting", ["steps", "=3", "name.x=1", "seed=[", "training.stepz=1"])
def test_a_wrong_setting_on_the_command_line_is_refused(tmp_path, setting):
    with pytest.raises(ConfigError):
        load(tmp_path, GOOD, setting)


def test_a_missing_study_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_study(tmp_path / "nowhere.yaml")


def test_what_a_site_covers_is_what_occurs_unless_it_says_so(tmp_path):
    both = [note("d1"), note("d2", kind="drug")]
    text = files(tmp_path, train=both, validation=[note("d3")], test=[note("d4")])
    [site] = load_data(load(tmp_path, text)).sites
    assert site.covers == {"problem", "drug"}
    narrowed = text.replace("test.jsonl}", "test.jsonl, annotates: {problem: partial, drug: none}}")
    [site] = load_data(load(tmp_path, narrowed)).sites
    assert site.covers == {"problem"}


def test_a_type_that_a_site_never_annotates_must_not_be_asked_for(tmp_path):
    text = files(tmp_path, train=[note("d1")], validation=[note("d2")], test=[note("d3")])
    text = text.replace("test.jsonl}", "test.jsonl, annotates: [problem, drug]}")
    with pytest.raises(ConfigError, match=r"sites\.a\.annotates: drug never occurs"):
        load_data(load(tmp_path, text))


def test_a_patient_in_two_splits_is_refused(tmp_path):
    text = files(
        tmp_path,
        train=[note("d1", group="p1")],
        validation=[note("d2")],
        test=[note("d3", group="p1")],
    )
    with pytest.raises(DataError, match="p1"):
        load_data(load(tmp_path, text))


def test_a_site_that_could_not_score_candidates_is_named_before_it_trains(tmp_path):
    text = files(
        tmp_path, train=[note("d1")], validation=[Document("d2", " \n")], test=[note("d3")]
    )
    study = load(tmp_path, text.replace("zero-shot", "fed-medlora+"))
    with pytest.raises(ConfigError, match=r"sites\.a: fed-medlora\+ needs validation notes"):
        run_study(study, tmp_path / "run")
    assert not (tmp_path / "run" / "federation").exists()


def test_an_empty_or_missing_split_is_refused(tmp_path):
    text = files(tmp_path, train=[note("d1")], validation=[note("d2")], test=[note("d3")])
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(DataError, match=r"train\.jsonl"):
        load_data(load(tmp_path, text))
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"train\.jsonl"):
        load_data(load(tmp_path, text))


def test_a_sample_is_drawn_by_the_seed_and_keeps_the_order(tmp_path):
    many = [note(f"d{i}") for i in range(40)]
    text = files(tmp_path, train=many, validation=[note("v")], test=[note("t")])
    text = text.replace("test.jsonl}", "test.jsonl, sample: {train: 10}}")
    names = [d.id for d in load_data(load(tmp_path, text)).sites[0].train]
    again = [d.id for d in load_data(load(tmp_path, text)).sites[0].train]
    other = [d.id for d in load_data(load(tmp_path, text, "seed=8")).sites[0].train]
    assert names == again != other
    assert names == sorted(names, key=lambda name: int(name[1:]))
    assert len(names) == 10


def test_the_papers_study_says_what_the_paper_trained_with():
    study = load_study(Path(__file__).resolve().parents[2] / "studies/paper.yaml")
    assert (study.backbone.name, study.backbone.precision) == ("meta-llama/Llama-3.1-8B", "nf4")
    adapter = study.adapter
    assert (adapter.rank, adapter.alpha, adapter.dropout) == (16, 64, 0)
    assert adapter.targets == PROJECTIONS
    training = study.training
    assert (training.learning_rate, training.warmup, training.batch) == (2e-4, 0.05, 4)
    assert (training.epochs, training.steps, training.max_tokens) == (2, None, 800)
    assert training.gradient_checkpointing
    assert training.objective == "answer"
    assert study.federation.rounds == 3
    assert list(study.sites) == ["mimic_iii", "mtsamples", "utp"]
    assert (list(study.cohorts), list(study.new_sites)) == (["i2b2"], ["ynhh"])
    wanted = {"zero-shot", "single-site", "fed-medlora", "fed-medlora+", "centralised", "bert"}
    assert wanted <= {entry.method for entry in study.methods}
    assert study.encoder.name == "emilyalsentzer/Bio_ClinicalBERT"
    assert len(study_arms(study)) == 2 + 3 + 3 + 3 + 1 + 3 + 1 + 8
    assert [run.sites for run in further_runs(study)] == [2, 4, 6, 8, 10]


def test_more_sites_make_fewer_steps_each_and_longer_ones_if_the_study_says_so():
    study = load_study(
        Path(__file__).resolve().parents[2] / "studies/open-corpora.yaml",
        ["training.steps=150", "training.learning_rate=3e-4", "scaling.sites=[1, 6]"],
    )
    runs = [run.study for run in further_runs(study) if run.sites]
    assert [run.training.steps for run in runs] == [450, 75]
    assert [run.training.learning_rate for run in runs] == pytest.approx([1e-4, 6e-4])
    fixed = study.with_settings({"scaling.rate": "fixed"}, where="here")
    runs = [run.study for run in further_runs(fixed) if run.sites]
    assert [run.training.learning_rate for run in runs] == [3e-4, 3e-4]


def test_the_papers_study_takes_the_targets_it_names_for_another_backbone(tmp_path):
    text = (Path(__file__).resolve().parents[2] / "studies/paper.yaml").read_text(encoding="utf-8")
    qwen = "targets: [q_proj, k_proj, v_proj, o_proj]"
    assert qwen in text
    study = load(
        tmp_path, text, "backbone.name=Qwen/Qwen3-4B", f"adapter.{qwen.replace(': ', '=')}"
    )
    assert study.adapter.targets == PROJECTIONS[:4]
