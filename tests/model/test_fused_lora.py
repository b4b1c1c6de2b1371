"""Fused LoRA layers give PEFT's outputs and gradients; layers that are not plain are left alone."""

import warnings

import pytest
import torch
from model_toys import tiny_llama, word_tokenizer
from torch import nn

from fedmedlora.model.fused_lora import LoraLinear, fused_lora
from fedmedlora.model.lora import new_adapter_model

TOKENIZER = word_tokenizer()
LAYERS = 7


def adapted(*, dropout=0.0, bias=False):
    warnings.simplefilter("ignore")
    base = tiny_llama(TOKENIZER)
    if bias:
        for layer in base.model.layers:
            old = layer.self_attn.q_proj
            layer.self_attn.q_proj = nn.Linear(old.in_features, old.out_features)
    model = new_adapter_model(
        base, rank=4, alpha=12, dropout=dropout, targets=["all-linear"], seed=0
    )
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    return model.train()


def gradients(model):
    ids = torch.randint(4, 100, (3, 17), generator=torch.Generator().manual_seed(2))
    loss = model(input_ids=ids, labels=ids).loss
    model.zero_grad()
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("frozen", [None, "lora_A", "lora_B"])
def test_loss_and_gradients_are_pefts(frozen, bias):
    model = adapted(bias=bias)
    for name, parameter in model.named_parameters():
        if frozen is not None and frozen in name:
            parameter.requires_grad_(False)
    loss, wanted = gradients(model)
    with fused_lora(model) as layers:
        fused, found = gradients(model)
    assert layers == LAYERS * model.config.num_hidden_layers
    assert float(fused) == pytest.approx(float(loss), rel=1e-6)
    assert found.keys() == wanted.keys()
    assert wanted
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() < 1e-5 * gradient.norm(), name


def test_the_gradient_is_that_of_finite_differences():
    def random(*shape):
        return torch.randn(shape, dtype=torch.float64)

    x, a, b = (value.requires_grad_() for value in (random(6, 5), random(2, 5), random(4, 2)))
    weight, bias = random(4, 5), random(4)
    assert torch.autograd.gradcheck(
        lambda x, a, b: LoraLinear.apply(x, weight, bias, a, b, 1.5), (x, a, b)
    )


def test_afterwards_every_layer_is_pefts_again():
    model = adapted()
    before = {name: module.forward for name, module in model.named_modules()}
    with pytest.raises(RuntimeError, match="stop"), fused_lora(model):
        raise RuntimeError("stop")
    assert {name: module.forward for name, module in model.named_modules()} == before


def test_layers_with_dropout_or_a_second_adapter_are_left_to_peft():
    with fused_lora(adapted(dropout=0.1)) as layers:
        assert layers == 0
    model = adapted()
    model.add_adapter("residual", model.peft_config["default"])
    model.base_model.set_adapter(["default", "residual"])
    with fused_lora(model) as layers:
        assert layers == 0
