"""The loss of what enforced decoding leaves open: which tokens compete at which place."""

import pytest
import torch
from model_toys import tiny_llama, toy_example, word_tokenizer

from fedmedlora.model.encoding import encode_examples
from fedmedlora.model.losses import answer_loss, decision_loss, pad_rows

ANSWERS = [
    '<span class="problem">chest pain</span> and no <span class="problem">fever</span>',
    'takes <span class="drug">aspirin</span> 81 mg',
    "no tags at all",
]


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


def rows_of(answers, tokenizer, *, max_tokens=400):
    examples = [
        toy_example(
            answer.replace("</span>", "")
            .replace('<span class="problem">', "")
            .replace('<span class="drug">', ""),
            answer=answer,
            number=number,
        )
        for number, answer in enumerate(answers)
    ]
    return encode_examples(examples, tokenizer, max_tokens=max_tokens)[0]


def by_hand(model, rows):
    """Place by place, from the logits of the whole vocabulary."""
    of_tags = sorted({row.ids[place] for row in rows for place in row.tags})
    total = 0.0
    for row in rows:
        logits = model(torch.tensor([row.ids])).logits[0]
        for place in range(row.answer, len(row.ids)):
            text = next(p for p in range(place, len(row.ids)) if p not in row.tags)
            choices = [*of_tags, row.ids[text]]
            best = len(of_tags) if place == text else of_tags.index(row.ids[place])
            total -= float(logits[place - 1][choices].log_softmax(0)[best])
    return total


def test_tags_of_a_row_are_the_tokens_of_its_tags_and_nothing_else(tokenizer):
    [row] = rows_of(ANSWERS[1:2], tokenizer)
    opening = tokenizer('<span class="drug">', add_special_tokens=False)["input_ids"]
    closing = tokenizer("</span>", add_special_tokens=False)["input_ids"]
    assert [row.ids[place] for place in row.tags] == [*opening, *closing]
    assert min(row.tags) >= row.answer


def test_copying_competes_with_tags_alone(tokenizer):
    model = tiny_llama(tokenizer)
    rows = rows_of(ANSWERS, tokenizer)
    part = pad_rows(rows)
    with torch.no_grad():
        loss, count = decision_loss(model, part["input_ids"], part["labels"], part["tags"])
        assert float(loss) == pytest.approx(by_hand(model, rows), rel=1e-5)
        whole, _ = answer_loss(model, part["input_ids"], part["labels"])
    assert count == sum(row.targets for row in rows)
    assert float(loss) < float(whole)


def test_answers_without_any_tag_cost_nothing_when_no_tag_is_in_the_batch(tokenizer):
    model = tiny_llama(tokenizer)
    part = pad_rows(rows_of(ANSWERS[2:], tokenizer))
    loss, _ = decision_loss(model, part["input_ids"], part["labels"], part["tags"])
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)


def test_a_row_that_the_limit_cuts_inside_a_tag_still_has_a_finite_loss(tokenizer):
    [whole] = rows_of(ANSWERS[1:2], tokenizer)
    limit = whole.tags[1] + 1
    rows = rows_of(ANSWERS[1:2], tokenizer, max_tokens=limit)
    part = pad_rows(rows)
    loss, count = decision_loss(
        tiny_llama(tokenizer), part["input_ids"], part["labels"], part["tags"]
    )
    assert torch.isfinite(loss)
    assert count == rows[0].targets
