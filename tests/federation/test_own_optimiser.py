"""Optimisers that go on from round to round: two rounds are one, and a round can be made again."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "model"))

from model_toys import random_source, tiny_llama, toy_example, word_tokenizer
from tagger_toys import SCHEME, save_encoder
from test_tagger_site import rows_of

from fedmedlora.errors import AdapterError
from fedmedlora.federation.own_optimiser import OwnOptimiser
from fedmedlora.federation.plan import Order
from fedmedlora.federation.site import AdapterSite, Workbench
from fedmedlora.federation.tagger_site import TaggerSite
from fedmedlora.model.backbone import Backbone
from fedmedlora.model.encoding import encode_examples
from fedmedlora.model.lora import adapter_of, manifest_of, new_adapter_model
from fedmedlora.model.optimiser_state import knows_all, put_optimiser_state
from fedmedlora.model.tagger import load_tagger
from fedmedlora.model.tagger_training import TaggerSettings
from fedmedlora.model.training import TrainingSettings

TOKENIZER = word_tokenizer()


@pytest.fixture(scope="module")
def bench():
    model = new_adapter_model(
        tiny_llama(TOKENIZER), rank=4, alpha=8, dropout=0.0, targets=["all-linear"], seed=0
    ).eval()
    manifest = manifest_of(model, backbone="b", tokenizer="t", scheme="s")
    backbone = Backbone("toy", Path("toy"), model, TOKENIZER, "fp32", "b", "t")
    return Workbench(backbone, model, manifest, adapter_of(model, manifest))


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    return load_tagger(str(save_encoder(tmp_path_factory.mktemp("e"))), scheme=SCHEME, seed=1)


@pytest.fixture(params=["adapter", "tagger"])
def kind(request):
    """(settings -> a site with an optimiser's folder, or none) and what it starts from.

    The rows fill one batch: every step sees the same, in whatever order.
    """
    base = {"batch": 2, "learning_rate": 2e-3, "warmup": 0.0, "schedule": "run"}
    if request.param == "adapter":
        bench = request.getfixturevalue("bench")
        examples = [toy_example(random_source(i), number=i) for i in range(2)]
        rows = encode_examples(examples, TOKENIZER, max_tokens=160)[0]

        def site(kept=None, **more):
            settings = TrainingSettings(**base, **more)
            return AdapterSite(
                "north", bench, train=rows, validation=(), settings=settings, seed=3, optimiser=kept
            )

        return site, bench.initial
    tagger = request.getfixturevalue("tagger")
    rows = rows_of(tagger, "south")

    def site(kept=None, **more):
        settings = TaggerSettings(**{**base, "batch": len(rows)}, **more)
        return TaggerSite("north", tagger, train=rows, settings=settings, seed=3, optimiser=kept)

    return site, tagger.initial


def far(one, other):
    return max(float(abs(one.tensors[n] - other.tensors[n]).max()) for n in one.tensors)


def test_two_rounds_with_one_optimiser_are_one_long_round(kind, tmp_path):
    make, start = kind
    whole = make(steps=6, rounds=1).train(start, Order(1)).adapter

    def halves(kept):
        site = make(kept, steps=3, rounds=2)
        return site.train(site.train(start, Order(1)).adapter, Order(2)).adapter

    assert far(whole, halves(OwnOptimiser(tmp_path / "kept"))) < 1e-6
    assert far(whole, halves(None)) > 1e-4


def test_a_site_declares_what_its_rounds_report(kind):
    make, start = kind
    site = make(steps=1)
    update = site.train(start, Order(1))
    declared = site.declared()
    assert (declared.examples, declared.tokens) == (update.examples, update.tokens)


def test_a_round_made_again_is_the_same_whatever_came_after(kind, tmp_path):
    make, start = kind
    site = make(OwnOptimiser(tmp_path), steps=2, rounds=4)
    made = [start]
    for number in (1, 2, 3):
        made.append(site.train(made[-1], Order(number)).adapter)
    again = make(OwnOptimiser(tmp_path), steps=2, rounds=4)
    assert far(again.train(made[1], Order(2)).adapter, made[2]) == 0
    assert far(again.train(made[0], Order(1)).adapter, made[1]) == 0


def test_only_the_last_rounds_are_kept(tmp_path):
    kept = OwnOptimiser(tmp_path)
    for number in range(1, 6):
        kept.keep({"w": {"step": torch.tensor(float(number))}}, round=number)
    assert sorted(place.name for place in tmp_path.iterdir()) == [
        "round-0003", "round-0004", "round-0005",
    ]  # fmt: skip
    assert float(kept.recall(before=5)["w"]["step"]) == 4
    # Three rounds are there: what was before them is gone, not never kept.
    with pytest.raises(AdapterError, match="round 3 is made again"):
        kept.recall(before=3)
    assert kept.recall(before=1) == {}
    assert (tmp_path.stat().st_mode & 0o777) == 0o700


def test_a_site_that_came_later_begins_anew_when_its_first_round_is_made_again(tmp_path):
    kept = OwnOptimiser(tmp_path)
    kept.keep({"w": {"step": torch.tensor(4.0)}}, round=4)
    assert kept.recall(before=4) == {}


def test_factors_that_are_trained_in_turn_warm_up_until_all_are_known(bench):
    state = {name: {} for name, p in bench.model.named_parameters() if "lora_B" in name}
    assert not knows_all(bench.model, state)
    for name, parameter in bench.model.named_parameters():
        parameter.requires_grad_("lora_B" in name)
    try:
        assert knows_all(bench.model, state)
    finally:
        for name, parameter in bench.model.named_parameters():
            parameter.requires_grad_(".lora_" in name)


def _flip(place):
    data = bytearray((place / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (place / "state.safetensors").write_bytes(data)


@pytest.mark.parametrize(
    "damage", [_flip, lambda place: (place / "sha256").unlink(), lambda place: _empty(place)]
)
def test_what_is_damaged_is_refused_and_begins_anew_once_removed(tmp_path, damage):
    kept = OwnOptimiser(tmp_path)
    kept.keep({"w": {"step": torch.tensor(1.0)}}, round=1)
    damage(tmp_path / "round-0001")
    with pytest.raises(AdapterError, match=r"round-0001: the optimiser's state .* remove the"):
        kept.recall(before=2)
    shutil.rmtree(tmp_path / "round-0001")
    assert kept.recall(before=2) == {}


def _empty(place):
    (place / "state.safetensors").write_bytes(b"")


def test_the_state_of_another_adapter_is_refused():
    model = torch.nn.Linear(3, 2)
    moments = {key: torch.zeros(2, 4) for key in ("exp_avg", "exp_avg_sq")}
    optimiser = torch.optim.AdamW(model.parameters())
    with pytest.raises(AdapterError, match=r"weight has shape \(2, 4\), and the parameter \(2, 3"):
        put_optimiser_state(model, optimiser, {"weight": {"step": torch.tensor(1.0), **moments}})


@pytest.mark.parametrize("fused", [False, True])
def test_steps_are_counted_where_the_kernel_wants_them(fused):
    model = torch.nn.Linear(3, 2)
    moments = {key: torch.zeros(2, 3) for key in ("exp_avg", "exp_avg_sq")}
    optimiser = torch.optim.AdamW(model.parameters(), fused=fused)
    state = {"weight": {"step": torch.tensor(7.0, dtype=torch.float64), **moments}}
    put_optimiser_state(model, optimiser, state)
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    after = optimiser.state[model.weight]["step"]
    assert (float(after), after.dtype) == (8.0, torch.float32)
    assert float(optimiser.state[model.bias]["step"]) == 1.0
