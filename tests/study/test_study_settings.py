"""Everything that a study file can ask for, on toy notes: arms, further runs, what they leave."""

import json
from pathlib import Path

import pytest

from fedmedlora.config import load_study
from fedmedlora.errors import ConfigError, RunError
from fedmedlora.model.adapter_files import read_adapter
from fedmedlora.study.arms import study_arms
from fedmedlora.study.data import first_notes, load_data
from fedmedlora.study.rescoring import rescore
from fedmedlora.study.run import run_study
from fedmedlora.study.run_folder import RunFolder
from fedmedlora.study.tables import study_tables
from fedmedlora.study.variants import main_study

TEXT = """
name: toy
methods:
  - zero-shot
  - few-shot
  - dictionary
  - single-site
  - fed-medlora
  - {method: fed-medlora+, label: plus-cold, set: {federation.tau: 0.1}}
  - {method: fed-medlora, label: as-negative, set: {absent: negative}}
  - fedsa-lora
  - fedex-lora
  - flexlora
  - fedprox
  - {method: local-adaptation, of: fed-medlora}
  - centralised
sites:
  icu: {synthetic: {style: icu, train: 4, validation: 1, test: 1}}
  outpatient:
    synthetic: {style: outpatient, train: 4, validation: 1, test: 1}
    strip: [drug, dosage]
    adapter: {rank: 2, alpha: 8}
new_sites:
  discharge:
    synthetic: {style: discharge, train: 4, validation: 1, test: 1}
    notes: [1, 3]
    of: [fedex-lora]
task: {heads: numbered, prompt: compact, window_words: 100}
decoding: {draft: 32}
training: {steps: 2, batch: 2, objective: decisions}
adapter: {rank: 4, alpha: 16}
adaptation: {steps: 2}
federation: {rounds: 2}
evaluation: {by_round: true}
few_shot: {examples: 1}
seeds: [3]
scaling: {sites: [1], methods: [fed-medlora]}
variants:
  fewer-rounds: {set: {federation.rounds: 1}, methods: [fed-medlora]}
"""


COLDER = {"method": "fed-medlora+", "label": "plus-cold", "set": {"federation.tau": 0.2}}


def study_of(folder: Path, *overrides: str):
    file = folder / "study.yaml"
    file.write_text(TEXT, encoding="utf-8")
    return load_study(file, overrides)


#: What the tests below look at; the other methods differ by what tests/federation covers.
FEWER = """methods=[few-shot, dictionary, single-site, fed-medlora, fedsa-lora, fedex-lora,
    flexlora, {method: local-adaptation, of: fed-medlora}, centralised]"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything")
    run_study(study_of(folder, FEWER), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    plain = ("methods=[fed-medlora]", "scaling=null", "variants={}", "new_sites={}", "seeds=[3, 4]")
    some = ("federation.rounds=3", "evaluation.by_round=2")
    run_study(study_of(folder, *plain, *some), folder / "run")
    return folder / "run"


def read(run: Path, name: str):
    return json.loads((run / name).read_text(encoding="utf-8"))


def test_every_arm_is_named_and_says_what_it_is(tmp_path):
    arms = {arm.label: arm for arm in study_arms(study_of(tmp_path))}
    assert list(arms) == [
        "zero-shot", "few-shot", "dictionary/icu", "dictionary/outpatient", "dictionary",
        "single-site/icu", "single-site/outpatient", "fed-medlora", "plus-cold", "as-negative",
        "fedsa-lora", "fedex-lora", "flexlora", "fedprox", "centralised",
        "adapted/icu/fed-medlora", "adapted/outpatient/fed-medlora",
        "new-site/discharge/1/fedex-lora", "new-site/discharge/3/fedex-lora",
        "new-site/discharge/1/scratch", "new-site/discharge/3/scratch",
    ]  # fmt: skip
    assert arms["plus-cold"].study.federation.tau == 0.1
    assert arms["fed-medlora"].study.federation.tau == 1.0
    assert arms["as-negative"].study.absent == "negative"
    adapted = arms["adapted/icu/fed-medlora"]
    assert (adapted.of, adapted.site, adapted.cohorts) == ("fed-medlora", "icu", ("icu",))


def test_every_arm_answers_its_cohorts_and_is_scored(run):
    scores = read(run, "scores.json")
    cohorts = {}
    for row in scores:
        cohorts.setdefault(row["method"], set()).add(row["cohort"])
    everything = {"icu", "outpatient", "discharge", "all"}
    assert cohorts["fedsa-lora"] == cohorts["few-shot"] == cohorts["dictionary"] == everything
    assert cohorts["adapted/icu/fed-medlora"] == {"icu"}
    assert cohorts["new-site/discharge/3/scratch"] == {"discharge"}
    labels = [arm["label"] for arm in read(run, "methods.json")]
    assert list(cohorts) == labels


def test_the_tables_show_every_row(run):
    scores, traffic = study_tables(run)
    assert {row[1] for row in scores.rows} >= {"flexlora", "new-site/discharge/1/scratch"}
    assert len({row[traffic.headers.index("whole model, bf16")] for row in traffic.rows}) == 1
    assert {row[0] for row in traffic.rows} == {
        "fed-medlora", "fedsa-lora", "fedex-lora", "flexlora"
    }  # fmt: skip


def test_a_site_of_fedsa_keeps_its_own_b_and_a_new_site_starts_with_none(run):
    shared = read_adapter(run / "adapters" / "fedsa-lora")
    own = read_adapter(run / "adapters" / "fedsa-lora.sites" / "icu")
    for name, tensor in shared.tensors.items():
        if "lora_B" in name:
            assert not tensor.any()
            assert own.tensors[name].any()
        else:
            assert own.tensors[name].tobytes() == tensor.tobytes()


def test_an_exact_adapter_is_wider_and_a_mixed_rank_one_is_not(run):
    ranks = {
        name: read_adapter(run / "adapters" / name).manifest.rank
        for name in ("fed-medlora", "flexlora", "fedex-lora")
    }
    assert ranks["fed-medlora"] == ranks["flexlora"] == 4
    assert 4 < ranks["fedex-lora"] <= 4 + 2 * 4
    sites = read(run, "answers/flexlora/done.json")["rounds"][1]["sites"]
    assert sites["outpatient"]["bytes_up"] < sites["icu"]["bytes_up"]


def test_what_a_site_is_stripped_of_is_not_asked_for_but_is_scored(run):
    data = read(run, "data.json")
    assert {"drug", "dosage"}.isdisjoint(data["sites"]["outpatient"]["covers"])
    assert {"drug", "dosage"} <= set(data["cohorts"]["outpatient"]["covers"])
    assert data["sites"]["outpatient"]["annotates"]["drug"] == "none"
    folder = RunFolder(run)
    for note in load_data(folder.study()).site("outpatient").train:
        assert not [e for e in note.entities if e.type in ("drug", "dosage")]


def test_joining_is_compared_at_each_site_and_methods_over_all(run):
    rows = read(run, "comparisons.json")
    joining = {(r["site"], r["first"]) for r in rows if r["question"] == "joining"}
    assert {("icu", "fed-medlora"), ("icu", "adapted/icu/fed-medlora"), ("icu", "centralised")} <= (
        joining
    )
    assert ("icu", "adapted/outpatient/fed-medlora") not in joining
    scores = {
        (r["method"], r["cohort"], r["task"], r["matching"]): r["f1"]
        for r in read(run, "scores.json")
        if (r["level"], r["type"]) == ("typed", "micro")
    }
    for row in rows:
        key = (row["cohort"], row["task"], row["matching"])
        first, second = scores[(row["first"], *key)], scores[(row["second"], *key)]
        if row["f1"] is not None:
            assert row["f1"] == pytest.approx(first - second)


def test_every_round_is_scored_on_validation_notes(run):
    rows = read(run, "validation_rounds.json")
    assert {row["round"] for row in rows if row["method"] == "fed-medlora"} == {1, 2}
    assert {row["task"] for row in rows} == {"entities", "modifiers", "relations"}
    assert not [row for row in rows if row["method"].startswith("new-site")]


def test_every_second_round_and_the_last_are_scored_if_the_study_says_two(seeded):
    rows = read(seeded, "validation_rounds.json")
    assert {row["round"] for row in rows} == {2, 3}


def test_a_round_of_fedsa_is_scored_with_what_each_site_keeps(tmp_path, monkeypatch):
    asked = []

    def noted(bench, study, adapter, examples, biases, **more):
        asked.append(adapter)
        return [example.source for example in examples]

    monkeypatch.setattr("fedmedlora.study.lora_bench.LoraBench.decode", noted)
    plain = ("scaling=null", "variants={}", "new_sites={}", "seeds=[]")
    run_study(study_of(tmp_path, "methods=[fedsa-lora]", *plain), tmp_path / "run")
    rounds, cohorts = asked[:4], asked[4:]  # two rounds of two sites, then both sites' test notes
    assert len(cohorts) == 2
    for adapter in asked:
        assert all(tensor.any() for tensor in adapter.tensors.values())
    assert len({adapter.sha256 for adapter in rounds}) == 4
    assert {adapter.sha256 for adapter in cohorts} == {adapter.sha256 for adapter in rounds[2:]}


def test_further_runs_are_runs_of_their_own(run):
    told = read(run, "variants.json")
    assert [one["name"] for one in told] == ["sites-1", "fewer-rounds"]
    for one in told:
        assert (run / one["folder"] / "scores.json").is_file()
    scaled = RunFolder(run / "variants" / "sites-1").study()
    assert scaled.site_names == ("site-1",)
    assert scaled.training.steps == 4  # as many as two sites make
    assert (
        len(read(run / "variants" / "fewer-rounds", "answers/fed-medlora/done.json")["rounds"]) == 1
    )


def test_seeds_are_scored_on_the_same_notes_and_pooled(seeded):
    rows = read(seeded, "seeds.json")
    assert [one["name"] for one in read(seeded, "variants.json")] == ["seed-4"]
    first = {
        (r["method"], r["cohort"], r["task"], r["matching"]): r["f1"]
        for r in read(seeded, "scores.json")
        if (r["level"], r["type"]) == ("typed", "micro")
    }
    assert len(rows) == len(first)
    for row in rows:
        assert row["seeds"] == [3, 4]
        key = (row["method"], row["cohort"], row["task"], row["matching"])
        assert row["f1"][0] == first[key]
        if None not in row["f1"]:
            assert row["mean"] == pytest.approx(sum(row["f1"]) / 2)
            assert row["low"] <= row["high"]


def test_scores_of_one_row_or_all_can_be_made_again(run):
    before = (run / "scores.json").read_bytes()
    rescore(run, method="flexlora")
    assert (run / "scores.json").read_bytes() == before
    rescore(run)
    assert (run / "scores.json").read_bytes() == before
    with pytest.raises(ConfigError, match="no such row; its rows are few-shot"):
        rescore(run, method="flex")


def test_a_run_takes_new_methods_but_no_other_settings_for_those_it_has(run, tmp_path):
    study = main_study(study_of(tmp_path))
    folder = RunFolder(tmp_path / "run")
    folder.begin(study.model_copy(update={"methods": study.methods[:6]}))
    (folder.path / "answers").mkdir()
    folder.begin(study)
    colder = study.with_settings({"methods": [*study.methods[:5], COLDER]}, where="here")
    with pytest.raises(RunError, match=r"methods \(plus-cold\), methods \(as-negative\)"):
        folder.begin(colder)


def test_a_finished_run_takes_more_seeds_of_the_same_notes(tmp_path):
    plain = ("methods=[dictionary]", "scaling=null", "variants={}", "new_sites={}")
    once = (*plain, "seed=3", "seeds=[]", "evaluation.by_round=false")
    run_study(study_of(tmp_path, *once), tmp_path / "run")
    before = (tmp_path / "run" / "scores.json").read_bytes()
    run_study(study_of(tmp_path, *once, "seeds=[3, 4]"), tmp_path / "run")
    assert (tmp_path / "run" / "scores.json").read_bytes() == before
    assert {tuple(row["seeds"]) for row in read(tmp_path / "run", "seeds.json")} == {(3, 4)}
    with pytest.raises(RunError, match=r"differs in data_seed, seed\)"):
        run_study(study_of(tmp_path, *once, "seeds=[4, 3]"), tmp_path / "run")


def test_a_finished_run_is_left_as_it_is(run):
    file = run / "answers" / "fed-medlora" / "done.json"
    before = file.stat().st_mtime_ns
    run_study(study_of(run.parent, FEWER), run)
    assert file.stat().st_mtime_ns == before


def test_seeds_are_pooled_again_when_scores_are_made_again(seeded):
    before = (seeded / "seeds.json").read_bytes()
    (seeded / "seeds.json").unlink()
    rescore(seeded)
    assert (seeded / "seeds.json").read_bytes() == before


def test_few_notes_are_always_among_more_of_them(tmp_path):
    site = load_data(study_of(tmp_path)).site("discharge")
    few, more = (first_notes(site, count, seed=3) for count in (1, 3))
    assert {d.id for d in few.train} < {d.id for d in more.train} < {d.id for d in site.train}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("methods=[fed-medlora, {method: local-adaptation, of: nobody}]", "nobody"),
        ("methods=[zero-shot, {method: local-adaptation}]", "no federated method"),
        ("methods=[fed-medlora, {method: fed-medlora}]", "named twice"),
        ("methods=[{method: fed-medlora, set: {task.tasks: [entities]}}]", "cannot differ"),
        ("methods=[{method: fed-medlora, set: {federation.tau: -1}}]", "federation.tau"),
        ("methods=[fedmedlora]", "fed-medlora"),
        ("new_sites.discharge.notes=[99]", "99 is more than its 4"),
        ("new_sites.discharge.of=[zero-shot]", "no federated method"),
        ("sites.outpatient.strip=[banana]", "sites.outpatient.strip: banana"),
        ("sites.outpatient.adapter.rank=8", "more than adapter.rank"),
        ("partition.sites=2", "sites.outpatient.adapter"),
        ("scaling.sites=[99]", "99"),
        ("variants.x.set={federation.rounds: 0}", "federation.rounds"),
        ("seeds=[1, 1]", "one is named twice"),
        (
            "methods=[{method: fedex-lora, set: {federation.robust.rule: clip}}]",
            "fedex-lora does not average what sites send",
        ),
        (
            "methods=[fedex-lora, {method: fed-medlora, set: {federation.robust.rule: krum}}]",
            "5 are needed",
        ),
        (
            "methods=[fedex-lora, {method: fedsvd, set: {federation.robust.rule: clip}}]",
            "fedsvd does not average what sites send",
        ),
        (
            "methods=[fedex-lora, {method: fedsvd, set: {federation.server.momentum: 0.5}}]",
            "methods: fedsvd: federation.server.momentum is 0.5",
        ),
        (
            "methods=[fedex-lora, {method: flexlora, set: {federation.server.learning_rate: 0.1}}]",
            "methods: flexlora: federation.server.learning_rate is 0.1",
        ),
        ("methods=[{method: rolora, set: {federation.screening.same: 2}}]", "screening.same"),
    ],
)
def test_what_a_study_asks_wrongly_is_said_before_anything_runs(tmp_path, setting, said):
    def run():
        run_study(study_of(tmp_path, setting), tmp_path / "run")

    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        run()
    assert not (tmp_path / "run").exists()


TAGGERS = """methods=[{method: bert, set: {encoder.open_bias: validation}}, bert-single-site,
    bert-centralised, dictionary]"""


def test_token_classifiers_are_rows_like_any_other(tmp_path):
    plain = ("scaling=null", "variants={}", "new_sites={}", "task.tasks=[entities, modifiers]")
    small = "encoder={steps: 2, batch: 4, learning_rate: 2.0e-3, window_words: 40}"
    study = study_of(tmp_path, TAGGERS, small, *plain)
    run_study(study, tmp_path / "run")
    scores = read(tmp_path / "run", "scores.json")
    before = {row["method"] for row in scores}
    assert before == {
        "bert", "bert-single-site/icu", "bert-single-site/outpatient", "bert-centralised",
        "dictionary/icu", "dictionary/outpatient", "dictionary",
    }  # fmt: skip
    assert {row["task"] for row in scores} == {"entities", "modifiers", "relations"}
    done = read(tmp_path / "run", "answers/bert/done.json")
    assert done["adapter_parameters"] < done["backbone_parameters"]
    assert "backbone" not in done  # none was loaded
    assert not (tmp_path / "run" / "adapters" / "bert" / "adapter_config.json").exists()
    text = (tmp_path / "run" / "scores.json").read_bytes()
    rescore(tmp_path / "run")
    assert (tmp_path / "run" / "scores.json").read_bytes() == text


@pytest.mark.parametrize(
    ("relations", "setting", "tasks"),
    [
        (True, [], ("entities", "modifiers")),
        (False, [], ("entities",)),
        (False, ["sites.icu.tasks=[entities, modifiers]"], ("entities", "modifiers")),
        (False, ["task.tasks=[modifiers]"], ("modifiers",)),
    ],
)
def test_a_site_that_never_says_whose_modifiers_are_does_not_teach_them(
    tmp_path, relations, setting, tasks
):
    entities = [
        {"id": "a", "start": 0, "end": 6, "type": "severity"},
        {"id": "b", "start": 7, "end": 11, "type": "problem"},
    ]
    tied = [{"type": "severity", "head": "b", "tail": "a"}] if relations else []
    for split in ("train", "validation", "test"):
        record = {"id": split, "text": f"severe pain {split}", "entities": entities,
                  "relations": tied}  # fmt: skip
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    files = ", ".join(f"{split}: {split}.jsonl" for split in ("train", "validation", "test"))
    site = f"sites={{icu: {{{files}}}}}"
    plain = ("methods=[dictionary]", "new_sites={}", "scaling=null", "variants={}")
    study = study_of(tmp_path, site, *plain, *setting)
    assert load_data(study).site("icu").tasks == tasks
