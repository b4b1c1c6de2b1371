"""Examples to rows with BIO labels, and labels back to answers: by hand, and as a round trip."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tagger_toys import ALL, SCHEME, note, piece_tokenizer, save_encoder

from fedmedlora.errors import AdapterError, BackboneError, ConfigError, DataError, SchemaError
from fedmedlora.model.bio import (
    IGNORED,
    Span,
    best_labels,
    label_names,
    outermost,
    read_tags,
    tag_spans,
)
from fedmedlora.model.tagger import load_state, load_tagger, state_of
from fedmedlora.model.tagger_answers import encode_for, logits_of, pad_rows, tag_examples
from fedmedlora.model.tagger_training import (
    TaggerSettings,
    mean_tagging_loss,
    tagging_loss,
    train_tagger,
)
from fedmedlora.model.tagging import TagReport, encode_rows, write_answer
from fedmedlora.schema import DEFAULT_SCHEME
from fedmedlora.tasks.build import build_examples
from fedmedlora.tasks.reading import predict_documents
from fedmedlora.tasks.settings import TaskSettings

TYPES = ("a", "b")
OUT, B_A, I_A, B_B, I_B = range(5)
WORDS = [(0, 2), (3, 5), (6, 8), (9, 11)]
MARKERS = (1000, 1001)


def ask(document, *, covers=ALL, tasks=("entities", "modifiers"), words=40):
    settings = TaggerSettings(window_words=words).tasks(tasks)
    examples, _ = build_examples([document], covers=covers, scheme=SCHEME, settings=settings)
    return examples


def encode(examples, tokenizer=None, *, max_tokens=64):
    return encode_rows(
        examples,
        tokenizer or piece_tokenizer(),
        scheme=SCHEME,
        markers=MARKERS,
        max_tokens=max_tokens,
    )


def shown(row, text, start=0):
    """The text of each token, markers as [ and ]."""
    signs = {MARKERS[0]: "[", MARKERS[1]: "]"}
    return [
        signs.get(token, text[start + s : start + e])
        for token, (s, e) in zip(row.ids, row.offsets, strict=True)
    ]


# Spans and labels


@pytest.mark.parametrize(
    ("spans", "labels"),
    [
        ([], [OUT, OUT, OUT, OUT]),
        ([Span(0, 2, "a")], [B_A, OUT, OUT, OUT]),
        ([Span(3, 8, "b")], [OUT, B_B, I_B, OUT]),
        ([Span(0, 5, "a"), Span(6, 8, "a")], [B_A, I_A, B_A, OUT]),
        ([Span(0, 5, "a"), Span(6, 11, "b")], [B_A, I_A, B_B, I_B]),
        ([Span(4, 7, "a")], [OUT, B_A, I_A, OUT]),  # inside tokens: their whole
    ],
)
def test_a_span_is_b_on_its_first_token_and_i_on_the_others(spans, labels):
    assert tag_spans(spans, WORDS, TYPES) == labels


def test_tokens_that_stand_for_no_text_have_no_label_and_do_not_end_a_span():
    offsets = [(0, 0), (0, 2), (0, 0), (3, 5), (0, 0)]
    labels = [IGNORED, B_A, IGNORED, I_A, IGNORED]
    assert tag_spans([Span(0, 5, "a")], offsets, TYPES) == labels
    assert read_tags(labels, offsets, TYPES) == [Span(0, 5, "a")]


@pytest.mark.parametrize(
    ("labels", "spans"),
    [
        ([OUT, I_A, I_A, OUT], [Span(3, 8, "a")]),  # an I that nothing began
        ([B_A, I_B, OUT, OUT], [Span(0, 2, "a"), Span(3, 5, "b")]),  # an I of another type
        ([B_A, OUT, I_A, OUT], [Span(0, 2, "a"), Span(6, 8, "a")]),
        ([B_A, B_A, OUT, OUT], [Span(0, 2, "a"), Span(3, 5, "a")]),
    ],
)
def test_an_i_that_continues_nothing_of_its_type_begins_a_span(labels, spans):
    assert read_tags(labels, WORDS, TYPES) == spans


def test_tokens_of_one_character_give_spans_that_do_not_overlap():
    bytes_of_two_characters = [(0, 1), (0, 1), (1, 2), (1, 2)]
    assert read_tags([B_A, B_B, I_B, OUT], bytes_of_two_characters, TYPES) == [
        Span(0, 1, "a"),
        Span(1, 2, "b"),
    ]
    assert read_tags([B_A, B_A, OUT, OUT], bytes_of_two_characters, TYPES) == [Span(0, 1, "a")]


@st.composite
def tokens_and_spans(draw):
    offsets, end = [], 0
    for _ in range(draw(st.integers(1, 12))):
        start = end + draw(st.integers(0, 2))
        end = start + draw(st.integers(0, 3))
        offsets.append((start, end))
    text = [place for place in offsets if place[0] < place[1]]
    spans, first = [], 0
    while first < len(text):
        size = draw(st.integers(0, 3))
        last = min(first + size, len(text)) - 1
        if size:
            spans.append(Span(text[first][0], text[last][1], draw(st.sampled_from(TYPES))))
        first = max(last, first) + 1
    return offsets, spans


@given(tokens_and_spans())
def test_spans_that_begin_and_end_with_tokens_survive_the_labels(drawn):
    offsets, spans = drawn
    assert read_tags(tag_spans(spans, offsets, TYPES), offsets, TYPES) == spans


@given(
    st.lists(
        st.builds(
            lambda s, n, t: Span(s, s + n, t),
            st.integers(0, 12),
            st.integers(1, 6),
            st.sampled_from(TYPES),
        ),
        max_size=8,
    )
)
def test_what_is_left_of_overlapping_spans_is_disjoint_and_nothing_longer_was_dropped(spans):
    kept = outermost(spans)
    for one, other in pairwise(kept):
        assert one.end <= other.start
    for span in spans:
        assert any(
            k.start < span.end and span.start < k.end and k.end - k.start >= span.end - span.start
            for k in kept
        )


def test_of_nested_spans_the_outermost_and_of_equal_ones_the_first_is_kept():
    nested = [Span(0, 10, "a"), Span(2, 5, "b"), Span(12, 14, "b"), Span(12, 14, "a")]
    assert outermost(nested) == [Span(0, 10, "a"), Span(12, 14, "b")]


# Which labels are best


def test_the_best_labels_give_an_i_only_behind_its_b():
    scores = np.array([[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 3.0, 0.0, 0.0], [0, 0, 2.0, 0, 0]])
    # O I I would score 6, but I must follow B: B I I scores 5, O B I 4.
    assert best_labels(scores, range(5)) == [B_A, I_A, I_A]


def test_an_i_of_one_type_never_follows_the_other():
    scores = np.array([[0.0, 5.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0, 9.0]])
    assert best_labels(scores, range(5)) == [B_B, I_B]


def test_labels_that_are_not_allowed_are_never_given():
    scores = np.array([[0.0, 9.0, 9.0, 1.0, 0.0], [0.0, 9.0, 9.0, 0.0, 1.0]])
    assert best_labels(scores, (OUT, B_B, I_B)) == [B_B, I_B]
    assert best_labels(scores, (OUT,)) == [OUT, OUT]
    assert best_labels(np.zeros((0, 5)), range(5)) == []


# Examples to rows


def test_every_type_has_a_b_and_an_i_main_entities_first():
    assert label_names(SCHEME) == (
        "O", "B-problem", "I-problem", "B-drug", "I-drug",
        "B-severity", "I-severity", "B-dosage", "I-dosage",
    )  # fmt: skip


def test_an_entities_row_holds_the_text_and_the_labels_of_its_types():
    document = note("mild chest pain\r\ntakes aspirin", ("problem", 5, 15), ("drug", 23, 30))
    [row], report = encode(ask(document, tasks=("entities",)))
    assert "".join(shown(row, document.text)) == "mildchestpaintakesaspirin"
    assert row.allowed == (0, 1, 2, 3, 4)
    assert row.labels[0] == row.labels[-1] == IGNORED  # [CLS] and [SEP]
    assert read_tags(row.labels, row.offsets, SCHEME.types) == [
        Span(5, 15, "problem"),
        Span(23, 30, "drug"),
    ]
    assert (report.rows, report.spans, report.inexact, report.cut) == (1, 2, 0, 0)


def test_a_modifiers_row_has_its_head_between_two_markers_and_only_that_heads_modifiers():
    text = "mild pain and severe pain"
    document = note(
        text,
        ("problem", 5, 9), ("problem", 21, 25), ("severity", 0, 4), ("severity", 14, 20),
        relations=[(0, 2), (1, 3)],
    )  # fmt: skip
    first, second = encode(ask(document, tasks=("modifiers",)))[0]
    assert "".join(shown(first, text)) == "mild[pain]andseverepain"
    assert "".join(shown(second, text)) == "mildpainandsevere[pain]"
    severity = label_names(SCHEME).index("B-severity")
    assert first.allowed == second.allowed == (0, severity, severity + 1)
    assert read_tags(first.labels, first.offsets, SCHEME.types) == [Span(0, 4, "severity")]
    assert read_tags(second.labels, second.offsets, SCHEME.types) == [Span(14, 20, "severity")]


@pytest.mark.parametrize(
    ("text", "head", "tokens"),
    [
        ("a \u200b b", (2, 3), "a[]b"),
        ("a b \u200b", (4, 5), "ab[]"),
        ("ab", (0, 1), "[ab]"),  # part of a token: all of it
    ],
)
def test_markers_stand_where_the_head_is_even_if_it_is_no_whole_token(text, head, tokens):
    document = note(text, ("problem", *head))
    [row], _ = encode(ask(document, tasks=("modifiers",)), piece_tokenizer(["ab a b"] * 50))
    assert "".join(shown(row, text)) == tokens


def test_a_document_that_covers_fewer_types_asks_for_fewer_labels():
    document = note("mild pain, aspirin", covers=frozenset({"drug", "dosage"}))
    [row], _ = encode(ask(document, tasks=("entities",)))
    assert row.allowed == (0, 3, 4)


def test_of_nested_gold_the_outermost_is_labelled_and_the_rest_counted():
    document = note("pain in chest", ("problem", 0, 13), ("problem", 8, 13))
    [row], report = encode(ask(document, tasks=("entities",)))
    assert read_tags(row.labels, row.offsets, SCHEME.types) == [Span(0, 13, "problem")]
    assert (report.spans, report.overlapping, report.inexact) == (2, 1, 0)


def test_a_span_that_ends_inside_a_token_is_counted_and_said_with_the_tokens_end():
    document = note("aspirin", ("drug", 0, 4))
    tokenizer = piece_tokenizer(["aspirin"] * 50)
    [row], report = encode(ask(document, tasks=("entities",)), tokenizer)
    assert row.offsets == ((0, 0), (0, 7), (0, 0))
    assert report.inexact == 1
    assert read_tags(row.labels, row.offsets, SCHEME.types) == [Span(0, 7, "drug")]


def test_a_row_over_the_limit_is_cut_at_its_end_and_counted():
    text = "pain " * 20
    document = note(text, ("problem", 0, 4), ("problem", 95, 99), ("problem", 10, 14))
    [row], report = encode(ask(document, tasks=("entities",)), max_tokens=12)
    assert len(row.ids) == 12
    assert row.ids[-1] == 3  # [SEP] stays
    assert (report.cut, report.spans_cut, report.heads_cut) == (1, 1, 0)
    rows, report = encode(ask(document, tasks=("modifiers",)), max_tokens=12)
    assert [len(row.ids) for row in rows] == [12, 12, 10]  # the third has no marker
    assert report.heads_cut == 1
    assert rows[2].allowed == (0,)


def test_reports_add_up():
    assert TagReport(1, 2, 3, 4, 5, 6, 7, 8) + TagReport(rows=1, cut=2) == TagReport(
        2, 2, 3, 4, 5, 8, 7, 8
    )


def test_numbered_heads_are_refused():
    document = note("mild pain", ("problem", 5, 9))
    settings = TaskSettings(tasks=("modifiers",), heads="numbered")
    examples, _ = build_examples([document], covers=ALL, scheme=SCHEME, settings=settings)
    with pytest.raises(SchemaError, match='heads="marked"'):
        encode(examples)


ODD = "caf\u00e9 \U0001f912 pain\r\n\tna\u0308usea \u00b5g <span aspirin\u2028e\u0301nd 5 mg"


@pytest.mark.parametrize("kind", ["bert", "roberta", "modern"])
def test_answers_written_from_labels_are_exact_on_any_text(kind, tmp_path):
    words = [(7, 11), (14, 21), (31, 38)]
    document = note(ODD, *(("problem", s, e) for s, e in words))
    assert [ODD[s:e] for s, e in words] == ["pain", "na\u0308usea", "aspirin"]
    tagger = load_tagger(str(save_encoder(tmp_path, kind=kind)), scheme=SCHEME, seed=1)
    examples = ask(document, tasks=("entities",))
    rows, report = encode_for(tagger, examples, max_tokens=64)
    assert report.inexact == 0
    answers = [
        write_answer(example, read_tags(row.labels, row.offsets, SCHEME.types))
        for example, row in zip(examples, rows, strict=True)
    ]
    assert answers == [example.answer for example in examples]
    read = predict_documents([document], zip(examples, answers, strict=True), scheme=SCHEME)
    [predicted] = read["entities"].documents
    assert [(e.type, e.start, e.end) for e in predicted.entities] == [
        ("problem", s, e) for s, e in words
    ]


# Taggers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture
def tagger(folder):
    return load_tagger(folder, scheme=SCHEME, seed=1)


def parameters(tagger):
    return dict(tagger.model.named_parameters())


def test_the_same_seed_gives_the_same_tagger_and_another_another_classifier(folder):
    states = [load_tagger(folder, scheme=SCHEME, seed=seed).initial for seed in (1, 1, 2)]
    assert states[0].sha256 == states[1].sha256
    different = [
        name
        for name, values in states[0].tensors.items()
        if not np.array_equal(values, states[2].tensors[name])
    ]
    assert different == ["classifier.weight"]


def test_loading_leaves_the_random_state_alone(folder):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_tagger(folder, scheme=SCHEME, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_no_embedding_is_in_what_travels_and_all_else_is(tagger):
    sent = set(tagger.initial.tensors)
    kept = {name for name in parameters(tagger) if name not in sent}
    assert {name.split(".")[1] for name in kept} == {"embeddings"}
    assert "bert.encoder.layer.1.attention.self.query.weight" in sent
    assert "classifier.bias" in sent


def test_markers_are_two_different_tokens_that_no_text_gives(tagger):
    embeddings = tagger.model.get_input_embeddings().weight
    one, two = tagger.markers
    assert len(embeddings) == two + 1
    assert max(tagger.tokenizer.get_vocab().values()) < one
    assert not torch.equal(embeddings[one], embeddings[two])


def test_an_encoder_without_its_weights_is_refused(tmp_path):
    source = save_encoder(tmp_path)
    weights = load_file(source / "model.safetensors")
    removed = "bert.encoder.layer.0.attention.self.query.weight"
    del weights[removed]
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match="lack 1 tensors"):
        load_tagger(str(source), scheme=SCHEME, seed=1)


def old_folder(folder, words):
    """As the hub's oldest models are: pickled weights, vocab.txt, no tokenizer's configuration."""
    save_encoder(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    for file in [*folder.glob("*.safetensors"), *folder.glob("tokenizer*")]:
        file.unlink()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return folder


@pytest.mark.parametrize(
    ("words", "tokens"),
    [
        (["Aspirin", "aspirin"], ["[CLS]", "Aspirin", "[SEP]"]),
        (["aspirin"], ["[CLS]", "aspirin", "[SEP]"]),
    ],
)
def test_capitals_are_kept_if_the_vocabulary_has_any(words, tokens, tmp_path):
    tagger = load_tagger(str(old_folder(tmp_path, words)), scheme=SCHEME, seed=1)
    ids = tagger.tokenizer("Aspirin")["input_ids"]
    assert tagger.tokenizer.convert_ids_to_tokens(ids) == tokens
    assert tagger.longest == 64


def test_no_such_folder_is_told():
    with pytest.raises(BackboneError, match="no such folder"):
        load_tagger("./nowhere", scheme=SCHEME, seed=1)


def test_a_state_of_another_scheme_is_refused(tagger, folder):
    other = load_tagger(folder, scheme=DEFAULT_SCHEME, seed=1)
    with pytest.raises(AdapterError, match="another encoder or annotation scheme"):
        load_state(tagger, other.initial)


def toy_notes():
    """Every "pain" is a problem, every number in front of "mg" a dosage of its drug."""
    return note(
        "severe pain. takes aspirin 81 mg daily",
        ("severity", 0, 6), ("problem", 7, 11), ("drug", 19, 26), ("dosage", 27, 32),
        relations=[(1, 0), (2, 3)],
    )  # fmt: skip


def test_a_tiny_encoder_learns_a_pattern_and_its_answers_read_as_documents(tagger):
    document = toy_notes()
    examples = ask(document)
    rows, _ = encode_for(tagger, examples, max_tokens=64)
    settings = TaggerSettings(steps=120, batch=3, learning_rate=3e-3)
    outcome = train_tagger(tagger, rows, settings=settings, seed=3)
    assert outcome.steps == 120
    assert outcome.loss_last < 0.2 < outcome.loss_first
    told = []
    answers = tag_examples(tagger, examples, max_tokens=64, batch=2, on_done=told.append)
    assert told == [2, 3]
    assert answers == [example.answer for example in examples]
    read = predict_documents([document], zip(examples, answers, strict=True), scheme=SCHEME)
    [predicted] = read["modifiers"].documents
    said = {
        (r.type, predicted.entity(r.head).start, predicted.entity(r.tail).start)
        for r in predicted.relations
    }
    assert said == {("severity", 7, 0), ("dosage", 19, 27)}


def test_gold_answers_are_not_looked_at_when_tagging(tagger):
    with_gold = ask(toy_notes())
    bare = ask(note(toy_notes().text, ("problem", 7, 11), ("drug", 19, 26)))
    assert with_gold[0].source == bare[0].source
    assert with_gold[1].answer != bare[1].answer
    assert tag_examples(tagger, with_gold[1:], max_tokens=64) == tag_examples(
        tagger, bare[1:], max_tokens=64
    )


def test_answers_do_not_depend_on_the_batch(tagger):
    examples = ask(toy_notes())
    train_tagger(
        tagger,
        encode_for(tagger, examples, max_tokens=64)[0],
        settings=TaggerSettings(steps=30, batch=3, learning_rate=3e-3),
        seed=3,
    )
    one, many = (tag_examples(tagger, examples, max_tokens=64, batch=n) for n in (1, 3))
    assert one == many


def test_a_bias_makes_the_tagger_say_more_or_less(tagger):
    examples = ask(toy_notes(), tasks=("entities",))
    [none] = tag_examples(tagger, examples, max_tokens=64, open_bias=-50.0)
    assert none == examples[0].source
    [all_of_it] = tag_examples(tagger, examples, max_tokens=64, open_bias=50.0)
    words = all_of_it.replace("</span>", "").split('<span class="')[1:]
    assert all_of_it.startswith("<span")
    assert "".join(word.split('">')[1] for word in words) == examples[0].source


def test_a_type_that_is_not_asked_for_gets_no_gradient_and_is_never_predicted(tagger):
    document = note("takes aspirin for pain", ("drug", 6, 13), covers=frozenset({"drug"}))
    examples = ask(document, tasks=("entities",))
    rows, _ = encode_for(tagger, examples, max_tokens=64)
    inputs = pad_rows(rows, tagger)
    logits = logits_of(tagger.model, inputs)
    problem = [1, 2]
    assert torch.isinf(logits[..., problem]).all()
    total, count = tagging_loss(logits, inputs.labels)
    assert count == rows[0].targets
    total.backward()
    gradient = parameters(tagger)["classifier.weight"].grad
    asked = [0, 3, 4]
    assert gradient[asked].abs().sum(1).min() > 0
    others = [label for label in range(9) if label not in asked]
    assert torch.equal(gradient[others], torch.zeros_like(gradient[others]))


def test_the_loss_is_the_mean_over_text_tokens_with_only_the_asked_labels_in_the_softmax(tagger):
    with torch.no_grad():
        parameters(tagger)["classifier.weight"].zero_()
        parameters(tagger)["classifier.bias"].zero_()
    rows, _ = encode_for(tagger, ask(toy_notes()), max_tokens=64)
    loss, tokens = mean_tagging_loss(tagger, rows, batch=2)
    entities, modifiers = rows[0].targets, rows[1].targets + rows[2].targets
    assert tokens == entities + modifiers
    # All logits are equal: five labels are open in the first row, three in the two others.
    expected = (entities * np.log(5) + modifiers * np.log(3)) / tokens
    assert loss == pytest.approx(expected, abs=1e-5)


def test_equal_seeds_give_equal_bits_and_other_seeds_others(tmp_path):
    folder = str(save_encoder(tmp_path, dropout=0.2))
    states = []
    for seed in (3, 3, 4):
        tagger = load_tagger(folder, scheme=SCHEME, seed=1)
        rows, _ = encode_for(tagger, ask(toy_notes()), max_tokens=64)
        torch.rand(seed)  # what was drawn before must not matter
        train_tagger(
            tagger, rows, settings=TaggerSettings(steps=4, batch=2, learning_rate=1e-3), seed=seed
        )
        states.append(state_of(tagger).sha256)
    assert states[0] == states[1] != states[2]


def test_training_leaves_the_embeddings_as_they_were(tagger):
    before = {n: p.clone() for n, p in parameters(tagger).items() if not p.requires_grad}
    rows, _ = encode_for(tagger, ask(toy_notes()), max_tokens=64)
    train_tagger(tagger, rows, settings=TaggerSettings(epochs=2, batch=2), seed=3)
    assert before
    assert all(torch.equal(parameters(tagger)[name], value) for name, value in before.items())
    changed = state_of(tagger).tensors
    assert any(not np.array_equal(changed[n], v) for n, v in tagger.initial.tensors.items())


def test_epochs_count_passes_over_the_rows_and_every_step_is_told(tagger):
    rows, _ = encode_for(tagger, ask(toy_notes()), max_tokens=64)
    told = []
    train_tagger(
        tagger,
        rows,
        settings=TaggerSettings(epochs=2, batch=2),
        seed=3,
        on_step=lambda step, steps, loss: told.append((step, steps, loss > 0)),
    )
    # Three rows in batches of two, twice.
    assert told == [(1, 3, True), (2, 3, True), (3, 3, True)]


def test_a_training_that_diverges_is_told_and_undone(tagger):
    rows, _ = encode_for(tagger, ask(toy_notes()), max_tokens=64)
    with pytest.raises(AdapterError, match=r"diverged.*tagger\.learning_rate"):
        train_tagger(
            tagger, rows, settings=TaggerSettings(steps=9, batch=3, learning_rate=1e30), seed=3
        )
    assert state_of(tagger).sha256 == tagger.initial.sha256


def test_nothing_to_train_on_is_told(tagger):
    settings = TaggerSettings(steps=1)
    with pytest.raises(DataError, match="no example"):
        train_tagger(tagger, [], settings=settings, seed=1)
    with pytest.raises(DataError, match="no example"):
        mean_tagging_loss(tagger, [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"epochs": float("nan")}, {"steps": 0}, {"batch": 0}, {"learning_rate": 0},
        {"warmup": 1.0}, {"weight_decay": -1}, {"max_tokens": 7}, {"window_words": 0},
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_named(wrong):
    [name] = wrong
    with pytest.raises(ConfigError, match=rf"tagger\.{name}"):
        TaggerSettings(**wrong)
