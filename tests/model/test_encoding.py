"""Examples become rows: piece by piece, loss on the answer alone, nothing vanishes."""

import pytest
from model_toys import EOS, TOKENIZERS, byte_tokenizer, toy_example, word_tokenizer

from fedmedlora.model.encoding import encode_examples, prompt_ids
from fedmedlora.tasks.markup import split_answer

MARKED = 'has <span class="problem">chest pain</span> now'


@pytest.fixture(scope="module", params=sorted(TOKENIZERS))
def tokenizer(request):
    return TOKENIZERS[request.param]()


def _ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_row_is_the_prompt_then_the_answers_pieces_then_end_of_sequence(tokenizer):
    example = toy_example("has chest pain now", answer=MARKED)
    [row], report = encode_examples([example], tokenizer, max_tokens=500)
    pieces = ["has ", '<span class="problem">', "chest pain", "</span>", " now"]
    assert split_answer(MARKED) == pieces
    answer = [i for piece in pieces for i in _ids(tokenizer, piece)]
    prompt = tokenizer(example.prompt)["input_ids"]
    assert row.ids == (*prompt, *answer, tokenizer.eos_token_id)
    assert row.answer == len(prompt)
    assert row.targets == len(answer) + 1
    assert (report.rows, report.tokens) == (1, len(row.ids))


def test_the_prompt_is_the_same_tokens_in_training_and_evaluation(tokenizer):
    example = toy_example("has chest pain now", answer=MARKED)
    [row], _ = encode_examples([example], tokenizer, max_tokens=500)
    [prompt] = prompt_ids([example], tokenizer)
    assert list(row.ids[: row.answer]) == prompt
    assert prompt[0] == tokenizer.bos_token_id


def test_in_the_word_tokenizer_a_tag_does_not_change_the_tokens_around_it():
    tokenizer = word_tokenizer()
    tags = {i for piece in ('<span class="problem">', "</span>") for i in _ids(tokenizer, piece)}
    [row], _ = encode_examples(
        [toy_example("has chest pain now", answer=MARKED)], tokenizer, max_tokens=500
    )
    text = [i for i in row.ids[row.answer : -1] if i not in tags]
    assert text == _ids(tokenizer, "has chest pain now")
    assert len(_ids(tokenizer, '<span class="problem">')) <= 4


def test_what_the_limit_cuts_and_drops_is_counted_by_id():
    tokenizer = word_tokenizer()
    short = toy_example("pain", number=1, prompt="x\n")
    cut = toy_example("pain pain pain pain pain pain", number=2, prompt="x\n")
    dropped = toy_example("pain", number=3, prompt="x " * 10 + "\n")
    rows, report = encode_examples([short, cut, dropped], tokenizer, max_tokens=8)
    assert [row.example for row in rows] == [short.id, cut.id]
    assert [len(row.ids) <= 8 for row in rows] == [True, True]
    assert rows[0].ids[-1] == tokenizer.eos_token_id
    assert rows[1].ids[-1] != tokenizer.eos_token_id
    assert (report.cut, report.dropped) == ((cut.id,), (dropped.id,))
    assert report.rows + len(report.dropped) == 3
    assert report.tokens == sum(len(row.ids) for row in rows)


def test_a_row_of_exactly_the_limit_is_not_cut():
    tokenizer = word_tokenizer()
    example = toy_example("pain pain")
    [row], _ = encode_examples([example], tokenizer, max_tokens=500)
    _, exact = encode_examples([example], tokenizer, max_tokens=len(row.ids))
    _, less = encode_examples([example], tokenizer, max_tokens=len(row.ids) - 1)
    assert (exact.cut, less.cut) == ((), (example.id,))


def test_a_tokenizer_that_ends_every_text_does_not_end_the_prompt():
    tokenizer = byte_tokenizer(append_eos=True)
    example = toy_example("has chest pain now", answer=MARKED)
    assert tokenizer(example.prompt)["input_ids"][-1] == tokenizer.eos_token_id
    [row], _ = encode_examples([example], tokenizer, max_tokens=500)
    assert row.ids.count(tokenizer.eos_token_id) == 1
    assert row.ids[-1] == tokenizer.eos_token_id
    assert prompt_ids([example], tokenizer) == [list(row.ids[: row.answer])]


def test_a_special_token_written_in_a_note_is_text(tokenizer):
    example = toy_example(f"has {EOS} pain")
    [row], _ = encode_examples([example], tokenizer, max_tokens=500)
    assert row.ids.count(tokenizer.eos_token_id) == 1
    assert row.ids.count(tokenizer.bos_token_id) == 1


def test_no_examples_give_no_rows(tokenizer):
    rows, report = encode_examples([], tokenizer, max_tokens=10)
    assert rows == []
    assert (report.rows, report.tokens, report.cut, report.dropped) == (0, 0, (), ())
    assert prompt_ids([], tokenizer) == []


def test_long_texts_cause_no_warning(tokenizer, caplog, recwarn):
    tokenizer.model_max_length = 16
    encode_examples([toy_example("chest pain " * 40)], tokenizer, max_tokens=500)
    assert not caplog.records
    assert not recwarn.list
