"""DP-SGD on LoRA factors: row gradients, units clipped as one, noise, and what never changes."""

import math
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from model_toys import SOURCES, random_source, tiny_llama, toy_example, word_tokenizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from fedmedlora.errors import AdapterError, ConfigError, DataError
from fedmedlora.model.clipping import ClippedSum, Piece, pieces
from fedmedlora.model.encoding import encode_examples
from fedmedlora.model.fused_lora import fused_lora
from fedmedlora.model.lora import new_adapter_model
from fedmedlora.model.losses import batch_loss, pad_rows
from fedmedlora.model.private_training import (
    NoiseSettings,
    Randomness,
    private_steps,
    train_privately,
)
from fedmedlora.model.row_gradients import RowGradients, row_gradients
from fedmedlora.model.trainable import only_factors
from fedmedlora.model.training import TrainingSettings

pytest.importorskip("opacus")

TOKENIZER = word_tokenizer()
ANSWERS = {0: SOURCES[0].replace("chest pain", '<span class="problem">chest pain</span>')}


def rows_of(count, **limits):
    examples = [
        toy_example(source, number=i, answer=ANSWERS.get(i))
        for i, source in enumerate([SOURCES[0], *(random_source(i) for i in range(count - 1))])
    ]
    return encode_examples(examples, TOKENIZER, max_tokens=limits.get("max_tokens", 160))[0]


ROWS = rows_of(6)


def adapted(base=None, *, dropout=0.0):
    warnings.simplefilter("ignore")
    model = new_adapter_model(
        base or tiny_llama(TOKENIZER),
        rank=4,
        alpha=12,
        dropout=dropout,
        targets=["all-linear"],
        seed=0,
    )
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def one_by_one(model, objective):
    """Each row's gradient, each in a pass of its own."""
    found = []
    for row in ROWS:
        model.zero_grad()
        loss, _ = batch_loss(model, pad_rows([row]), objective)
        loss.backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    model.zero_grad()
    return {name: torch.stack([one[name] for one in found]) for name in found[0]}


def check_rows(model, objective, trains="AB"):
    with only_factors(model, trains):
        wanted = one_by_one(model.train(), objective)
        with row_gradients(model) as differentiate:
            found = differentiate(pad_rows(ROWS), objective)
        assert found.by_name.keys() == wanted.keys()
        assert wanted
        for name, gradient in wanted.items():
            assert gradient.flatten(1).norm(dim=1).min() > 0
            off = (found.by_name[name] - gradient).flatten(1).norm(dim=1)
            assert (off <= 1e-5 * gradient.flatten(1).norm(dim=1)).all(), name
        assert found.tokens == sum(row.targets for row in ROWS)


@pytest.mark.parametrize("objective", ["answer", "decisions"])
@pytest.mark.parametrize("trains", ["AB", "A", "B"])
def test_the_gradients_of_rows_are_those_of_a_loop_over_them(objective, trains):
    # In float64: the toy tokenizer's vocabulary has another order in each process, and rounding of
    # some models' float32 gradients is above the bound.
    check_rows(adapted().double(), objective, trains)


class FourBits(torch.nn.Linear):
    """A frozen layer of 4 bits a weight, made whole in its forward pass as one of NF4 is.

    It is no plain layer: its LoRA factors go by Opacus' hooks.
    """

    def forward(self, x):
        step = self.weight.abs().amax(dim=1, keepdim=True) / 7
        return torch.nn.functional.linear(x, (self.weight / step).round() * step, self.bias)


def four_bits():
    base = tiny_llama(TOKENIZER)
    for layer in base.modules():
        if type(layer) is torch.nn.Linear:
            layer.__class__ = FourBits
    return base


@pytest.mark.parametrize("trains", ["AB", "B"])
def test_so_they_are_where_frozen_layers_have_four_bits(trains):
    model = adapted(four_bits()).double()
    with fused_lora(model) as layers:
        assert layers == 0
    check_rows(model, "decisions", trains)


def test_a_model_that_mixes_the_rows_of_a_batch_is_refused():
    for base in (tiny_llama(TOKENIZER), four_bits()):
        model = adapted(base).train()
        for layer in base.model.layers:
            whole = layer.mlp.forward
            layer.mlp.forward = lambda x, whole=whole: whole(x.flatten(0, 1)).view_as(x)
        with row_gradients(model) as differentiate, pytest.raises(AdapterError, match="told apart"):
            differentiate(pad_rows(ROWS), "answer")


@pytest.mark.skipif(
    find_spec("bitsandbytes") is None,
    reason="NF4 itself needs bitsandbytes, which is not installed; another 4-bit layer was tried",
)
def test_so_they_are_where_the_backbone_is_nf4(tmp_path):
    from fedmedlora.model.backbone import load_backbone

    tiny_llama(TOKENIZER, hidden=64).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    model = load_backbone(str(tmp_path), precision="nf4").model
    # In bf16, as it computes, a batch's rounding is another than a row's, private or not.
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype, module.compute_type_is_set = torch.float32, True
    for parameter in model.parameters():
        if parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()
    check_rows(adapted(model), "answer")


def test_afterwards_the_model_has_no_hook_and_no_attribute_of_it():
    model = adapted().train()
    before = {name: len(module._forward_hooks) for name, module in model.named_modules()}
    with pytest.raises(RuntimeError, match="stop"), row_gradients(model):
        raise RuntimeError("stop")
    assert {n: len(m._forward_hooks) for n, m in model.named_modules()} == before
    assert not any(hasattr(parameter, "grad_sample") for parameter in model.parameters())


# Clipping ----------------------------------------------------------------------------------------


def gradients(**rows):
    return RowGradients({name: torch.tensor(value) for name, value in rows.items()}, 0.0, 0)


def test_every_unit_is_clipped_over_all_parameters_at_once():
    # Norms 5 and .5, over both parameters; C = 1.
    total = ClippedSum(1.0)
    given = gradients(a=[[3.0, 0.0], [0.3, 0.0]], b=[[4.0], [0.4]])
    total.add(given, weights=[1, 1], piece=Piece((0, 1), (0, 1), (1, 1)))
    assert torch.allclose(total.by_name["a"], torch.tensor([0.6 + 0.3, 0.0]))
    assert torch.allclose(total.by_name["b"], torch.tensor([0.8 + 0.4]))


def test_the_rows_of_a_unit_are_averaged_and_clipped_as_one():
    # (6, 0) and (0, 8) of one unit: mean (3, 4), norm 5, clipped to (.6, .8).
    total = ClippedSum(1.0)
    whole = Piece((0, 1), (0, 0), (2, 2))
    total.add(gradients(a=[[6.0, 0.0], [0.0, 8.0]]), weights=[0.5, 0.5], piece=whole)
    assert torch.allclose(total.by_name["a"], torch.tensor([0.6, 0.8]))
    # The same in two pieces.
    parts = ClippedSum(1.0)
    parts.add(gradients(a=[[6.0, 0.0]]), weights=[0.5], piece=Piece((0,), (0,), (2,), ends=False))
    assert parts.by_name == {}
    parts.add(gradients(a=[[0.0, 8.0]]), weights=[0.5], piece=Piece((1,), (0,), (2,)))
    assert torch.allclose(parts.by_name["a"], total.by_name["a"])


def test_a_gradient_that_is_no_number_moves_the_sum_by_no_more_than_any_other():
    total = ClippedSum(1.0)
    given = gradients(a=[[math.nan, 3.0], [0.3, 0.4], [math.inf, 0.0], [1e30, 0.0]])
    total.add(given, weights=[1] * 4, piece=Piece((0, 1, 2, 3), (0, 1, 2, 3), (1,) * 4))
    # (0, 3) clipped, (.3, .4), nothing, and (1, 0).
    assert torch.allclose(total.by_name["a"], torch.tensor([1.3, 1.4]))


@pytest.mark.parametrize("wild", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("numbers", [(0, 1, 2), (0, 1, 1)], ids=["a row each", "two of a unit"])
def test_what_a_unit_adds_is_the_same_beside_one_that_is_no_number(wild, numbers):
    def added(first):
        total = ClippedSum(1.0)
        sizes = tuple(numbers.count(number) for number in numbers)
        weights = [1 / size for size in sizes]
        given = gradients(a=[first, [8e13, 6e13], [8e13, 6e13]])
        total.add(given, weights=weights, piece=Piece((0, 1, 2), numbers, sizes))
        return total.by_name["a"]

    others = torch.tensor([0.8, 0.6]) * (len(set(numbers)) - 1)
    assert torch.allclose(added([0.0, 0.0]), others)
    own = torch.tensor([1.0, 0.0]) if wild == 1e30 else torch.zeros(2)
    assert torch.allclose(added([wild, 0.0]), others + own)


@pytest.mark.parametrize("most", [1, 2, 3, 100])
def test_units_are_cut_into_pieces_that_hold_every_row_once(most):
    chosen = [[4], [0, 7, 2], [5, 1], [3], [6, 8, 9, 10, 11]]
    found = list(pieces(chosen, most=most))
    assert sorted(row for piece in found for row in piece.rows) == list(range(12))
    assert all(len(piece.rows) <= most for piece in found)
    sizes = {row: len(unit) for unit in chosen for row in unit}
    for piece in found:
        assert piece.sizes == tuple(sizes[row] for row in piece.rows)
    # A unit in several pieces: these follow one another, and hold nothing else.
    open_rows = 0
    for piece in found:
        if open_rows:
            assert set(piece.units) == {0}
            assert piece.sizes[0] - open_rows >= len(piece.rows)
        open_rows = 0 if piece.ends else open_rows + len(piece.rows)
    assert open_rows == 0


# Training ----------------------------------------------------------------------------------------


class Chosen(Randomness):
    """Draws what a test says; makes no noise if asked for none."""

    def __init__(self, *drawn, silent=True, seed=0):
        super().__init__(key=seed)
        self._drawn, self._silent, self.made = list(drawn), silent, []

    def draw(self, units, rate):
        self.made.append((units, rate))
        return self._drawn[(len(self.made) - 1) % len(self._drawn)]

    def noise(self, like, deviation):
        made = super().noise(like, deviation)
        return torch.zeros_like(made) if self._silent else made


def settings_of(**more):
    base = {"steps": 1, "batch": 4, "learning_rate": 1e-3, "warmup": 0.0, "max_tokens": 160}
    return TrainingSettings(**{**base, **more})


def noise_of(**more):
    return NoiseSettings(
        **{"noise": 1.0, "max_grad_norm": 0.5, "batch": 2, "unit_rows": 16, **more}
    )


def first_gradient(drawn, *, units, noise, trains="AB", silent=True, rows=ROWS, **settings):
    """The gradient that the optimiser gets in one step, as one vector."""
    model = adapted()
    got = []

    def keep(optimiser, *_):
        got.append(
            torch.cat([p.grad.flatten() for g in optimiser.param_groups for p in g["params"]])
        )

    watched = register_optimizer_step_pre_hook(keep)
    try:
        train_privately(
            model, rows, units=units, noise=noise, settings=settings_of(**settings), seed=1,
            trains=trains, randomness=Chosen(drawn, silent=silent),
        )  # fmt: skip
    finally:
        watched.remove()
    return got[0]


@pytest.mark.parametrize("unit", range(3))
def test_a_unit_more_moves_the_step_by_the_clipping_norm_at_most(unit):
    # However its rows repeat themselves: the bound that the accounting stands on.
    units, noise = [0, 1, 1, 2, 2, 2], noise_of(max_grad_norm=1e-3)
    others = [other for other in range(3) if other != unit]
    without = first_gradient(others, units=units, noise=noise)
    moved = first_gradient([0, 1, 2], units=units, noise=noise) - without
    assert float(moved.norm()) * noise.batch == pytest.approx(1e-3, rel=1e-4)


def test_the_sum_is_divided_by_the_batch_that_was_expected_not_by_what_was_drawn():
    units = list(range(6))
    one = first_gradient([3], units=units, noise=noise_of())
    twice = first_gradient([3], units=units, noise=noise_of(batch=4))
    assert torch.allclose(one, 2 * twice, rtol=1e-5, atol=1e-8)


def test_a_unit_is_the_mean_of_its_rows_each_per_token():
    noise = noise_of(max_grad_norm=1e6, batch=1)
    together = first_gradient([0], units=[0, 0, 1, 2, 3, 4], noise=noise)
    apart = [first_gradient([n], units=list(range(6)), noise=noise) for n in (0, 1)]
    assert torch.allclose(together, (apart[0] + apart[1]) / 2, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_how_many_rows_pass_at_once_changes_nothing(batch):
    units, noise = [0, 0, 0, 1, 1, 2], noise_of()
    wanted = first_gradient([0, 1, 2], units=units, noise=noise, batch=100)
    found = first_gradient([0, 1, 2], units=units, noise=noise, batch=batch)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-7)


def test_recomputed_activations_change_nothing():
    units, noise = list(range(6)), noise_of()
    wanted = first_gradient([0, 1, 2], units=units, noise=noise)
    found = first_gradient([0, 1, 2], units=units, noise=noise, gradient_checkpointing=True)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-7)


def test_a_step_that_draws_nobody_is_noise_of_the_stated_size():
    noise = noise_of(noise=3.0, max_grad_norm=0.5, batch=2)
    found = first_gradient([], units=list(range(6)), noise=noise, silent=False)
    assert len(found) > 2000
    assert float(found.std()) == pytest.approx(3.0 * 0.5 / 2, rel=0.05)
    assert abs(float(found.mean())) < 0.05


def test_the_noise_is_added_to_the_sum():
    noise = noise_of(noise=1.0)
    alone = first_gradient([], units=list(range(6)), noise=noise, silent=False)
    clean = first_gradient([1, 2], units=list(range(6)), noise=noise)
    noisy = first_gradient([1, 2], units=list(range(6)), noise=noise, silent=False)
    assert torch.allclose(noisy, alone + clean, atol=1e-6)


def test_of_a_large_unit_only_so_many_rows_are_looked_at():
    seen = []

    class Counting(Chosen):
        def some(self, rows, most):
            seen.append(super().some(rows, most))
            return seen[-1]

    train_privately(
        adapted(), ROWS, units=[0, 0, 0, 0, 0, 1], noise=noise_of(unit_rows=2),
        settings=settings_of(steps=30), seed=1, randomness=Counting([0]),
    )  # fmt: skip
    assert all(len(set(rows)) == 2 for rows in seen)
    assert {row for rows in seen for row in rows} == {0, 1, 2, 3, 4}


def test_each_unit_is_drawn_by_itself_with_the_rate():
    drawn = [Randomness(key=s).draw(50, 0.2) for s in range(400)]
    counts = np.bincount([unit for one in drawn for unit in one], minlength=50)
    # Means of 400 draws at .2: 80, with a deviation of 8.
    assert abs(counts.mean() - 80) < 4
    assert 45 < counts.min() < counts.max() < 115
    # Sizes vary as they do of independent draws: 50 at .2 have a deviation of 2.83.
    assert 2.4 < np.std([len(one) for one in drawn]) < 3.3


def trained(seed=1, **more):
    model = adapted()
    train_privately(
        model, ROWS, units=list(range(6)), noise=noise_of(), settings=settings_of(steps=2),
        seed=seed, **more,
    )  # fmt: skip
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n}


class Everybody(Randomness):
    """Draws every unit and every row, so that the noise alone differs."""

    def draw(self, units, rate):
        return list(range(units))


def test_equal_seeds_do_not_make_equal_noise():
    one, other = trained(randomness=Everybody()), trained(randomness=Everybody())
    assert all(not torch.equal(one[name], other[name]) for name in one)
    # And nothing but the noise: with one key the bits agree.
    one, other = trained(randomness=Everybody(key=5)), trained(randomness=Everybody(key=5))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("bit", [0, 31, 32, 63, 64, 127])
def test_every_bit_of_a_key_of_128_changes_the_noise(bit):
    like = torch.zeros(4)
    assert not torch.equal(
        Randomness(key=0).noise(like, 1), Randomness(key=1 << bit).noise(like, 1)
    )


def test_nobody_is_told_the_key_and_it_has_128_bits(monkeypatch):
    asked = []

    def drawn(bits):
        asked.append(bits)
        return 17

    monkeypatch.setattr("fedmedlora.model.private_training.secrets.randbits", drawn)
    trained()
    assert asked == [128]


def test_noise_is_gaussian_of_the_stated_size():
    made = Randomness(key=3).noise(torch.zeros(200, 500), 2.5)
    assert made.dtype == torch.float32
    assert abs(float(made.mean())) < 4 * 2.5 / math.sqrt(made.numel())
    assert float(made.std()) == pytest.approx(2.5, rel=0.01)
    # Of a Gaussian, .0455 lie beyond two deviations.
    assert float((made.abs() > 5).float().mean()) == pytest.approx(0.0455, abs=0.003)


def test_frozen_factors_stay_as_they_were():
    before = {n: p.detach().clone() for n, p in adapted().named_parameters()}
    after = trained(trains="B")
    assert all(torch.equal(after[name], before[name]) for name in after if "lora_A" in name)
    assert all(not torch.equal(after[name], before[name]) for name in after if "lora_B" in name)


def test_without_noise_to_speak_of_it_learns():
    rows = rows_of(4)
    seen = []
    train_privately(
        adapted(), rows, units=list(range(4)),
        noise=NoiseSettings(noise=1e-6, max_grad_norm=100.0, batch=4, unit_rows=1),
        settings=settings_of(steps=25, learning_rate=1e-2), seed=1,
        on_step=lambda number, steps, loss: seen.append(loss), randomness=Chosen([0, 1, 2, 3]),
    )  # fmt: skip
    assert seen[-1] < 0.6 * seen[0]


def test_an_optimiser_goes_on_with_what_it_remembers():
    def outcome(steps, model, **more):
        return train_privately(
            model, ROWS, units=list(range(6)), noise=noise_of(),
            settings=settings_of(steps=steps, schedule="run", rounds=1, **more.pop("more", {})),
            seed=1, randomness=Chosen([0, 1], [2, 3], [4], [5, 0]), **more,
        )  # fmt: skip

    model = adapted()
    remembered = outcome(1, model).optimiser
    again = outcome(1, model, optimiser=remembered).optimiser
    assert {float(state["step"]) for state in again.values()} == {2.0}


# Bad input ---------------------------------------------------------------------------------------


def test_a_batch_larger_than_the_site_is_refused():
    with pytest.raises(ConfigError, match=r"privacy\.batch: 7 units are expected .* there are 6"):
        trained_on(units=list(range(6)), noise=noise_of(batch=7))


def trained_on(rows=ROWS, **more):
    return train_privately(adapted(), rows, settings=settings_of(), seed=1, **more)


@pytest.mark.parametrize("units", [[0, 1], [0, 0, 0, 2, 2, 2]])
def test_rows_without_a_unit_and_units_without_a_row_are_refused(units):
    with pytest.raises(DataError, match="every row needs a unit"):
        trained_on(units=units, noise=noise_of())


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="no example"):
        trained_on(rows=[], units=[], noise=noise_of())


@pytest.mark.parametrize("where", ["adapter", "attention", "backbone"])
def test_dropout_is_refused_wherever_it_is(where):
    # Its masks are the batch's: with one unit more, every other row would have another.
    base = tiny_llama(TOKENIZER)
    if where == "attention":
        base.config.attention_dropout = 0.1
    if where == "backbone":
        base.model.layers[0].mlp.act_fn = torch.nn.Sequential(
            base.model.layers[0].mlp.act_fn, torch.nn.Dropout(0.1)
        )
    model = adapted(base, dropout=0.1 if where == "adapter" else 0.0)
    with pytest.raises(ConfigError, match=r"adapter\.dropout: with privacy there must be none"):
        train_privately(
            model, ROWS, units=list(range(6)), noise=noise_of(), settings=settings_of(), seed=1
        )


@pytest.mark.parametrize("name", ["noise", "max_grad_norm", "batch", "unit_rows"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_noise_and_bounds_that_bound_nothing_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"privacy\.{name}"):
        noise_of(**{name: value})


def test_steps_of_an_epoch_draw_each_unit_once_on_average():
    assert private_steps(settings_of(steps=None, epochs=2.0), units=50, batch=20) == 5
    assert private_steps(settings_of(steps=7), units=50, batch=20) == 7
