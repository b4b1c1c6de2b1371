"""Every aggregation method through a whole federation, at toy sites and at sites of torch."""

import numpy as np
import pytest
import torch
from federation_toy import MANIFEST, SITES, A, B, ToySite, plan, sites, start
from peft import PeftModel
from test_peft import SITES as TWO
from test_peft import Counting, adapted, base

from fedmedlora.aggregation.methods import METHODS
from fedmedlora.aggregation.server_optimiser import ServerOptions
from fedmedlora.errors import ConfigError, FederationError
from fedmedlora.federation.adapter_parts import adapter_part, completed, joined, residual_adapter
from fedmedlora.federation.own_factors import OwnFactors
from fedmedlora.federation.plan import Order, SiteUpdate
from fedmedlora.federation.run import run_federation
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.adapter_files import save_adapter
from fedmedlora.model.lora import adapter_of, load_adapter

START = start()


class PartSite(ToySite):
    """A toy site that heeds its order: completes what it got, sends back what is asked for."""

    def train(self, adapter, order):
        self.got = sorted(adapter.tensors)
        self.ranks = adapter.manifest.rank
        if order.initial:
            assert order.initial == START.sha256
            adapter = completed(adapter, START)
        update = super().train(adapter, order)
        tensors = {
            A: update.adapter.tensors[A] if "A" in order.trains else adapter.tensors[A],
            B: update.adapter.tensors[B] if "B" in order.trains else adapter.tensors[B],
        }
        trained = adapter_part(Adapter(adapter.manifest, tensors), order.returns)
        return SiteUpdate(trained, update.examples, update.tokens, None, None, 0.0)


def run(folder, method, *, workers=None, **changes):
    people = workers or {name: PartSite(name) for name in SITES}
    a_plan = plan(**{"method": method, "wire": "fp32", **changes})
    return run_federation(a_plan, start(), workers=people, folder=folder), people


@pytest.mark.parametrize("method", METHODS)
def test_differences_at_few_bits_end_near_the_whole_adapters(tmp_path, method):
    def moved(wire):
        result, _ = run(tmp_path / wire, method, rounds=4, wire=wire)
        if method == "fedsa-lora":  # B stays at the sites
            return result.adapter.tensors[A] - START.tensors[A]
        tensors = result.adapter.tensors  # factors alone may turn, in FlexLoRA
        return tensors[B] @ tensors[A] - START.tensors[B] @ START.tensors[A]

    exact = moved("fp32")
    shares = {"int8": 0.02, "int4": 0.2}
    if METHODS[method].mixed_ranks:
        # Toy sites pull at the factors themselves, which turn with what was rounded.
        shares = {"int8": 0.06}
    for wire, share in shares.items():
        assert np.abs(moved(wire) - exact).max() < share * np.abs(exact).max()


@pytest.mark.parametrize("wire", ["fp32", "int4"])
@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_of_any_method_ends_as_an_undisturbed_one(tmp_path, method, wire):
    step = {"server": ServerOptions(momentum=0.5), "wire": wire}
    whole, _ = run(tmp_path / "whole", method, rounds=4, **step)
    run(tmp_path / "cut", method, rounds=2, **step)
    people = {name: PartSite(name) for name in SITES}
    again = run_federation(
        plan(method=method, rounds=4, **step), start(), workers=people,
        folder=tmp_path / "cut", resume=True,
    )  # fmt: skip
    assert again.adapter.sha256 == whole.adapter.sha256
    assert [r.adapter_sha256 for r in again.records] == [r.adapter_sha256 for r in whole.records]
    assert people["north"].rounds == [3, 4]


def test_ffa_lora_sends_b_alone_and_leaves_a_as_it_started(tmp_path):
    result, people = run(tmp_path, "ffa-lora", rounds=2)
    assert people["west"].got == [B]
    assert result.adapter.tensors[A].tobytes() == START.tensors[A].tobytes()
    # B moves half-way to the pulls 1, 2, 5, whose mean by tokens 100, 200, 500 is 3.75.
    assert np.allclose(result.adapter.tensors[B], 3.75 * 0.75)


def test_rolora_takes_turns(tmp_path):
    first, _ = run(tmp_path / "1", "rolora", rounds=1)
    assert first.adapter.tensors[A].tobytes() == START.tensors[A].tobytes()
    second, people = run(tmp_path / "2", "rolora", rounds=2)
    assert people["north"].got == [A, B]
    assert second.adapter.tensors[B].tobytes() == first.adapter.tensors[B].tobytes()
    assert np.allclose(second.adapter.tensors[A], START.tensors[A] + 0.2)


def test_fedsa_lora_shares_a_and_never_sees_a_sites_b(tmp_path):
    result, people = run(tmp_path, "fedsa-lora", rounds=2)
    assert people["north"].got == [A]
    assert not result.adapter.tensors[B].any()
    assert np.allclose(result.adapter.tensors[A], START.tensors[A] + 0.3)
    up = [site.bytes_up for site in result.records[1].sites.values()]
    whole, _ = run(tmp_path / "whole", "fed-medlora", rounds=1)
    assert max(up) < min(site.bytes_up for site in whole.records[0].sites.values())


def test_fedex_ends_with_the_mean_of_the_sites_products(tmp_path):
    class Own(PartSite):
        """Turns to factors of its own, whatever it got."""

        def train(self, adapter, order):
            rng = np.random.default_rng(SITES.index(self.name))
            tensors = {
                name: rng.standard_normal(shape).astype(np.float32)
                for name, shape in MANIFEST.tensors
            }
            self.residual = order.residual
            return SiteUpdate(Adapter(MANIFEST, tensors), 10, PULLS[self.name], None, None, 0.0)

    PULLS = {"north": 100, "south": 200, "west": 500}
    people = {name: Own(name) for name in SITES}
    result, _ = run(tmp_path, "fedex-lora", workers=people, rounds=1)
    scale = MANIFEST.alpha / MANIFEST.rank
    wanted = 0
    for name, tokens in PULLS.items():
        own = people[name].train(None, Order(1)).adapter.tensors
        wanted = wanted + tokens / 800 * scale * own[B] @ own[A]
    assert result.adapter.manifest.alpha == result.adapter.manifest.rank
    assert np.allclose(result.adapter.tensors[B] @ result.adapter.tensors[A], wanted, atol=1e-5)
    assert people["north"].residual is None
    run(tmp_path / "more", "fedex-lora", workers=people, rounds=2)
    assert people["north"].residual is not None


def test_sites_of_three_ranks_take_part_in_one_federation(tmp_path):
    ranks = (("north", 1, 2.0), ("south", 2, 2.0))  # the others: rank 2, alpha 8
    result, people = run(tmp_path, "flexlora", rounds=3, ranks=ranks)
    assert [people[name].ranks for name in SITES] == [1, 2, 2]
    assert result.adapter.manifest == MANIFEST
    with pytest.raises(ConfigError, match="ranks"):
        plan(method="fed-medlora", ranks=ranks)


def test_a_reply_of_another_rank_than_the_sites_own_is_refused(tmp_path):
    class Widened(PartSite):
        def train(self, adapter, order):
            update = super().train(adapter, order)
            return SiteUpdate(START, update.examples, update.tokens, None, None, 0.0)

    people = {name: PartSite(name) for name in SITES} | {"north": Widened("north")}
    with pytest.raises(FederationError, match="north refused"):
        run(tmp_path, "flexlora", workers=people, ranks=(("north", 1, 2.0),))


@pytest.mark.parametrize("method", ["fedavgm", "fed-medlora"])
def test_server_momentum_remembers_the_round_before(tmp_path, method):
    result, _ = run(tmp_path, method, rounds=2, server=ServerOptions(momentum=0.9))
    # A moves by .1, then by .2 and .9 of the step before.
    assert np.allclose(result.adapter.tensors[A], START.tensors[A] + 0.1 + 0.2 + 0.09, atol=1e-6)


def test_a_damaged_server_file_sets_its_round_aside(tmp_path):
    step = {"server": ServerOptions(momentum=0.9)}
    run(tmp_path, "fedavgm", rounds=2, **step)
    file = tmp_path / "round-0002" / "server.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    told = []
    again = run_federation(
        plan(method="fedavgm", wire="fp32", rounds=2, **step), start(),
        workers={name: PartSite(name) for name in SITES}, folder=tmp_path, resume=True,
        on_event=lambda kind, **facts: told.append(kind),
    )  # fmt: skip
    assert "set-aside" in told
    whole, _ = run(tmp_path / "other", "fedavgm", rounds=2, **step)
    assert again.adapter.sha256 == whole.adapter.sha256


def test_own_factors_are_those_of_the_last_round_before(tmp_path):
    own = OwnFactors(tmp_path)
    assert own.recall(START, before=1) is START
    for number in (1, 2):
        trained = start(float(number))
        own.keep(trained, Order(number, "AB", "A"))
    assert own.recall(START, before=2).tensors[B][0, 0] == 1
    assert own.recall(START).tensors[B][0, 0] == 2
    assert own.recall(START).tensors[A].tobytes() == START.tensors[A].tobytes()


def test_a_residual_adds_to_the_model_and_only_the_pair_is_trainable(tmp_path):
    model, manifest = adapted()
    rng = np.random.default_rng(3)
    tensors = {n: rng.standard_normal(s).astype(np.float32) * 0.1 for n, s in manifest.tensors}
    adapter = Adapter(manifest, tensors)
    wide = {
        name: rng.standard_normal((5, s[1]) if "lora_A" in name else (s[0], 5)).astype(np.float32)
        * np.float32(0.1)
        for name, s in manifest.tensors
    }
    residual = residual_adapter(wide, manifest)
    load_adapter(model, adapter, residual=residual)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        beside = model(ids).logits
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable
    assert all(".default." in name for name in trainable)
    assert adapter_of(model, manifest).sha256 == adapter.sha256
    save_adapter(joined(adapter, residual), tmp_path / "joined", base_model="tiny")
    whole = PeftModel.from_pretrained(base(), tmp_path / "joined")
    with torch.no_grad():
        assert torch.allclose(whole(ids).logits, beside, atol=1e-5)
        load_adapter(model, joined(adapter, residual))
        assert torch.allclose(model(ids).logits, beside, atol=1e-5)
        load_adapter(model, adapter)
        assert not torch.allclose(model(ids).logits, beside, atol=1e-3)


@pytest.mark.parametrize("method", ["fedex-lora", "flexlora", "fedavgm"])
def test_sites_of_torch_learn_by_other_methods_too(tmp_path, method):
    model, manifest = adapted()

    a_plan = plan(sites=TWO, rounds=3, method=method)
    workers = {name: Counting(name) for name in TWO}
    result = run_federation(a_plan, adapter_of(model, manifest), workers=workers, folder=tmp_path)
    first, last = result.records[0].sites["even"], result.records[-1].sites["even"]
    assert last.loss_last < first.loss_first


def test_the_toy_sites_still_federate_the_plain_way(tmp_path):
    plain = run_federation(plan(wire="fp32"), start(), workers=sites(), folder=tmp_path / "plain")
    assert plain.adapter.sha256 == run(tmp_path / "part", "fed-medlora")[0].adapter.sha256


def test_what_is_rounded_of_one_factor_is_not_added_to_the_other(tmp_path):
    run(tmp_path, "rolora", rounds=4, wire="int4")
    rounding = tmp_path / "own" / "north" / "rounding"
    kept = {
        factor: {int(place.name[-1]): np.load(place / "rounding.npy").size for place in one}
        for factor, one in ((f, (rounding / f).iterdir()) for f in ("A", "B"))
    }
    assert kept == {"B": {1: 8, 3: 8}, "A": {2: 6, 4: 6}}
