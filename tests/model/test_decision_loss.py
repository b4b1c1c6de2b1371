"""The loss of what enforced decoding leaves open: which tokens compete at which place."""

import pytest
import torch
from model_toys import tiny_llama, toy_example, word_tokenizer

from fedmedlora.model.encoding import encode_examples
from fedmedlora.model.losses import answer_loss, decision_loss, pad_rows, row_losses

ANSWERS = [
    '<span class="problem">chest pain</span> and no <span class="problem">fever</span>',
    'takes <span class="drug">aspirin</span> 81 mg',
    "no tags at all",
]


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


ASKED = ('<span class="problem">', '<span class="drug">')


def rows_of(answers, tokenizer, *, max_tokens=400, openings=ASKED):
    examples = [
        toy_example(
            answer.replace("</span>", "")
            .replace('<span class="problem">', "")
            .replace('<span class="drug">', ""),
            answer=answer,
            number=number,
            openings=openings,
        )
        for number, answer in enumerate(answers)
    ]
    return encode_examples(examples, tokenizer, max_tokens=max_tokens)[0]


def loss_of(model, rows):
    part = pad_rows(rows)
    with torch.no_grad():
        loss, count = decision_loss(
            model, part["input_ids"], part["labels"], part["tags"], part["choices"]
        )
    return float(loss), count


@torch.no_grad()
def by_hand(model, rows):
    """Place by place, from the logits of the whole vocabulary."""
    total = 0.0
    for row in rows:
        logits = model(torch.tensor([row.ids])).logits[0]
        for place in range(row.answer, len(row.ids)):
            text = next(p for p in range(place, len(row.ids)) if p not in row.tags)
            choices = sorted({*row.choices, row.ids[text]})
            best = choices.index(row.ids[place])
            total -= float(logits[place - 1][choices].log_softmax(0)[best])
    return total


def test_tags_of_a_row_are_the_tokens_of_its_tags_and_nothing_else(tokenizer):
    [row] = rows_of(ANSWERS[1:2], tokenizer)
    opening = tokenizer('<span class="drug">', add_special_tokens=False)["input_ids"]
    closing = tokenizer("</span>", add_special_tokens=False)["input_ids"]
    assert [row.ids[place] for place in row.tags] == [*opening, *closing]
    assert min(row.tags) >= row.answer


def test_a_row_may_use_the_tokens_of_every_tag_that_it_asks_for(tokenizer):
    asked = ('<span class="problem">', '<span class="drug">')
    [row] = rows_of(ANSWERS[2:], tokenizer, openings=asked)
    tokens = {
        token
        for tag in (*asked, "</span>")
        for token in tokenizer(tag, add_special_tokens=False)["input_ids"]
    }
    assert set(row.choices) == tokens
    assert row.tags == ()


def test_copying_competes_with_tags_alone(tokenizer):
    model = tiny_llama(tokenizer)
    rows = rows_of(ANSWERS, tokenizer)
    loss, count = loss_of(model, rows)
    assert loss == pytest.approx(by_hand(model, rows), rel=1e-5)
    part = pad_rows(rows)
    with torch.no_grad():
        whole, _ = answer_loss(model, part["input_ids"], part["labels"])
    assert count == sum(row.targets for row in rows)
    assert loss < float(whole)


def test_a_row_costs_the_same_whatever_else_is_in_its_batch(tokenizer):
    # Else a type that another row asks for would be a negative in this one.
    model = tiny_llama(tokenizer)
    rows = [
        *rows_of(ANSWERS[:1], tokenizer, openings=('<span class="problem">',)),
        *rows_of(ANSWERS[1:2], tokenizer, openings=('<span class="drug">',)),
    ]
    apart = sum(loss_of(model, [row])[0] for row in rows)
    assert loss_of(model, rows)[0] == pytest.approx(apart, rel=1e-5)


def test_an_answer_without_any_tag_still_costs_what_its_tags_might_have_taken(tokenizer):
    model = tiny_llama(tokenizer)
    [row] = rows_of(ANSWERS[2:], tokenizer)
    loss, _ = loss_of(model, [row])
    assert loss > 0.01
    assert loss == pytest.approx(by_hand(model, [row]), rel=1e-5)


def test_a_word_of_the_text_that_is_also_a_type_counts_once(tokenizer):
    model = tiny_llama(tokenizer)
    answer = 'drug <span class="drug">drug</span> problem'
    rows = rows_of([answer], tokenizer)
    word = tokenizer("drug", add_special_tokens=False)["input_ids"]
    assert set(word) <= set(rows[0].choices)
    assert loss_of(model, rows)[0] == pytest.approx(by_hand(model, rows), rel=1e-5)


def test_a_row_that_the_limit_cuts_inside_a_tag_still_has_a_finite_loss(tokenizer):
    [whole] = rows_of(ANSWERS[1:2], tokenizer)
    limit = whole.tags[1] + 1
    rows = rows_of(ANSWERS[1:2], tokenizer, max_tokens=limit)
    loss, count = loss_of(tiny_llama(tokenizer), rows)
    assert 0 < loss < float("inf")
    assert count == rows[0].targets


def test_a_row_cut_inside_a_tag_takes_no_token_of_the_row_after_it(tokenizer):
    # Else one note's word would be an alternative in another note's loss.
    model = tiny_llama(tokenizer)
    [whole] = rows_of(ANSWERS[1:2], tokenizer)
    [cut] = rows_of(ANSWERS[1:2], tokenizer, max_tokens=whole.tags[1] + 1)
    assert len(cut.ids) - 1 in cut.tags
    [other] = rows_of(ANSWERS[2:], tokenizer)
    alone = loss_of(model, [cut])[0]
    together = pad_rows([cut, other])
    with torch.no_grad():
        first, second = row_losses(model, together, "decisions").tolist()
    assert first == pytest.approx(alone, rel=1e-5)
    assert second == pytest.approx(loss_of(model, [other])[0], rel=1e-5)
