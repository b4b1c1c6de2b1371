"""A federation of a real PEFT model: torch at the sites, the final folder opens with PEFT."""

import torch
from federation_toy import plan
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from fedmedlora.federation.plan import Declared, SiteLosses, SiteUpdate
from fedmedlora.federation.run import run_federation
from fedmedlora.model.lora import adapter_of, load_adapter, manifest_of, new_adapter_model

SITES = ("even", "odd")


def base():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=16,
            initializer_range=0.2,
        )
    )  # fmt: skip


def adapted():
    model = new_adapter_model(base(), rank=2, alpha=8, dropout=0.0, targets=("all-linear",), seed=1)
    return model, manifest_of(model, backbone="b", tokenizer="t", scheme="s")


class Counting:
    """Learns to count by twos from 0 (even) or 1 (odd)."""

    def __init__(self, name):
        self.name = name
        self.ids = torch.arange(SITES.index(name), 16, 2)[None]

    def declared(self):
        return Declared(1, 8, 8)

    def train(self, adapter, order):
        model, manifest = adapted()
        load_adapter(model, adapter, residual=order.residual)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-2)
        losses = []
        for _ in range(20):
            loss = model(self.ids, labels=self.ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return SiteUpdate(adapter_of(model, manifest), 1, 8, losses[0], losses[-1], 0.0)

    def losses(self, adapters):
        found = []
        for adapter in adapters:
            model, _ = adapted()
            load_adapter(model, adapter)
            with torch.no_grad():
                found.append(model(self.ids, labels=self.ids).loss.item())
        return SiteLosses(found, 8)


def test_a_real_adapter_learns_across_sites_and_opens_with_peft(tmp_path):
    model, manifest = adapted()
    initial = adapter_of(model, manifest)
    a_plan = plan(sites=SITES, rounds=4, method="fed-medlora+", base_model="tiny")
    result = run_federation(
        a_plan, initial, workers={name: Counting(name) for name in SITES}, folder=tmp_path
    )
    scorers = [Counting(name) for name in SITES]
    before, after = (
        sum(scorer.losses([one]).losses[0] for scorer in scorers)
        for one in (initial, result.adapter)
    )
    assert after < before - 0.5
    folder = tmp_path / result.records[-1].checkpoint / "adapter"
    opened = PeftModel.from_pretrained(base(), folder).eval()
    with torch.no_grad():
        load_adapter(model, result.adapter)
        ids = scorers[0].ids
        assert torch.equal(opened(ids).logits, model.eval()(ids).logits)
    again = run_federation(
        a_plan, initial, workers={name: Counting(name) for name in SITES}, folder=tmp_path / "2"
    )
    assert again.adapter.sha256 == result.adapter.sha256
