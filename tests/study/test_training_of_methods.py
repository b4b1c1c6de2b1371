"""How methods really train, from the study file on: rates, optimisers, memory, processes."""

import pytest
from test_study_settings import study_of
from torch.optim.optimizer import register_optimizer_step_pre_hook

from fedmedlora.errors import ConfigError
from fedmedlora.study import lora_bench, methods
from fedmedlora.study.arms import study_arms
from fedmedlora.study.data import load_data
from fedmedlora.study.methods import MethodRunner
from fedmedlora.study.variants import further_runs

PLAIN = ("scaling=null", "variants={}", "new_sites={}", "seeds=[]", "evaluation.by_round=false")


def arms_of(study):
    return {arm.label: arm for arm in study_arms(study)}


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Label -> the plan that a method's federation would get."""

    class Planned(Exception):
        pass

    def note(plan, *_, **__):
        raise Planned(plan)

    monkeypatch.setattr(methods, "run_federation", note)

    def plan_of(label, *settings):
        study = study_of(tmp_path, *PLAIN, *settings)
        runner = MethodRunner(study, load_data(study), tmp_path, lambda kind, **facts: None)
        with pytest.raises(Planned) as caught:
            runner.train(arms_of(study)[label])
        return caught.value.args[0]

    return plan_of


def test_the_server_steps_as_the_method_does_unless_the_study_says_how(planned):
    names = "methods=[fed-medlora, fedavgm, fedadam, single-site, centralised]"
    told = "federation.server.momentum=0.5"

    def server(label, *settings):
        options = planned(label, names, *settings).server
        return options.learning_rate, options.momentum

    assert server("fed-medlora") == (1, 0)
    assert server("fedavgm") == (1, 0.9)
    assert server("fedadam")[0] == 0.01
    assert server("fed-medlora", told) == server("fedavgm", told) == (1, 0.5)
    # Nothing is averaged there.
    assert server("single-site/icu", told) == server("centralised", told) == (1, 0)


@pytest.mark.parametrize("method", ["fed-medlora", "bert", "centralised"])
def test_a_rate_over_the_run_falls_from_round_to_round(tmp_path, method):
    section = "encoder" if method == "bert" else "training"
    settings = (
        f"methods=[{method}]", "federation.rounds=2", f"{section}.schedule=run",
        f"{section}.steps=2", f"{section}.learning_rate=8e-4", f"{section}.warmup=0",
    )  # fmt: skip
    study = study_of(tmp_path, *PLAIN, *settings)
    runner = MethodRunner(study, load_data(study), tmp_path / "run", lambda kind, facts: None)
    rates = []
    watched = register_optimizer_step_pre_hook(
        lambda optimiser, *_: rates.append(optimiser.param_groups[0]["lr"])
    )
    try:
        runner.train(arms_of(study)[method])
    finally:
        watched.remove()
    if method == "centralised":  # twice the steps, on the notes of two sites
        wanted = [8e-4, 7e-4, 6e-4, 5e-4, 4e-4, 3e-4, 2e-4, 1e-4]
    else:
        wanted = [8e-4, 6e-4, 8e-4, 6e-4, 4e-4, 2e-4, 4e-4, 2e-4]
    assert rates == pytest.approx(wanted)


def test_more_sites_step_longer_and_pooled_training_as_ever(tmp_path):
    study = study_of(
        tmp_path, "new_sites={}", "variants={}", "training.learning_rate=1e-3",
        "encoder.steps=10", "encoder.learning_rate=2e-3",
        "scaling={sites: [1, 4], rate: linear, methods: [fed-medlora, centralised, bert]}",
    )  # fmt: skip
    one, four = ({arm.label: arm.study for arm in study_arms(run.study)}
                 for run in further_runs(study) if run.sites)  # fmt: skip
    assert [run["fed-medlora"].training.learning_rate for run in (one, four)] == [5e-4, 2e-3]
    assert [run["fed-medlora"].training.steps for run in (one, four)] == [4, 1]
    assert [run["centralised"].training.learning_rate for run in (one, four)] == [1e-3, 1e-3]
    assert [run["bert"].encoder.learning_rate for run in (one, four)] == [1e-3, 4e-3]
    assert [run["bert"].encoder.steps for run in (one, four)] == [20, 5]
    assert [run["bert"].adaptation.learning_rate for run in (one, four)] == [1e-3, 1e-3]


@pytest.mark.parametrize(
    ("method", "holders"),
    [
        ("fed-medlora", {"icu", "outpatient"}),
        ("fedsa-lora", {"icu", "outpatient"}),
        ("bert", {"icu", "outpatient"}),
        ("centralised", {"pooled"}),
        ("flexlora", set()),
    ],
)
def test_optimisers_are_kept_at_the_sites_where_the_study_says_so(tmp_path, method, holders):
    kept = ("training.keep_optimiser=true", "encoder.keep_optimiser=true")
    study = study_of(tmp_path, *PLAIN, *kept, f"methods=[{method}]", "encoder.steps=1")
    runner = MethodRunner(study, load_data(study), tmp_path / "run", lambda kind, facts: None)
    runner.train(arms_of(study)[method])
    left = (tmp_path / "run").rglob("optimiser/round-0002/state.safetensors")
    assert {place.parents[2].name for place in left} == holders


@pytest.mark.parametrize(
    ("setting", "free", "never", "wanted"),
    [
        ("auto", 1e12, 0, False),
        ("auto", 1e6, 0, True),
        ("auto", 1e6, 50_000_000, False),  # the embedded backbone is not even estimated
        ("true", 1e12, 0, True),
        ("false", 1e6, 0, False),
    ],
)
def test_checkpointing_is_decided_by_an_estimate(
    tmp_path, monkeypatch, setting, free, never, wanted
):
    monkeypatch.setattr(lora_bench, "available_memory", lambda device: int(free))
    monkeypatch.setattr(lora_bench, "_NEVER_CHECKPOINTED", never)
    study = study_of(
        tmp_path, *PLAIN, "methods=[fed-medlora]", f"training.gradient_checkpointing={setting}"
    )
    runner = MethodRunner(study, load_data(study), tmp_path / "run", lambda kind, facts: None)
    worker = runner.worker(arms_of(study)["fed-medlora"], "icu")
    assert worker.settings.gradient_checkpointing is wanted


def test_sites_in_worker_processes_give_the_same_adapter(tmp_path):
    def trained(*settings):
        study = study_of(tmp_path, *PLAIN, "methods=[fed-medlora]", *settings)
        folder = tmp_path / str(len(settings))
        runner = MethodRunner(study, load_data(study), folder, lambda kind, facts: None)
        return runner.train(arms_of(study)["fed-medlora"]).adapter.sha256

    assert trained() == trained("runtime.site_processes=2")


@pytest.mark.parametrize("other", ["runtime.processes=2", "federation.engine=flower"])
def test_two_ways_of_running_sites_at_once_are_refused(tmp_path, other):
    with pytest.raises(ConfigError, match="site_processes"):
        study_of(tmp_path, *PLAIN, "runtime.site_processes=2", other)


@pytest.mark.parametrize("count", [1, 10_000])
def test_candidates_are_scored_on_so_many_rows_the_same_in_every_round(tmp_path, count):
    study = study_of(
        tmp_path, *PLAIN, "methods=[fed-medlora+]", f"federation.validation_rows={count}"
    )

    def rows():
        runner = MethodRunner(study, load_data(study), tmp_path / "run", lambda kind, facts: None)
        return runner.worker(arms_of(study)["fed-medlora+"], "icu")._validation

    all_rows = MethodRunner(study, load_data(study), tmp_path, lambda kind, facts: None).lora
    whole = all_rows.encode(load_data(study).site("icu"), study).validation
    assert len(whole) > 1
    assert len(rows()) == min(count, len(whole))
    assert rows() == rows()
    assert {row.ids for row in rows()} <= {row.ids for row in whole}
