"""Enforced decoding: exact copies, tags that may stand where they stand, any batch and draft."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_toys import (
    ENTITY_TAGS,
    LINES,
    SOURCES,
    TOKENIZERS,
    byte_tokenizer,
    random_source,
    tiny_llama,
    toy_example,
    word_tokenizer,
)
from reference_decoder import ReferenceDecoder

from fedmedlora.errors import BackboneError, ConfigError
from fedmedlora.model.decoding import DecodingSettings, EnforcedDecoder
from fedmedlora.model.generation import generate_answers
from fedmedlora.schema import DEFAULT_SCHEME, Document, Entity
from fedmedlora.tasks.build import build_examples
from fedmedlora.tasks.parse import parse_answer
from fedmedlora.tasks.reading import read_answers
from fedmedlora.tasks.settings import TaskSettings

_TOKENIZERS = {name: make() for name, make in TOKENIZERS.items()}
_MODELS = {name: tiny_llama(tokenizer) for name, tokenizer in _TOKENIZERS.items()}
NUMBERED = tuple(
    f'<span class="{name}" head="{head}">'
    for head in range(1, 14)
    for name in ("dosage", "severity")
)


@pytest.fixture(params=sorted(TOKENIZERS))
def kind(request):
    return request.param


def _decode(kind, examples, **options):
    return EnforcedDecoder(_MODELS[kind], _TOKENIZERS[kind], DecodingSettings(**options)).decode(
        examples
    )


def _examples(sources, **options):
    return [toy_example(source, number=i, **options) for i, source in enumerate(sources)]


def _check(example, answer, *, depth):
    parsed = parse_answer(answer, source=example.source)
    assert parsed.text == example.source
    assert (parsed.unclosed, parsed.malformed, parsed.stray) == (0, 0, 0)
    assert not parsed.truncated
    tags = [part for part in _tags(answer) if part != "</span>"]
    assert set(tags) <= set(example.openings)
    level = deepest = 0
    for tag in _tags(answer):
        level += -1 if tag == "</span>" else 1
        deepest = max(deepest, level)
    assert deepest <= depth
    for span in parsed.spans:
        words = parsed.text[span.start : span.end]
        assert words
        assert words == words.strip()


def _tags(answer):
    import re

    return re.findall(r"<span [^<>]*>|</span>", answer)


@pytest.mark.parametrize("depth", [1, 3])
def test_answers_copy_their_source_and_tags_stand_at_words(kind, depth):
    examples = _examples(SOURCES + [random_source(i) for i in range(20)])
    answers = _decode(kind, examples, depth=depth, open_bias=2.0)
    for example, answer in zip(examples, answers, strict=True):
        _check(example, answer, depth=depth)
    assert sum(answer.count("</span>") for answer in answers) > 20


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=40), st.sampled_from(sorted(TOKENIZERS)), st.integers(1, 3))
def test_any_text_is_copied_exactly(source, kind, depth):
    example = toy_example(source)
    [answer] = _decode(kind, [example], depth=depth, open_bias=1.0, draft=4)
    _check(example, answer, depth=depth)


@pytest.mark.parametrize("options", [{}, {"open_bias": 2.0, "depth": 3}])
def test_batch_and_draft_do_not_change_answers(kind, options):
    examples = _examples(SOURCES + [random_source(50 + i) for i in range(8)])
    wanted = _decode(kind, examples, **options)
    for batch, draft in ((1, 8), (7, 1), (64, 4), (7, 16)):
        assert _decode(kind, examples, batch=batch, draft=draft, **options) == wanted


@pytest.mark.parametrize(
    "options", [{}, {"open_bias": 2.0, "depth": 3}, {"open_bias": -1.5, "depth": 2}]
)
def test_answers_are_those_of_a_decoder_without_cache_drafts_or_trie(kind, options):
    examples = _examples([SOURCES[1], SOURCES[6], random_source(200), random_source(201)])
    reference = ReferenceDecoder(_MODELS[kind], _TOKENIZERS[kind], **options)
    answers = _decode(kind, examples, batch=3, draft=5, **options)
    assert answers == [reference.decode(example) for example in examples]


@pytest.mark.parametrize(
    ("openings", "options"),
    [
        (ENTITY_TAGS, {}),
        (NUMBERED, {"depth": 3, "open_bias": 1.0}),
        (("<a>", "<b>"), {"depth": 2, "open_bias": 1.0}),
        (("<spam>",), {"depth": 2}),
    ],
)
def test_tags_that_begin_like_the_text_are_told_from_it_by_the_next_token(openings, options):
    lines = [line for line in LINES if "span" not in line]
    tokenizer = byte_tokenizer([*lines, "spa spam span"], size=330)
    assert tokenizer.tokenize("<span") == ["<", "spa", "n"]
    sources = ["<5<s <sp ", "a</b <<5x", "</<s> <", "x <sp</ba", "<s<s<s <b"]
    for seed in range(2):
        model = tiny_llama(tokenizer, seed=seed)
        reference = ReferenceDecoder(model, tokenizer, **options)
        decoder = EnforcedDecoder(model, tokenizer, DecodingSettings(draft=3, **options))
        examples = _examples(sources, openings=openings)
        assert decoder.decode(examples) == [reference.decode(example) for example in examples]


def test_many_numbered_heads_with_one_tag_inside_the_other(kind):
    examples = _examples(SOURCES, openings=NUMBERED)
    answers = _decode(kind, examples, depth=4, open_bias=4.0)
    twice = 0
    for example, answer in zip(examples, answers, strict=True):
        _check(example, answer, depth=4)
        twice += '"><span' in answer
    assert twice > 0  # a modifier of several heads is tagged once for each


def test_the_same_tag_does_not_open_twice_around_the_same_words(kind):
    [answer] = _decode(
        kind, [toy_example("chest pain and no fever", openings=ENTITY_TAGS[:1])], depth=3,
        open_bias=50.0,
    )  # fmt: skip
    assert f"{ENTITY_TAGS[0]}{ENTITY_TAGS[0]}" not in answer
    assert ENTITY_TAGS[0] in answer


def test_a_tag_of_a_single_token():
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([ENTITY_TAGS[0]])
    assert len(tokenizer(ENTITY_TAGS[0], add_special_tokens=False)["input_ids"]) == 1
    model = tiny_llama(tokenizer)
    examples = _examples(SOURCES)
    decoder = EnforcedDecoder(model, tokenizer, DecodingSettings(open_bias=3.0))
    reference = ReferenceDecoder(model, tokenizer, open_bias=3.0)
    answers = decoder.decode(examples)
    assert answers[:3] == [reference.decode(example) for example in examples[:3]]
    for example, answer in zip(examples, answers, strict=True):
        _check(example, answer, depth=1)


def test_the_bias_raises_and_lowers_the_number_of_openings(kind):
    examples = _examples([random_source(300 + i) for i in range(12)])
    counts = [
        sum(answer.count("<span") for answer in _decode(kind, examples, open_bias=bias))
        for bias in (-100.0, -4.0, 4.0)
    ]
    assert counts[0] == 0
    assert counts[0] < counts[1] < counts[2]


def test_without_openings_an_answer_is_a_plain_copy(kind):
    examples = _examples(SOURCES, openings=())
    assert _decode(kind, examples, open_bias=5.0) == SOURCES


@pytest.mark.parametrize("source", ["", " ", "\n\t  \n"])
def test_a_source_of_white_space_is_copied(kind, source):
    examples = _examples([source, "pain", source])
    answers = _decode(kind, examples, open_bias=100.0)
    assert (answers[0], answers[2]) == (source, source)


def test_no_examples_give_no_answers(kind):
    assert _decode(kind, []) == []


@pytest.mark.parametrize("kind", ["byte", "word"])
def test_a_source_of_three_thousand_words(kind):
    source = " ".join(f"{word} pain" for word in ("chest", "arm", "no") * 500)
    example = toy_example(source, prompt="p\n")
    [answer] = _decode(kind, [example], open_bias=-5.0, draft=64)
    _check(example, answer, depth=1)


def test_a_prompt_of_one_token_beside_a_long_one():
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = byte_tokenizer().backend_tokenizer.post_processor
    tokenizer = _without_bos(tokenizer)
    model = tiny_llama(tokenizer)
    examples = _examples(["chest pain", "no fever"], prompt="pain")
    examples += _examples(["chest pain", "no fever"])
    assert len(tokenizer("pain")["input_ids"]) == 1
    decoder = EnforcedDecoder(model, tokenizer, DecodingSettings(draft=3))
    reference = ReferenceDecoder(model, tokenizer)
    assert decoder.decode(examples) == [reference.decode(example) for example in examples]


def _without_bos(tokenizer):
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    return tokenizer


def test_progress_is_told_by_the_batch():
    told = []
    examples = _examples(SOURCES)
    decoder = EnforcedDecoder(_MODELS["word"], _TOKENIZERS["word"], DecodingSettings(batch=4))
    decoder.decode(examples, on_done=told.append)
    assert told == [4, 8, len(SOURCES)]


def test_answers_come_in_the_order_of_the_examples(kind):
    examples = _examples([SOURCES[0], "a", SOURCES[4], "bb"])
    together = _decode(kind, examples, batch=2)
    assert together == [_decode(kind, [example])[0] for example in examples]


@pytest.mark.parametrize("name", ["batch", "draft", "depth"])
def test_settings_below_one_name_their_key(name):
    with pytest.raises(ConfigError, match=rf"decoding\.{name}: 0"):
        DecodingSettings(**{name: 0})


def test_a_model_whose_logits_are_no_numbers_is_an_error():
    model = tiny_llama(_TOKENIZERS["word"])
    model.model.norm.weight.data.fill_(float("nan"))
    decoder = EnforcedDecoder(model, _TOKENIZERS["word"], DecodingSettings())
    with pytest.raises(BackboneError, match="no numbers"):
        decoder.decode(_examples(["pain"]))


def test_a_tokenizer_without_offsets_is_an_error():
    class Slow:
        is_fast = False
        eos_token_id = 2

    with pytest.raises(BackboneError, match=r"fast tokenizer.*decoding\.mode"):
        EnforcedDecoder(_MODELS["word"], Slow(), DecodingSettings())


# reading what was decoded

NOTE = (
    "Patient 😀 has severe chest pain, no fever.\r\nTakes  aspirin 81 mg <span> daily;\tTroponin "
    "<0.01 ng/mL.\n\nPlan: continue metoprolol 25 mg p.o. b.i.d. for HTN (stable)."
)


def _note():
    spans = [("problem", "chest pain"), ("drug", "aspirin"), ("test", "Troponin"),
             ("problem", "fever")]  # fmt: skip
    entities = tuple(
        Entity(f"T{i}", name, NOTE.index(words), NOTE.index(words) + len(words))
        for i, (name, words) in enumerate(spans)
    )
    return Document(id="d", text=NOTE, entities=entities)


@pytest.mark.parametrize("task", ["entities", "modifiers"])
@pytest.mark.parametrize("heads", ["marked", "numbered"])
def test_every_span_of_an_answer_is_grounded_in_the_note(kind, task, heads):
    note = _note()
    examples, _ = build_examples(
        [note],
        covers=frozenset(DEFAULT_SCHEME.types),
        scheme=DEFAULT_SCHEME,
        settings=TaskSettings(tasks=(task,), heads=heads, window_words=9, prompt="compact"),
    )
    answers = _decode(kind, examples, depth=2, open_bias=3.0)
    reading = read_answers(note, list(zip(examples, answers, strict=True)), scheme=DEFAULT_SCHEME)
    counts = reading.counts
    assert counts.spans == counts.accepted > 0
    assert (counts.changed, counts.unreadable, counts.truncated, counts.stray_closings) == (0,) * 4
    if task == "entities":
        written = sorted(
            (example.start + span.start, example.start + span.end, span.type)
            for example, answer in zip(examples, answers, strict=True)
            for span in parse_answer(answer, source=example.source).spans
        )
        read = [(e.start, e.end, e.type) for e in reading.document.entities]
        assert sorted(set(written)) == sorted(read)


# free generation


def test_free_answers_are_greedy_and_end_at_end_of_sequence(kind):
    model, tokenizer = _MODELS[kind], _TOKENIZERS[kind]
    examples = _examples(["chest pain", "a", "no fever, takes aspirin"])
    answers = generate_answers(model, tokenizer, examples, batch=2, max_new_tokens_factor=1.0)
    for example, answer in zip(examples, answers, strict=True):
        ids = tokenizer(example.prompt)["input_ids"]
        limit = len(tokenizer(example.source, add_special_tokens=False)["input_ids"]) + 32
        new = []
        while len(new) < limit:
            with torch.inference_mode():
                best = int(model(torch.tensor([ids + new])).logits[0, -1].argmax())
            if best == tokenizer.eos_token_id:
                break
            new.append(best)
        assert answer == tokenizer.decode(new, skip_special_tokens=True)


def test_free_generation_ignores_what_the_backbone_proposes(recwarn, caplog):
    model, tokenizer = tiny_llama(_TOKENIZERS["word"]), _TOKENIZERS["word"]
    examples = _examples(["chest pain", "no fever"])
    plain = generate_answers(model, tokenizer, examples)
    model.generation_config.update(
        do_sample=True, temperature=5.0, top_p=0.3, repetition_penalty=9.0, top_k=3
    )
    told = []
    assert generate_answers(model, tokenizer, examples, batch=1, on_done=told.append) == plain
    assert told == [1, 2]
    assert not recwarn.list
    assert not caplog.records
