"""One site's training: what changes, what stays, what is told, and what goes wrong."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from model_toys import byte_tokenizer, random_source, tiny_llama, toy_example, word_tokenizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from fedmedlora.errors import AdapterError, ConfigError, DataError
from fedmedlora.model.encoding import Row, encode_examples
from fedmedlora.model.lora import new_adapter_model
from fedmedlora.model.losses import batch_loss, decision_loss, pad_rows
from fedmedlora.model.training import (
    TrainingSettings,
    answer_loss,
    length_order,
    mean_loss,
    train_adapter,
)

TOKENIZER = word_tokenizer()


def _rows(count=24, seed=0):
    examples = [toy_example(random_source(seed * 1000 + i), number=i) for i in range(count)]
    return encode_examples(examples, TOKENIZER, max_tokens=160)[0]


ROWS = _rows()


@pytest.fixture
def model():
    warnings.simplefilter("ignore")
    base = tiny_llama(TOKENIZER)
    return new_adapter_model(
        base, rank=4, alpha=8, dropout=0.1, targets=["all-linear"], seed=0
    ).eval()


def _train(model, rows=ROWS, *, seed=1, on_step=None, **settings):
    settings = TrainingSettings(**{"steps": 3, "learning_rate": 2e-3, **settings})
    return train_adapter(
        model, rows, tokenizer=TOKENIZER, settings=settings, seed=seed, on_step=on_step
    )


def _lora(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def _frozen(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_the_adapter_changes_and_the_base_does_not(model):
    adapter, base = _lora(model), _frozen(model)
    _train(model)
    after = _lora(model)
    assert after.keys() == adapter.keys()
    assert not any(torch.equal(after[n], adapter[n]) for n in adapter if "lora_B" in n)
    assert _equal(_frozen(model), base)


def test_the_loss_falls_on_a_task_that_can_be_learnt(model):
    before, tokens = mean_loss(model, ROWS)
    outcome = _train(model, steps=40, learning_rate=2e-2, batch=8)
    after, _ = mean_loss(model, ROWS)
    assert after < 0.75 * before
    assert outcome.loss_last < outcome.loss_first
    assert outcome.tokens == tokens == sum(row.targets for row in ROWS)


def test_one_seed_gives_the_same_bits_in_one_process_and_after_other_work(model):
    start = _lora(model)
    twin = copy.deepcopy(model)
    _train(model, seed=5)
    _train(twin, seed=6, steps=2)  # other work
    torch.rand(7), random.random(), np.random.rand()
    for name, parameter in twin.named_parameters():
        if name in start:
            parameter.data = start[name].clone()
    _train(twin, seed=5)
    assert _equal(_lora(model), _lora(twin))
    for name, parameter in twin.named_parameters():
        if name in start:
            parameter.data = start[name].clone()
    _train(twin, seed=6)
    assert not _equal(_lora(model), _lora(twin))


def test_no_optimiser_state_is_kept_between_calls(model):
    _train(model)
    twin = copy.deepcopy(model)
    _train(model, seed=2)
    _train(twin, seed=2)
    assert _equal(_lora(model), _lora(twin))


def test_training_leaves_nothing_else_behind(model):
    base = model.get_base_model()
    base.config.use_cache = True
    hooks = len(base.get_input_embeddings()._forward_hooks)
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    for _ in range(2):
        _train(model, gradient_checkpointing=True)
    assert "forward" not in base.__dict__
    assert base.config.use_cache
    assert not any(getattr(m, "gradient_checkpointing", False) for m in base.modules())
    assert len(base.get_input_embeddings()._forward_hooks) == hooks
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])


def test_the_user_sees_no_warnings(model, caplog, recwarn, capsys):
    warnings.simplefilter("always")
    _train(model)
    assert not recwarn.list
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


def test_every_step_is_told_with_its_loss(model):
    told = []
    outcome = _train(model, steps=4, on_step=lambda *facts: told.append(facts))
    assert [(step, steps) for step, steps, _ in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(loss > 0 for _, _, loss in told)
    assert outcome.steps == 4
    assert outcome.loss_first == told[0][2]
    assert outcome.loss_last == told[-1][2]


def test_the_first_loss_told_is_that_of_the_model_before_training(model):
    rows = ROWS[:4]
    model.peft_config["default"].lora_dropout = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    told = []
    before, _ = mean_loss(model, rows)
    _train(model, rows, steps=1, on_step=lambda *facts: told.append(facts))
    assert told[0][2] == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize(("epochs", "batch", "steps"), [(1, 4, 6), (2, 5, 10), (0.5, 4, 3)])
def test_epochs_count_passes_over_the_rows(model, epochs, batch, steps):
    assert _train(model, steps=None, epochs=epochs, batch=batch).steps == steps


def test_more_steps_than_rows_go_round_again(model):
    assert _train(model, ROWS[:3], steps=5, batch=2).steps == 5


def test_warm_up_is_a_share_of_the_steps(model, monkeypatch):
    rates = []
    step = torch.optim.AdamW.step

    def watched(self, *arguments, **options):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    _train(model, steps=10, warmup=0.4, learning_rate=1.0e-3)
    assert rates[:5] == pytest.approx([0, 0.25e-3, 0.5e-3, 0.75e-3, 1.0e-3])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 0.1e-3


def test_gradient_checkpointing_gives_the_same_adapter(model):
    twin = copy.deepcopy(model)
    _train(model)
    _train(twin, gradient_checkpointing=True)
    one, other = _lora(model), _lora(twin)
    assert all(torch.allclose(one[n], other[n], atol=1e-6) for n in one)


def test_no_rows_is_an_error(model):
    with pytest.raises(DataError, match="no example"):
        _train(model, [])
    with pytest.raises(DataError, match="no example"):
        mean_loss(model, [])


def test_a_loss_that_is_no_number_is_an_error_and_the_adapter_stays(model):
    adapter = _lora(model)
    with pytest.raises(AdapterError, match=r"diverged.*step \d of 6.*learning_rate"):
        _train(model, steps=6, learning_rate=1e30)
    assert _equal(_lora(model), adapter)
    assert not model.training
    _train(model)  # and it can go on


def test_an_adapter_that_the_last_step_breaks_is_an_error_too(model, monkeypatch):
    adapter = _lora(model)
    step = torch.optim.AdamW.step

    def breaking(self, *arguments, **options):
        step(self, *arguments, **options)
        self.param_groups[0]["params"][0].data.fill_(float("inf"))

    monkeypatch.setattr(torch.optim.AdamW, "step", breaking)
    with pytest.raises(AdapterError, match="diverged: after 1 steps"):
        _train(model, steps=1)
    assert _equal(_lora(model), adapter)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("steps", 0), ("batch", 0), ("learning_rate", -1.0), ("warmup", 1.0),
     ("weight_decay", -0.1), ("max_tokens", 1)],
)  # fmt: skip
def test_settings_out_of_range_name_their_key(name, value):
    with pytest.raises(ConfigError, match=rf"training\.{name}: {value}"):
        TrainingSettings(**{name: value})


# losses


def _tensors(rows):
    width = max(len(row.ids) for row in rows) + 3
    ids = torch.full((len(rows), width), TOKENIZER.pad_token_id)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for i, row in enumerate(rows):
        size = len(row.ids)
        ids[i, :size] = torch.tensor(row.ids)
        mask[i, :size] = 1
        labels[i, row.answer : size] = ids[i, row.answer : size]
    return ids, mask, labels


def test_the_loss_is_transformers_own(model):
    ids, mask, labels = _tensors(ROWS[:5])
    _train(model)  # so that the adapter counts
    with torch.no_grad():
        whole = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        total, count = answer_loss(model, ids, labels)
    assert count == sum(row.targets for row in ROWS[:5])
    assert float(total / count) == pytest.approx(float(whole), rel=1e-6)


def test_the_loss_of_a_model_that_caps_its_logits_is_its_own():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    capped = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=len(TOKENIZER), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, intermediate_size=32, initializer_range=0.6,
            final_logit_softcapping=3.0,
        )
    ).eval()  # fmt: skip
    ids, mask, labels = _tensors(ROWS[:3])
    with torch.no_grad():
        whole = capped(input_ids=ids, attention_mask=mask, labels=labels).loss
        total, count = answer_loss(capped, ids, labels)
    assert float(total / count) == pytest.approx(float(whole), rel=1e-6)


def test_the_mean_loss_does_not_depend_on_the_batch_or_the_order(model):
    one, tokens = mean_loss(model, ROWS, batch=1)
    for batch in (2, 7, 100):
        other, same = mean_loss(model, ROWS[::-1], batch=batch)
        assert other == pytest.approx(one, rel=1e-6)
        assert same == tokens


def test_the_mean_loss_is_that_of_the_objective(model):
    whole, tokens = mean_loss(model, ROWS)
    decided, same = mean_loss(model, ROWS, objective="decisions")
    part = pad_rows(ROWS)
    with torch.no_grad():
        total, count = decision_loss(
            model.eval(), part["input_ids"], part["labels"], part["tags"], part["choices"]
        )
    assert tokens == same == count
    assert decided == pytest.approx(float(total) / count, rel=1e-5)
    assert decided < whole  # a few choices at every place, and not the vocabulary


def test_the_mean_loss_is_without_dropout_whatever_the_mode(model):
    one, _ = mean_loss(model, ROWS)
    model.train()
    assert mean_loss(model, ROWS)[0] == one
    assert model.training


def test_a_prompt_of_no_tokens_has_no_loss_on_its_first_answer_token(model):
    row = Row("d", (5, 6, 7), 0)
    loss, tokens = mean_loss(model, [row])
    with torch.no_grad():
        logits = model(torch.tensor([row.ids])).logits[0, :2].log_softmax(-1)
    assert tokens == 2
    assert loss == pytest.approx(-float(logits[0, 6] + logits[1, 7]) / 2, rel=1e-5)


# the order of rows


@pytest.mark.parametrize("objective", ["answer", "decisions"])
def test_the_gradients_of_a_padded_batch_are_the_sum_of_its_rows(model, objective):
    def gradients(batches):
        for part in batches:
            total, _ = batch_loss(model, pad_rows(part), objective)
            total.backward()
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        model.zero_grad()
        return found

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    rows = ROWS[:9]
    assert len({len(row.ids) for row in rows}) > 3
    one_by_one = gradients([row] for row in rows)
    lengths = [len(row.ids) for row in rows]
    order = length_order(lengths, batch=3, rng=random.Random(0))
    grouped = gradients([rows[i] for i in order[at : at + 3]] for at in range(0, 9, 3))
    for name, gradient in one_by_one.items():
        assert torch.allclose(gradient, grouped[name], rtol=1e-5, atol=1e-5 * gradient.abs().max())


@pytest.mark.parametrize(("count", "batch"), [(1, 4), (7, 4), (8, 4), (100, 3), (300, 2)])
def test_every_row_comes_once_and_batches_hold_similar_lengths(count, batch):
    rng = random.Random(0)
    lengths = [rng.randint(10, 400) for _ in range(count)]
    order = length_order(lengths, batch=batch, rng=random.Random(1))
    assert sorted(order) == list(range(count))
    batches = [order[i : i + batch] for i in range(0, count, batch)]
    padding = sum(len(b) * max(lengths[i] for i in b) for b in batches) / sum(lengths)
    assert padding < 1.3 or count < 100


def test_long_and_short_batches_are_mixed():
    order = length_order(list(range(400)), batch=4, rng=random.Random(1))
    first, second = order[:200], order[200:]
    assert abs(sum(first) / 200 - sum(second) / 200) < 60


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_training_and_loss_on_a_gpu(model):
    outcome = _train(model.cuda())
    assert next(model.parameters()).is_cuda
    assert mean_loss(model, ROWS)[0] < 2 * outcome.loss_first


def test_byte_level_rows_train_as_well():
    tokenizer = byte_tokenizer()
    rows, _ = encode_examples([toy_example("chest pain 😀", number=i) for i in range(4)], tokenizer,
                              max_tokens=200)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = new_adapter_model(
            tiny_llama(tokenizer), rank=2, alpha=4, dropout=0, targets=["all-linear"], seed=0
        )
    settings = TrainingSettings(steps=2)
    assert train_adapter(model, rows, tokenizer=tokenizer, settings=settings, seed=0).steps == 2


def test_the_rate_falls_in_every_round_or_once_over_the_run():
    by_round = TrainingSettings(learning_rate=0.8, rounds=4)
    assert by_round.in_round(3) == by_round
    over_run = TrainingSettings(learning_rate=0.8, rounds=4, schedule="run")
    rates = [over_run.in_round(number) for number in (1, 2, 4, 5)]
    assert [one.learning_rate for one in rates] == pytest.approx([0.8, 0.6, 0.2, 0.2])
    assert [one.final_rate for one in rates] == pytest.approx([0.6, 0.4, 0.0, 0.0])
    with pytest.raises(ConfigError, match="schedule"):
        TrainingSettings(schedule="never")
    with pytest.raises(ConfigError, match="final_rate"):
        TrainingSettings(final_rate=1.0)


def test_a_round_of_a_run_begins_and_ends_at_its_own_rates(model):
    rates = []

    def note(optimiser, *_):
        rates.append(optimiser.param_groups[0]["lr"])

    watched = register_optimizer_step_pre_hook(note)
    settings = TrainingSettings(
        steps=11, learning_rate=0.08, warmup=0.1, schedule="run", rounds=2
    ).in_round(1)
    try:
        train_adapter(model, ROWS, tokenizer=TOKENIZER, settings=settings, seed=0)
    finally:
        watched.remove()
    # Two steps of warm-up, then a line from .08 that would reach .04 at a twelfth step.
    line = [0.08 - 0.04 * step / 9 for step in range(9)]
    assert rates == pytest.approx([0.0, 0.04, *line])
