"""Secure aggregation in a study file: what it turns off, what is refused, and a whole study."""

import numpy as np
import pytest

from fedmedlora.config import check_study
from fedmedlora.errors import ConfigError, RunError
from fedmedlora.federation.secure.answering import SecureSite
from fedmedlora.federation.verify import verify_federation
from fedmedlora.model.adapter_files import read_adapter
from fedmedlora.study.arms import study_arms
from fedmedlora.study.data import load_data
from fedmedlora.study.methods import MethodRunner
from fedmedlora.study.planning import federation_plan

SITE = {"synthetic": {"style": "icu", "train": 2, "validation": 1, "test": 1}}


def content(sites=3, methods=("fed-medlora",), **federation):
    return {
        "name": "toy",
        "methods": list(methods),
        "sites": {f"s{n}": SITE for n in range(sites)},
        "federation": {"secure_aggregation": {}, **federation},
    }


def arms(sites=3, methods=("fed-medlora",), **federation):
    return study_arms(check_study(content(sites, methods, **federation), source="toy"))


def plan_of(study):
    [arm] = [arm for arm in study_arms(study) if arm.kind == "federated"]
    return federation_plan(arm, study.site_names)


def test_where_the_study_is_silent_what_looks_at_one_update_is_off_and_written_down():
    study = check_study(content(), source="toy")
    federation = study.federation
    assert federation.wire == "fp32"
    looks = federation.screening
    assert (looks.norms, looks.directions, looks.riders) == ("off", "off", "off")
    again = check_study(study.model_dump(mode="json", exclude_none=True), source="again")
    assert again == study
    plan = plan_of(study)
    assert plan.secure is not None
    assert plan.screening.is_off


def test_without_it_nothing_is_turned_off():
    made = content()
    del made["federation"]
    study = check_study(made, source="toy")
    assert study.federation.secure_aggregation is None
    assert (study.federation.wire, study.federation.screening.norms) == ("bf16", "refuse")
    assert plan_of(study).secure is None


@pytest.mark.parametrize(
    ("federation", "told"),
    [
        ({"wire": "bf16"}, r"wire: bf16 cannot be with secure_aggregation: .*64 bits.*say fp32"),
        ({"wire": "int8"}, r"wire: int8 cannot be"),
        ({"screening": {"norms": "refuse"}}, r"screening.norms: refuse cannot .*single updates"),
        ({"screening": {"directions": "flag"}}, r"screening.directions: flag cannot"),
        ({"screening": {"riders": "refuse"}}, r"screening.riders: refuse cannot"),
        ({"robust": {"rule": "median"}}, r"robust.rule: median cannot"),
        ({"robust": {"rule": "clip"}}, r"robust.rule: clip cannot"),
        ({"validation": "server"}, r"validation: server cannot .*each scores its own"),
        ({"secure_aggregation": True}, "secure_aggregation cannot be true or false"),
        ({"secure_aggregation": {"threshold": 0}}, "threshold"),
        ({"secure_aggregation": {"threshold": 1}}, r"threshold: 1 of 3 sites.*2 at least"),
        ({"secure_aggregation": {"threshold": 4}}, "threshold: 4 of 3 sites"),
        ({"secure_aggregation": {"largest_norm": 0}}, "largest_norm"),
        ({"secure_aggregation": {"largest_weight": -1}}, "largest_weight"),
        ({"secure_aggregation": {"largest_weight": float("inf")}}, "largest_weight"),
        ({"secure_aggregation": {"reference_loss": float("nan")}}, "reference_loss"),
        ({"secure_aggregation": {"masks": 3}}, "masks"),
        ({"min_sites": 2}, r"min_sites is 2, and 3 of 3 sites are needed to unmask"),
    ],
)
def test_what_cannot_be_with_it_is_refused_when_the_study_is_read(federation, told):
    with pytest.raises(ConfigError, match=told):
        arms(**federation)


@pytest.mark.parametrize(
    ("method", "told"),
    [("fedex-lora", "own pair of factors"), ("flexlora", "product of each site's own factors")],
)
def test_methods_that_need_each_sites_factors_are_refused_with_the_reason(method, told):
    with pytest.raises(ConfigError, match=f"methods: {method}: .*{told}"):
        arms(methods=[method])


@pytest.mark.parametrize(
    "method",
    ["fed-medlora", "fed-medlora+", "ffa-lora", "rolora", "fedsa-lora", "fedsvd", "fedprox",
     "fedavgm", "fedadam", "bert"],
)  # fmt: skip
def test_methods_that_need_the_sum_alone_may_run(method):
    assert [arm.label for arm in arms(methods=[method])] == [method]


@pytest.mark.parametrize("sites", [2])
def test_two_sites_are_too_few(sites):
    with pytest.raises(ConfigError, match="2 sites are too few"):
        arms(sites)


def test_ranks_of_their_own_are_refused():
    made = content()
    made["sites"] = {**made["sites"], "s0": {**SITE, "adapter": {"rank": 2, "alpha": 4}}}
    with pytest.raises(ConfigError, match=r"sites.s0.adapter: .*no sum"):
        study_arms(check_study(made, source="toy"))


def test_fewer_sites_than_all_may_do_down_to_the_threshold():
    few = {"min_sites": 3, "secure_aggregation": {"threshold": 3}}
    assert arms(5, **few)
    with pytest.raises(ConfigError, match=r"min_sites is 2, and 3 of 5"):
        arms(5, **{**few, "min_sites": 2})


def test_one_method_alone_may_aggregate_securely():
    made = content(methods=["fed-medlora", "single-site"])
    made["federation"] = {}
    made["methods"].append(
        {"method": "fed-medlora", "label": "masked", "set": {"federation.secure_aggregation": {}}}
    )
    found = {arm.label: arm for arm in study_arms(check_study(made, source="toy"))}
    assert found["masked"].study.federation.wire == "fp32"
    assert found["masked"].study.federation.screening.norms == "off"
    assert found["fed-medlora"].study.federation.wire == "bf16"


def test_rows_that_are_no_federation_train_alone_as_ever():
    study = check_study(content(methods=["single-site", "centralised"]), source="toy")
    assert [federation_plan(arm, ("s0",)).secure for arm in study_arms(study)] == [None] * 4


STUDY = {
    "name": "toy",
    "methods": ["fed-medlora+"],
    "sites": {
        style: {"synthetic": {"style": style, "train": 2, "validation": 1, "test": 1}}
        for style in ("icu", "outpatient", "discharge")
    },
    "adapter": {"rank": 2, "alpha": 8},
    "task": {"tasks": ["entities"], "heads": "numbered", "prompt": "compact", "window_words": 30},
    "training": {"steps": 2, "batch": 2, "learning_rate": 1e-3, "objective": "decisions"},
    "federation": {"rounds": 2, "wire": "fp32"},
}


def trained(folder, method, **federation):
    made = {**STUDY, "methods": [method], "federation": {**STUDY["federation"], **federation}}
    study = check_study(made, source="toy")
    runner = MethodRunner(study, load_data(study), folder, lambda kind, facts: None)
    [arm] = study_arms(study)
    return runner.train(arm)


@pytest.mark.slow
def test_a_whole_study_ends_with_the_plain_adapter(tmp_path):
    # One round: the optimiser makes much of last bits in a second one.
    plain = trained(tmp_path / "plain", "fed-medlora", rounds=1)
    masked = trained(tmp_path / "masked", "fed-medlora", rounds=1, secure_aggregation={})
    for name, tensor in plain.adapter.tensors.items():
        apart = np.linalg.norm(masked.adapter.tensors[name] - tensor)
        assert apart <= 1e-5 * np.linalg.norm(tensor)
    assert [record.secure["weight"] for record in masked.records] == pytest.approx(
        [sum(site.tokens for site in record.sites.values()) for record in plain.records]
    )
    again = trained(tmp_path / "masked", "fed-medlora", rounds=1, secure_aggregation={})
    assert again.adapter.sha256 == masked.adapter.sha256


@pytest.mark.slow
def test_sites_score_themselves_in_a_whole_study(tmp_path):
    masked = trained(tmp_path, "fed-medlora+", secure_aggregation={}, rounds=1)
    assert masked.records[0].secure["error"] <= 1e-5
    assert masked.records[0].sites["icu"].validation_loss is None


@pytest.mark.slow
def test_each_round_of_a_whole_study_ends_with_the_plain_mean_of_what_its_sites_trained(
    tmp_path, monkeypatch
):
    # Not with the adapters of a plain run: training makes much of last bits, from round 2 on.
    trained_there, send = [], SecureSite.row_reply

    def noted(self, content, update, *, before, losses):
        number = content["config"]["round"]
        trained_there.append((number, update.tokens, dict(update.adapter.tensors)))
        return send(self, content, update, before=before, losses=losses)

    monkeypatch.setattr(SecureSite, "row_reply", noted)
    trained(tmp_path, "fed-medlora", secure_aggregation={}, keep_replies=True)
    federation = tmp_path / "federation" / "fed-medlora"
    for number in (1, 2):
        after = read_adapter(federation / f"round-000{number}" / "adapter").tensors
        own = [(tokens, tensors) for at, tokens, tensors in trained_there if at == number]
        assert len(own) == 3
        total = sum(tokens for tokens, _ in own)
        for name, tensor in after.items():
            mean = sum(tokens / total * tensors[name].astype(np.float64) for tokens, tensors in own)
            assert np.linalg.norm(tensor - mean) <= 1e-5 * np.linalg.norm(mean)
    assert all(verdict.same for verdict in verify_federation(federation))


@pytest.mark.slow
def test_verify_says_what_it_needs_of_masked_rounds(tmp_path):
    trained(tmp_path, "fed-medlora", secure_aggregation={}, rounds=1)
    with pytest.raises(RunError, match=r"can be verified, with federation\.keep_replies"):
        verify_federation(tmp_path / "federation" / "fed-medlora")
