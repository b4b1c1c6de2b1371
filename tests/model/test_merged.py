"""A merged model computes what the adapter beside the weights does, and is itself afterwards."""

import warnings

import pytest
import torch
from model_toys import tiny_llama, word_tokenizer
from torch import nn

from fedmedlora.model.lora import new_adapter_model
from fedmedlora.model.merged import merged

IDS = torch.randint(4, 100, (3, 17), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def model():
    warnings.simplefilter("ignore")
    model = new_adapter_model(
        tiny_llama(word_tokenizer()), rank=4, alpha=12, dropout=0.1, targets=["all-linear"], seed=0
    )
    model.add_adapter("residual", model.peft_config["default"])
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    return model.eval()


@pytest.mark.parametrize("active", [["default"], ["default", "residual"]])
def test_logits_are_the_same_and_the_weights_come_back(model, active):
    model.base_model.set_adapter(active)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    methods = {name: module.forward for name, module in model.named_modules()}
    with torch.no_grad():
        wanted = model(IDS).logits
        with merged(model) as layers:
            found = model(IDS).logits
        again = model(IDS).logits
    assert layers == 7 * model.config.num_hidden_layers
    assert not torch.equal(found, tiny_llama(word_tokenizer())(IDS).logits)
    assert torch.allclose(found, wanted, atol=1e-4)
    assert torch.equal(again, wanted)
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name: module.forward for name, module in model.named_modules()} == methods


def test_what_fails_within_leaves_the_weights_as_they_were(model):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(RuntimeError, match="stop"), merged(model):
        raise RuntimeError("stop")
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_weights_of_half_precision_are_left_beside_their_adapter():
    warnings.simplefilter("ignore")
    model = new_adapter_model(
        tiny_llama(word_tokenizer()).to(torch.bfloat16), rank=4, alpha=12, dropout=0,
        targets=["all-linear"], seed=0,
    )  # fmt: skip
    with merged(model) as layers:
        assert layers == 0
