"""Scoring many adapters at once gives the losses of scoring each by itself."""

import warnings

import numpy as np
import pytest
from model_toys import random_source, tiny_llama, toy_example, word_tokenizer

from fedmedlora.errors import AdapterError, DataError
from fedmedlora.model import beginnings, candidates
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.candidates import candidate_losses, losses_by_row
from fedmedlora.model.encoding import encode_examples
from fedmedlora.model.lora import adapter_of, load_adapter, manifest_of, new_adapter_model
from fedmedlora.model.losses import mean_loss

TOKENIZER = word_tokenizer()
ROWS, _ = encode_examples(
    [toy_example(random_source(i), number=i) for i in range(20)], TOKENIZER, max_tokens=160
)


@pytest.fixture
def model():
    warnings.simplefilter("ignore")
    base = tiny_llama(TOKENIZER)
    return new_adapter_model(base, rank=4, alpha=8, dropout=0.1, targets=["all-linear"], seed=0)


@pytest.fixture
def adapters(model):
    manifest = manifest_of(model, backbone="b", tokenizer="t", scheme="s")
    start, rng = adapter_of(model, manifest), np.random.default_rng(0)
    return [
        Adapter(
            manifest,
            {
                name: (tensor + rng.normal(0, 0.05, tensor.shape)).astype(np.float32)
                for name, tensor in start.tensors.items()
            },
        )
        for _ in range(3)
    ]


@pytest.mark.parametrize("objective", ["answer", "decisions"])
def test_losses_are_those_of_one_adapter_after_the_other(model, adapters, objective):
    found, tokens = candidate_losses(model, adapters, ROWS, objective=objective)
    assert tokens == sum(row.targets for row in ROWS)
    for adapter, loss in zip(adapters, found, strict=True):
        load_adapter(model, adapter)
        alone, _ = mean_loss(model, ROWS, batch=1, objective=objective)
        assert loss == pytest.approx(alone, abs=1e-5)
    assert len({round(loss, 3) for loss in found}) == 3


def test_the_prompts_beginnings_are_computed_once_an_adapter(model, adapters, monkeypatch):
    computed = []
    plain = candidates.Computed

    def counted(projection, ids):
        computed.append(tuple(ids))
        return plain(projection, ids)

    monkeypatch.setattr(candidates, "Computed", counted)
    monkeypatch.setattr(beginnings, "LEAST", 4)
    candidate_losses(model, adapters, ROWS, objective="answer")
    [shared] = set(computed)
    assert len(computed) == len(adapters)
    assert len(shared) >= 4
    assert all(row.ids[: len(shared)] == shared for row in ROWS)


def test_there_must_be_rows_and_adapters_that_fit(model, adapters):
    with pytest.raises(DataError, match="validation loss"):
        candidate_losses(model, adapters, [], objective="answer")
    broken = Adapter(adapters[0].manifest, dict(list(adapters[0].tensors.items())[:-1]))
    with pytest.raises(AdapterError):
        candidate_losses(model, [broken], ROWS, objective="answer")


@pytest.mark.parametrize("objective", ["answer", "decisions"])
def test_losses_by_row_are_each_rows_own_and_sum_to_the_mean(
    model, adapters, objective, monkeypatch
):
    monkeypatch.setattr(beginnings, "LEAST", 4)
    found = losses_by_row(model, adapters, ROWS, objective=objective)
    assert found.shape == (3, 20)
    means, tokens = candidate_losses(model, adapters, ROWS, objective=objective)
    assert found.sum(axis=1) / tokens == pytest.approx(means, abs=1e-5)
    load_adapter(model, adapters[1])
    for place in (0, 7, 19):
        alone, targets = mean_loss(model, [ROWS[place]], objective=objective)
        assert found[1, place] == pytest.approx(alone * targets, abs=1e-4)
