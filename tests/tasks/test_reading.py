import pytest
from task_notes import SCHEME, build, note, only

from fedmedlora.errors import SchemaError
from fedmedlora.schema import Document, Relation
from fedmedlora.tasks.read_counts import ReadCounts
from fedmedlora.tasks.reading import predict_documents, read_answers

PAIN = note("Severe chest pain, no fever. Given 3.5 mg of aspirin twice.")


def nonzero(counts):
    names = ReadCounts.__dataclass_fields__
    return {name: int(getattr(counts, name)) for name in names if getattr(counts, name)}


def read(answer, document=PAIN, **settings):
    """Predicted (type, words) of one entities answer over the whole note, and the counts."""
    example = only(build(document, tasks=("entities",), **settings)[0])
    reading = read_answers(document, [(example, answer)], scheme=SCHEME)
    spans = [(e.type, document.text[e.start : e.end]) for e in reading.document.entities]
    counts = nonzero(reading.counts)
    assert counts.pop("answers") == 1
    return spans, counts


COPY = "Severe {}chest pain{}, no {}fever{}. Given 3.5 mg of {}aspirin{} twice."
P, D, END = '<span class="problem">', '<span class="drug">', "</span>"
GOLD = COPY.format(P, END, P, END, D, END)
SPANS = [("problem", "chest pain"), ("problem", "fever"), ("drug", "aspirin")]


def test_a_perfect_answer_is_read_whole():
    assert read(GOLD) == (SPANS, {"spans": 3, "accepted": 3})


@pytest.mark.parametrize(
    "answer",
    [
        GOLD.lower(),
        GOLD.replace(" ", "  ").replace("<span  ", "<span "),
        "\n" + GOLD.replace(". Given", ".\nGiven"),
        GOLD.replace('"', "'"),
        GOLD.replace("3.5 mg", "3 . 5mg"),
    ],
)
def test_differences_of_case_quotes_and_white_space_change_no_offset(answer):
    assert read(answer)[0] == SPANS


def test_a_rambling_answer_is_read_as_its_first_copy():
    spans, counts = read(f"{GOLD}\n### Input Text:\n{PAIN.text}\n### Output Text:\n{GOLD}")
    assert spans == SPANS
    assert counts == {"changed": 1, "spans": 6, "accepted": 3, "changed_words": 3}


def test_a_changed_word_inside_a_span_is_never_scored_as_the_note_s():
    spans, counts = read(GOLD.replace("chest pain", "breast pain"))
    assert spans == SPANS[1:]
    assert counts == {"changed": 1, "spans": 3, "accepted": 2, "changed_words": 1}


def test_numbers_are_compared_as_numbers():
    document = note("Given 100 mg, no 10 mg, on day 1.")
    answer = f"Given {D}10 mg{END}, on {D}10 mg{END}, on day 1."
    assert read(answer, document)[0] == [("drug", "10 mg")]
    answer = f"Given {D}3.5 mg of aspirin{END}"
    assert read(f"Severe chest pain, no fever. {answer}")[0] == [("drug", "3.5 mg of aspirin")]


def test_a_changed_word_elsewhere_leaves_a_span_its_place():
    spans, counts = read(GOLD.replace("Given", "She was given").replace("twice", "daily"))
    assert spans == SPANS
    assert counts == {"changed": 1, "spans": 3, "accepted": 3}


def test_dropped_words_around_a_span_are_no_loss_and_inside_it_are_one():
    assert read(GOLD.replace("3.5 mg of ", ""))[0] == SPANS
    spans, counts = read(f"{P}Severe pain{END}, no fever.")
    assert (spans, counts["dropped_words"]) == ([], 1)


def test_a_word_that_may_be_either_of_two_is_not_guessed():
    document = note("In bed: no pain at rest, no pain at night.")
    spans, counts = read(f"{P}no pain{END}", document)
    assert (spans, counts["ambiguous"]) == ([], 1)


def test_a_span_inside_a_word_is_exact_even_in_a_changed_answer():
    document = note("Bad headache today")
    assert read(f"bad head{P}ache{END} today!", document)[0] == [("problem", "ache")]


def test_a_span_inside_a_word_of_another_length_is_not_taken():
    document = note("Große Schmerzen")
    spans, counts = read(f"gro{P}sse{END} schmerzen", document)
    assert (spans, counts["changed_words"]) == ([], 1)


@pytest.mark.parametrize("answer", ["", " \n", "I cannot help with that", "###", "<span"])
def test_an_answer_with_no_word_of_its_source_is_unreadable(answer):
    spans, counts = read(answer)
    assert spans == []
    assert counts["unreadable"] == counts["changed"] == 1


def test_unclosed_truncated_unknown_unasked_and_stray_tags_are_counted():
    answer = (
        f'{END}<span class="symptom">Severe</span> {P}chest pain{END}, no <span class="dosage">'
        f'fever</span>. {P}Given 3.5 mg of {D}aspirin{END} twice.<span class="dr'
    )
    spans, counts = read(answer, covers=frozenset({"problem", "drug"}))
    assert spans == [("problem", "chest pain"), ("drug", "aspirin")]
    assert counts == {
        "truncated": 1,
        "spans": 5,
        "accepted": 2,
        "unclosed": 1,
        "unknown_class": 1,
        "unasked": 1,
        "stray_closings": 1,
    }


def test_blank_and_repeated_spans_are_counted():
    document = note("No pain now")
    answer = f"No {P}{END}{P}{P}pain{END}{END} now"
    assert read(answer, document) == (
        [("problem", "pain")],
        {"spans": 3, "accepted": 2, "blank": 1, "repeated": 1},
    )


def test_classes_are_understood_in_any_case():
    assert read(GOLD.replace("problem", "PROBLEM"))[0] == SPANS


def modifiers_note():
    return note(
        "no pain or fever, aspirin 81 mg",
        ("problem", "pain"),
        ("problem", "fever"),
        ("drug", "aspirin"),
        ("negation", "no"),
    )


def test_a_modifier_found_for_two_heads_is_one_entity_with_two_relations():
    document = modifiers_note()
    examples, _ = build(document, tasks=("modifiers",))
    answer = '<span class="negation">no</span> pain or fever, aspirin 81 mg'
    reading = read_answers(document, [(e, answer) for e in examples[:2]], scheme=SCHEME)
    heads, modifiers = reading.document.entities[:3], reading.document.entities[3:]
    assert heads == document.entities[:3]
    assert [(m.id, m.type, m.start, m.end) for m in modifiers] == [("P1", "negation", 0, 2)]
    assert reading.document.relations == (
        Relation("negation", "T1", "P1"),
        Relation("negation", "T2", "P1"),
    )


def test_numbered_answers_name_one_head_or_several_and_no_unknown_or_invalid_one():
    document = modifiers_note()
    example = only(build(document, tasks=("modifiers",), heads="numbered")[0])
    answer = (
        '<span class="negation" head="1, 2">no</span> <span class="severity" head="9">pain</span> '
        '<span class="severity">or</span> <span class="drug" id="3">fever</span>, aspirin '
        '<span class="dosage" head="1">81</span> <span class="dosage" head="3">mg</span>'
    )
    reading = read_answers(document, [(example, answer)], scheme=SCHEME)
    names = {e.id: document.text[e.start : e.end] for e in reading.document.entities}
    assert [(r.type, names[r.head], names[r.tail]) for r in reading.document.relations] == [
        ("negation", "pain", "no"),
        ("negation", "fever", "no"),
        ("dosage", "aspirin", "mg"),
    ]
    assert nonzero(reading.counts) == {
        "answers": 1,
        "spans": 7,
        "accepted": 3,
        "unknown_head": 2,
        "unasked": 1,
        "invalid_pair": 1,
    }


def test_a_marked_head_is_not_predicted_again_and_takes_only_valid_modifiers():
    document = modifiers_note()
    example = build(document, tasks=("modifiers",))[0][2]
    answer = (
        'no pain or fever, <span class="drug">aspirin</span> <span class="bodyloc">81</span> mg'
    )
    reading = read_answers(document, [(example, answer)], scheme=SCHEME)
    assert reading.document.relations == ()
    assert nonzero(reading.counts) == {
        "answers": 1,
        "spans": 2,
        "unasked": 1,
        "invalid_pair": 1,
    }


def test_predicted_ids_are_not_those_of_given_heads():
    document = modifiers_note()
    head = document.entities[0]
    document = Document("d1", document.text, (type(head)("P1", head.type, head.start, head.end),))
    example = only(build(document, tasks=("modifiers",))[0])
    answer = '<span class="negation">no</span> pain or fever, aspirin 81 mg'
    reading = read_answers(document, [(example, answer)], scheme=SCHEME)
    assert [entity.id for entity in reading.document.entities] == ["P1", "P2"]


def test_a_cohort_is_read_task_by_task_with_a_document_for_every_note():
    first = modifiers_note()
    second = Document("d2", "Well.")
    examples, _ = build(first)
    answers = [(example, example.answer) for example in examples]
    result = predict_documents([first, second], answers, scheme=SCHEME)
    assert list(result) == ["entities", "modifiers"]
    assert [d.id for d in result["entities"].documents] == ["d1", "d2"]
    assert result["entities"].counts.answers == 1
    assert result["modifiers"].counts.answers == 3
    empty = predict_documents([first], [], scheme=SCHEME, tasks=("modifiers",))
    assert empty["modifiers"].documents[0].entities == first.entities[:3]


def test_answers_of_another_document_text_or_task_are_refused_without_showing_text():
    document = modifiers_note()
    entities, modifiers = (build(document, tasks=(t,))[0][0] for t in ("entities", "modifiers"))
    other = Document("d1", document.text.upper(), document.entities)
    for wrong, answers in [
        (other, [(entities, "")]),
        (Document("d2", document.text), [(entities, "")]),
        (Document("d1", document.text), [(modifiers, "")]),
        (document, [(entities, ""), (modifiers, "")]),
    ]:
        with pytest.raises(SchemaError) as caught:
            read_answers(wrong, answers, scheme=SCHEME)
        assert "fever" not in str(caught.value).casefold()
    with pytest.raises(SchemaError, match="'d1'"):
        predict_documents([], [(entities, "")], scheme=SCHEME)
