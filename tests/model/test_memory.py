"""Estimates of memory: against what autograd really keeps, and against the paper's backbones."""

import warnings

import pytest
import torch
from model_toys import tiny_llama, word_tokenizer

from fedmedlora.errors import AdapterError, BackboneError
from fedmedlora.model.lora import new_adapter_model
from fedmedlora.model.memory import Estimator

ALL = ("all-linear",)
LORA = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": ALL}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tiny")
    tokenizer = word_tokenizer()
    tiny_llama(tokenizer).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def kept(model, ids):
    """Bytes that autograd keeps of a forward pass on this machine."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes = {}

    def keep(tensor):
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            sizes[place] = tensor.untyped_storage().nbytes()
            held.append(tensor)
        return tensor

    held = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = model.get_base_model().get_decoder()(input_ids=ids, use_cache=False)
    assert states.last_hidden_state.shape[:2] == ids.shape
    return sum(sizes.values())


@pytest.mark.parametrize(("batch", "tokens"), [(1, 64), (4, 120)])
def test_activations_are_those_that_autograd_keeps(folder, batch, tokens):
    warnings.simplefilter("ignore")
    model = new_adapter_model(
        tiny_llama(word_tokenizer()), **(LORA | {"targets": list(ALL)}), seed=0
    )
    ids = torch.randint(4, 100, (batch, tokens), generator=torch.Generator().manual_seed(0))
    real = kept(model.train(), ids)
    counted = Estimator(str(folder), precision="fp32", **LORA).activations(
        batch=batch, tokens=tokens
    )
    assert real > 0
    assert counted == pytest.approx(real, rel=0.03)


@pytest.mark.parametrize(
    ("name", "parameters", "adapter"),
    [
        ("meta-llama/Llama-3.1-8B", 8_030_261_248, 41_943_040),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400, 11_272_192),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", 8_030_261_248, 41_943_040),
        ("Qwen/Qwen3-4B", 4_022_468_096, 33_030_144),
    ],
)
def test_the_papers_backbones_are_known_without_a_download(name, parameters, adapter):
    own = Estimator(name, precision="nf4", **(LORA | {"rank": 16}))
    assert own.shape.parameters == parameters
    assert own.shape.adapter == adapter
    assert 0 < own.shape.of_a < adapter


def test_more_rows_need_more_and_checkpointing_less(folder):
    own = Estimator(str(folder), precision="fp32", **LORA)
    assert own.weights == own.shape.parameters * 4

    def peak(batch, *, checkpointing=False, objective="answer"):
        return own.training(
            batch=batch, tokens=100, checkpointing=checkpointing, objective=objective
        )

    assert peak(4).activations == pytest.approx(4 * peak(1).activations, rel=0.05)
    assert peak(4, checkpointing=True).activations < peak(4).activations
    assert peak(4, objective="decisions").loss <= peak(4).loss
    whole = peak(4)
    parts = (whole.weights, whole.adapter, whole.activations, whole.loss, whole.passing)
    assert whole.total == sum(parts)
    one, two = (own.decoding(batch=size, tokens=100, merged=False) for size in (1, 2))
    assert own.weights < one < two
    assert own.decoding(batch=1, tokens=100, merged=True) == one + own.weights


def test_precision_changes_the_weights_alone_where_it_should(folder):
    sizes = [
        Estimator(str(folder), precision=precision, **LORA).weights
        for precision in ("fp32", "bf16", "nf4")
    ]
    assert sizes[0] == 2 * sizes[1]
    assert sizes[2] < sizes[1]


def test_what_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(BackboneError, match="no such folder"):
        Estimator("./nowhere", precision="fp32", **LORA)
    with pytest.raises(AdapterError, match="nothing_of_it"):
        Estimator(str(folder), precision="fp32", **(LORA | {"targets": ("nothing_of_it",)}))
    (tmp_path / "config.json").write_text('{"model_type": "none"}', encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BackboneError, match="configuration"):
        Estimator(str(tmp_path), precision="fp32", **LORA)
