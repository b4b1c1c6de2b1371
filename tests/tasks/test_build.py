import pytest
from task_notes import ALL, SCHEME, build, note, only

from fedmedlora.errors import SchemaError
from fedmedlora.schema import Document, Entity, Relation
from fedmedlora.tasks.build import BuildReport, build_examples
from fedmedlora.tasks.settings import TaskSettings


def nonzero(report):
    names = BuildReport.__dataclass_fields__
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def test_every_window_asks_for_entities_and_every_head_for_its_modifiers():
    document = note(
        "Severe pain. Given aspirin 81 mg.",
        ("problem", "pain"),
        ("severity", "Severe"),
        ("drug", "aspirin"),
        ("dosage", "81 mg"),
        relations=[("T1", "T2"), ("T3", "T4")],
    )
    examples, report = build(document, window_words=4)
    assert [example.id for example in examples] == [
        "d1:entities:0-12",
        "d1:entities:13-33",
        "d1:modifiers:0-12:T1",
        "d1:modifiers:13-33:T3",
    ]
    assert [example.answer for example in examples] == [
        'Severe <span class="problem">pain</span>.',
        'Given <span class="drug">aspirin</span> 81 mg.',
        '<span class="severity">Severe</span> pain.',
        'Given aspirin <span class="dosage">81 mg</span>.',
    ]
    assert nonzero(report) == {
        "documents": 2,
        "windows": 4,
        "entity_examples": 2,
        "modifier_examples": 2,
        "entities": 2,
        "relations": 2,
    }


def test_a_window_without_entities_is_a_plain_copy_and_asks_for_no_modifiers():
    examples, report = build(note("Seen today."))
    assert [(example.task, example.answer) for example in examples] == [("entities", "Seen today.")]
    assert report.modifier_examples == 0


def test_a_head_without_modifiers_makes_an_example_that_is_a_plain_copy():
    example = only(build(note("No pain.", ("problem", "pain")), tasks=("modifiers",))[0])
    assert example.answer == "No pain."


def test_only_covered_types_are_asked_and_a_document_can_cover_fewer():
    document = note(
        "aspirin for pain", ("drug", "aspirin"), ("problem", "pain"), covers=frozenset({"drug"})
    )
    example = only(build(document, covers=frozenset({"drug", "problem"}))[0])
    assert example.openings == ('<span class="drug">',)
    assert example.answer == '<span class="drug">aspirin</span> for pain'
    assert nonzero(build(document, covers=frozenset({"test"}))[1]) == {
        "documents": 2,
        "unasked": 2,
    }


def test_a_head_that_can_take_no_covered_modifier_is_not_asked_about():
    document = note("aspirin for pain", ("drug", "aspirin"), ("problem", "pain"))
    examples, _ = build(document, covers=frozenset({"severity"}), tasks=("modifiers",))
    assert [example.heads[0].type for example in examples] == ["problem"]


def test_entities_that_a_window_cuts_cross_or_repeat_are_counted():
    text = "chest pain and fever"
    document = Document(
        "d1",
        text,
        (
            Entity("T1", "problem", 0, 10),
            Entity("T2", "problem", 6, 20),
            Entity("T3", "problem", 15, 20),
            Entity("T4", "problem", 15, 20),
        ),
    )
    example, report = only(build(document, tasks=("entities",))[0]), build(document)[1]
    assert example.answer == (
        'chest <span class="problem">pain and <span class="problem">fever</span></span>'
    )
    assert (report.entities, report.entities_crossing, report.entities_repeated) == (4, 1, 1)
    _, report = build(document, window_words=2, tasks=("entities",))
    assert (report.entities, report.entities_cut, report.entities_repeated) == (4, 1, 1)


def test_relations_that_no_answer_can_say_are_counted_by_reason():
    document = note(
        "Severe pain today. Aspirin 81 mg orally.",
        ("problem", "pain"),
        ("severity", "Severe"),
        ("drug", "Aspirin"),
        ("dosage", "81 mg"),
        ("temporal", "today. Aspirin"),
        ("route", "orally"),
        relations=[("T1", "T2"), ("T1", "T2"), ("T1", "T4"), ("T1", "T5"), ("T3", "T4")],
    )
    apart = Relation("temporal", "T3", "T7")
    document = Document(
        "d1",
        document.text,
        (*document.entities, Entity("T7", "temporal", 12, 17)),
        (*document.relations, apart),
    )
    examples, report = build(document, window_words=4, tasks=("modifiers",))
    assert [example.answer for example in examples] == [
        '<span class="severity">Severe</span> pain today.',
        'Aspirin <span class="dosage">81 mg</span> orally.',
    ]
    assert nonzero(report) == {
        "documents": 1,
        "windows": 2,
        "modifier_examples": 2,
        "relations": 6,
        "relations_repeated": 1,
        "relations_invalid": 1,
        "relations_cut": 1,
        "relations_apart": 1,
        "modifiers_unrelated": 1,
    }


def test_a_modifier_of_two_heads_is_tagged_once_for_each():
    document = note(
        "no pain or fever",
        ("problem", "pain"),
        ("problem", "fever"),
        ("negation", "no"),
        relations=[("T1", "T3"), ("T2", "T3")],
    )
    numbered = only(build(document, tasks=("modifiers",), heads="numbered")[0])
    assert numbered.answer == (
        '<span class="negation" head="1"><span class="negation" head="2">no</span></span> '
        "pain or fever"
    )
    marked, _ = build(document, tasks=("modifiers",))
    assert [example.answer for example in marked] == [
        '<span class="negation">no</span> pain or fever'
    ] * 2


def test_of_numbered_heads_that_cross_the_shorter_is_not_shown():
    document = Document(
        "d1",
        "severe chest pain and fever",
        (
            Entity("T1", "problem", 7, 17),
            Entity("T2", "problem", 13, 27),
            Entity("T3", "severity", 0, 6),
        ),
        (Relation("severity", "T1", "T3"),),
    )
    examples, report = build(document, tasks=("modifiers",), heads="numbered")
    assert [head.id for head in only(examples).heads] == ["T2"]
    assert (report.heads_crossing, report.relations_crossing) == (1, 1)
    assert len(build(document, tasks=("modifiers",))[0]) == 2


def test_covered_types_must_be_types_of_the_scheme():
    with pytest.raises(SchemaError, match="does not have: dose;"):
        build(note("x"), covers=frozenset({"drug", "dose"}))


def test_no_documents_make_no_examples():
    made = build_examples([], covers=ALL, scheme=SCHEME, settings=TaskSettings())
    assert made == ([], BuildReport())
