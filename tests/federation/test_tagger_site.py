"""Taggers in a federation: what is sent, how it is averaged, and that rounds can be resumed."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "model"))

from tagger_toys import ALL, SCHEME, note, save_encoder

from fedmedlora.errors import DataError
from fedmedlora.federation.plan import FederationPlan, Order
from fedmedlora.federation.run import run_federation
from fedmedlora.federation.tagger_site import TaggerSite
from fedmedlora.model.adapter import check_same_lineage
from fedmedlora.model.adapter_files import read_adapter, save_adapter
from fedmedlora.model.packing import pack, unpack
from fedmedlora.model.tagger import load_state, load_tagger, state_of
from fedmedlora.model.tagger_answers import encode_for
from fedmedlora.model.tagger_training import TaggerSettings, mean_tagging_loss
from fedmedlora.tasks.build import build_examples

SETTINGS = TaggerSettings(steps=3, batch=2, learning_rate=1e-3)
NOTES = {
    "north": note("severe pain", ("severity", 0, 6), ("problem", 7, 11), relations=[(1, 0)]),
    "south": note("takes aspirin and aspirin", ("drug", 6, 13), ("drug", 18, 25)),
}


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    return load_tagger(str(save_encoder(tmp_path_factory.mktemp("e"))), scheme=SCHEME, seed=1)


@pytest.fixture(autouse=True)
def as_loaded(tagger):
    load_state(tagger, tagger.initial)


def rows_of(tagger, name, covers=ALL):
    examples, _ = build_examples(
        [NOTES[name]], covers=covers, scheme=SCHEME, settings=SETTINGS.tasks()
    )
    return encode_for(tagger, examples, max_tokens=64)[0]


def site(tagger, name, **changes):
    return TaggerSite(
        name,
        tagger,
        **{
            "train": rows_of(tagger, name),
            "validation": rows_of(tagger, name),
            "settings": SETTINGS,
            "seed": 5,
            **changes,
        },
    )


def sites(tagger):
    return {name: site(tagger, name) for name in NOTES}


def plan(**changes):
    return FederationPlan(
        **{"run_id": "toy", "sites": tuple(NOTES), "rounds": 1, "wire": "fp32", **changes}
    )


def test_a_round_ends_with_the_average_by_tokens_of_what_the_sites_sent(tagger, tmp_path):
    updates = {n: site(tagger, n).train(tagger.initial, Order(1)) for n in NOTES}
    tokens = {n: sum(row.targets for row in rows_of(tagger, n)) for n in NOTES}
    assert {n: update.tokens for n, update in updates.items()} == tokens
    total = sum(tokens.values())
    result = run_federation(plan(), tagger.initial, workers=sites(tagger), folder=tmp_path)
    weights = {n: record.weight for n, record in result.records[0].sites.items()}
    assert weights == pytest.approx({n: count / total for n, count in tokens.items()})
    for name, averaged in result.adapter.tensors.items():
        expected = sum(
            np.float64(tokens[n] / total) * updates[n].adapter.tensors[name] for n in NOTES
        )
        np.testing.assert_allclose(averaged, expected, rtol=1e-6, atol=1e-7)


def test_embeddings_are_not_sent_and_stay_the_same_through_rounds(tagger, tmp_path):
    before = {
        n: p.clone() for n, p in tagger.model.named_parameters() if "embeddings" in n.split(".")
    }
    result = run_federation(plan(rounds=2), tagger.initial, workers=sites(tagger), folder=tmp_path)
    assert len(before) == 5
    assert not set(before) & set(result.adapter.tensors)
    after = dict(tagger.model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not set(tagger.initial.tensors) ^ (set(after) - set(before))
    sent = sum(values.size for values in tagger.initial.tensors.values())
    for record in result.records[1].sites.values():
        assert 4 * sent < record.bytes_up < 4 * sent + 20_000


def test_a_worker_depends_on_nothing_but_the_state_that_it_is_given(tagger):
    first = site(tagger, "south").train(tagger.initial, Order(1))
    worker = site(tagger, "south")
    worker.train(first.adapter, Order(2))
    again = worker.train(tagger.initial, Order(1))
    assert again.adapter.sha256 == first.adapter.sha256
    assert worker.train(tagger.initial, Order(2)).adapter.sha256 != first.adapter.sha256


def test_a_site_tells_its_steps_and_losses(tagger):
    told = []
    worker = site(tagger, "north", on_step=lambda *facts: told.append(facts))
    update = worker.train(tagger.initial, Order(4))
    assert [facts[:4] for facts in told] == [("north", 4, n, 3) for n in (1, 2, 3)]
    assert (update.examples, update.counts) == (2, {"steps": 3})
    assert update.loss_first == told[0][4]
    assert update.loss_last == told[2][4]


def test_a_site_scores_states_on_its_validation_rows(tagger):
    trained = site(tagger, "north", settings=replace(SETTINGS, steps=30)).train(
        tagger.initial, Order(1)
    )
    scores = site(tagger, "north").losses([tagger.initial, trained.adapter])
    load_state(tagger, tagger.initial)
    expected = mean_tagging_loss(tagger, rows_of(tagger, "north"))
    assert (scores.losses[0], scores.tokens) == (pytest.approx(expected[0]), expected[1])
    assert scores.losses[1] < scores.losses[0]


def test_a_site_that_covers_no_drug_leaves_the_drug_labels_as_they_were(tagger):
    covers = frozenset({"problem", "severity"})
    settings = replace(SETTINGS, weight_decay=0.0)
    rows = rows_of(tagger, "north", covers)
    update = site(tagger, "north", train=rows, settings=settings).train(tagger.initial, Order(1))
    before, after = (a.tensors["classifier.weight"] for a in (tagger.initial, update.adapter))
    drug, dosage, problem = slice(3, 5), slice(7, 9), slice(1, 3)
    np.testing.assert_array_equal(before[drug], after[drug])
    np.testing.assert_array_equal(before[dosage], after[dosage])
    assert not np.array_equal(before[problem], after[problem])


def test_a_federation_that_was_interrupted_goes_on_to_the_same_end(tagger, tmp_path):
    whole = run_federation(
        plan(rounds=2), tagger.initial, workers=sites(tagger), folder=tmp_path / "whole"
    )
    parts = tmp_path / "parts"
    run_federation(plan(rounds=1), tagger.initial, workers=sites(tagger), folder=parts)
    result = run_federation(
        plan(rounds=2), tagger.initial, workers=sites(tagger), folder=parts, resume=True
    )
    assert result.adapter.sha256 == whole.adapter.sha256


def test_a_state_survives_the_wire_and_a_folder(tagger, tmp_path):
    state = tagger.initial
    assert unpack(pack(state, "fp32"), state.manifest, "fp32").sha256 == state.sha256
    save_adapter(state, tmp_path / "state", base_model=tagger.path)
    read = read_adapter(tmp_path / "state")
    assert read.sha256 == state.sha256
    check_same_lineage(read.manifest, state.manifest)
    record = json.loads((tmp_path / "state" / "fedmedlora.json").read_text())
    assert record["manifest"]["targets"] == ["whole-model"]
    load_state(tagger, read)
    assert state_of(tagger).sha256 == state.sha256


def test_scoring_by_the_sites_weighs_them(tagger, tmp_path):
    result = run_federation(
        plan(method="fed-medlora+"), tagger.initial, workers=sites(tagger), folder=tmp_path
    )
    assert all(record.scoring == "ok" for record in result.records[0].sites.values())


def test_a_site_without_rows_fails_with_what_is_missing(tagger):
    with pytest.raises(DataError, match="no example"):
        site(tagger, "north", train=[]).train(tagger.initial, Order(1))
