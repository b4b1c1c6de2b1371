from dataclasses import replace

import pytest
from task_notes import SCHEME, note

from fedmedlora.errors import ConfigError
from fedmedlora.schema import Document
from fedmedlora.tasks.build import build_examples
from fedmedlora.tasks.few_shot import (
    TrainingNotes,
    count_fitting,
    draw_demonstrations,
    kind_of,
    show_demonstrations,
)
from fedmedlora.tasks.prompts import split_prompt
from fedmedlora.tasks.reading import read_answers
from fedmedlora.tasks.settings import TaskSettings

COMPACT = TaskSettings(tasks=("entities",), prompt="compact")
FULL = TaskSettings(tasks=("entities",))


def named(name, text, *spans, relations=(), **more):
    return replace(note(text, *spans, relations=relations, **more), id=name)


def types(*names):
    return frozenset(names)


PAIN = named("pain", "Pain.", ("problem", "Pain"))
ASPIRIN = named("aspirin", "Aspirin.", ("drug", "Aspirin"))
BOTH = named("both", "Aspirin for pain.", ("drug", "Aspirin"), ("problem", "pain"))
CALM = named("calm", "Slept well.")
WELL = named("well", "Ate well.")
BOTH_TYPES = types("problem", "drug")


def ask(document, covers, settings):
    return build_examples([document], covers=covers, scheme=SCHEME, settings=settings)[0]


def draw(questions, *notes, k, settings, seed=1):
    sites = [TrainingNotes(site, documents, covers) for site, documents, covers in notes]
    return draw_demonstrations(questions, sites, k=k, scheme=SCHEME, settings=settings, seed=seed)


def shown_of(drawn):
    [demonstrations] = drawn.values()
    return [one.example.document for one in demonstrations]


def test_a_compact_prompt_shows_texts_and_answers_under_its_headings_the_best_last():
    questions = ask(named("q", "No cough."), BOTH_TYPES, COMPACT)
    drawn = draw(questions, ("a", [PAIN, BOTH], BOTH_TYPES), k=2, settings=COMPACT)
    [shown] = show_demonstrations(questions, drawn)
    assert shown.prompt == (
        "mark: problem drug\n"
        "### text:\nPain.\n### marked:\n"
        '<span class="problem">Pain</span>.\n'
        "### text:\nAspirin for pain.\n### marked:\n"
        '<span class="drug">Aspirin</span> for <span class="problem">pain</span>.\n'
        "### text:\nNo cough.\n### marked:\n"
    )


def test_a_full_prompt_gives_its_instruction_once_before_the_demonstrations():
    questions = ask(named("q", "No cough."), types("drug"), FULL)
    drawn = draw(questions, ("a", [ASPIRIN], types("drug")), k=1, settings=FULL)
    [shown] = show_demonstrations(questions, drawn)
    instruction, _, rest = questions[0].prompt.partition("### Input Text:\n")
    assert rest == "No cough.\n### Output Text:\n"
    assert shown.prompt == (
        f"{instruction}### Input Text:\nAspirin.\n### Output Text:\n"
        '<span class="drug">Aspirin</span>.\n'
        "### Input Text:\nNo cough.\n### Output Text:\n"
    )


def test_only_the_prompt_changes():
    questions = ask(PAIN, BOTH_TYPES, FULL)
    drawn = draw(questions, ("a", [BOTH], BOTH_TYPES), k=1, settings=FULL)
    [shown] = show_demonstrations(questions, drawn)
    assert shown.prompt != questions[0].prompt
    assert replace(shown, prompt=questions[0].prompt) == questions[0]
    answers = [(shown, shown.answer)]
    assert read_answers(PAIN, answers, scheme=SCHEME).counts.accepted == 1


@pytest.mark.parametrize("seed", range(6))
def test_each_next_one_shows_what_those_before_it_do_not_and_the_third_shows_nothing(seed):
    site = ("a", [PAIN, CALM, BOTH, ASPIRIN, WELL], BOTH_TYPES)
    questions = ask(named("q", "No cough."), BOTH_TYPES, COMPACT)
    order = shown_of(draw(questions, site, k=9, settings=COMPACT, seed=seed))
    # Both types at once; then, from the beginning, either; a blank; the other; the other blank.
    assert order[0] == "both"
    assert {order[1], order[3]} == {"pain", "aspirin"}
    assert {order[2], order[4]} == {"calm", "well"}
    for k in range(5):
        assert shown_of(draw(questions, site, k=k, settings=COMPACT, seed=seed)) == order[:k]


def test_the_seed_decides_between_equals():
    documents = [named(f"n{n}", f"Pain {n}.", ("problem", "Pain")) for n in range(8)]
    questions = ask(named("q", "No cough."), types("problem"), COMPACT)
    site = ("a", documents, types("problem"))
    orders = [
        tuple(shown_of(draw(questions, site, k=2, settings=COMPACT, seed=seed)))
        for seed in (1, 1, 2, 3, 4)
    ]
    assert orders[0] == orders[1]
    assert len(set(orders)) > 1


def test_where_nothing_is_annotated_blanks_are_all_there_is():
    questions = ask(named("q", "No cough."), types("problem"), COMPACT)
    drawn = draw(questions, ("a", [CALM, WELL], types("problem")), k=1, settings=COMPACT)
    assert shown_of(drawn)[0] in ("calm", "well")


def test_texts_that_look_alike_are_shown_once():
    twin = replace(PAIN, id="twin")
    questions = ask(named("q", "No cough."), BOTH_TYPES, COMPACT)
    site = ("a", [PAIN, twin], BOTH_TYPES)
    assert shown_of(draw(questions, site, k=5, settings=COMPACT)) == ["pain"]


def test_a_demonstration_has_only_the_types_that_are_asked():
    questions = ask(named("q", "No cough."), types("drug"), COMPACT)
    drawn = draw(questions, ("a", [BOTH], BOTH_TYPES), k=1, settings=COMPACT)
    [[one]] = drawn.values()
    assert one.site == "a"
    assert one.example.answer == '<span class="drug">Aspirin</span> for pain.'


def test_sites_that_cover_all_types_asked_go_before_all_others():
    # "some" never looked for drugs: its aspirin is unmarked, and must not be shown so.
    unmarked = named("unmarked", "Pain, took aspirin.", ("problem", "Pain"))
    questions = ask(named("q", "No cough."), BOTH_TYPES, COMPACT)
    drawn = draw(
        questions,
        ("some", [unmarked], types("problem")),
        ("all", [CALM], BOTH_TYPES),
        k=3,
        settings=COMPACT,
    )
    assert shown_of(drawn) == ["calm"]


def test_a_document_that_covers_less_than_its_site_counts_as_what_it_covers():
    less = replace(PAIN, id="less", text="Pain!", covers=types("problem"))
    questions = ask(named("q", "No cough."), BOTH_TYPES, COMPACT)
    drawn = draw(questions, ("a", [less, ASPIRIN], BOTH_TYPES), k=3, settings=COMPACT)
    assert shown_of(drawn) == ["aspirin"]


def test_where_no_site_covers_all_types_each_demonstration_says_what_it_was_asked():
    questions = ask(named("q", "No cough."), BOTH_TYPES, COMPACT)
    drawn = draw(
        questions,
        ("a", [PAIN], types("problem")),
        ("b", [ASPIRIN], types("drug", "test")),
        k=2,
        settings=COMPACT,
    )
    [shown] = show_demonstrations(questions, drawn)
    pain = 'mark: problem\n### text:\nPain.\n### marked:\n<span class="problem">Pain</span>.\n'
    drug = 'mark: drug\n### text:\nAspirin.\n### marked:\n<span class="drug">Aspirin</span>.\n'
    asked = "mark: problem drug\n### text:\nNo cough.\n### marked:\n"
    assert shown.prompt in (pain + drug + asked, drug + pain + asked)


def test_a_site_that_covers_nothing_of_what_is_asked_shows_nothing():
    questions = ask(named("q", "No cough."), types("test"), COMPACT)
    drawn = draw(questions, ("a", [BOTH], BOTH_TYPES), k=2, settings=COMPACT)
    assert shown_of(drawn) == []
    assert show_demonstrations(questions, drawn) == questions


SEVERE = named(
    "severe",
    "Severe pain, aspirin 81 mg.",
    ("problem", "pain"),
    ("severity", "Severe"),
    ("drug", "aspirin"),
    ("dosage", "81 mg"),
    relations=[("T1", "T2"), ("T3", "T4")],
)
MILD = named(
    "mild",
    "Mild cough, heparin 5 mg.",
    ("problem", "cough"),
    ("severity", "Mild"),
    ("drug", "heparin"),
    ("dosage", "5 mg"),
    relations=[("T1", "T2"), ("T3", "T4")],
)
RELATED = types("problem", "drug", "severity", "dosage")


@pytest.mark.parametrize("prompt", ["full", "compact"])
def test_a_marked_head_is_shown_marked_heads_of_its_own_type(prompt):
    settings = TaskSettings(tasks=("modifiers",), prompt=prompt)
    questions = ask(MILD, RELATED, settings)
    drawn = draw(questions, ("a", [SEVERE], RELATED), k=3, settings=settings)
    assert {kind.head: [one.example.answer for one in some] for kind, some in drawn.items()} == {
        "problem": ['<span class="severity">Severe</span> pain, aspirin 81 mg.'],
        "drug": ['Severe pain, aspirin <span class="dosage">81 mg</span>.'],
    }
    cough, heparin = show_demonstrations(questions, drawn)
    assert 'Severe <span class="problem">pain</span>, aspirin 81 mg.\n' in cough.prompt
    assert 'Severe pain, <span class="drug">aspirin</span> 81 mg.\n' in heparin.prompt


def test_compact_heads_that_are_asked_alike_are_still_told_apart():
    given = types("treatment", "test", "temporal")
    settings = TaskSettings(tasks=("modifiers",), prompt="compact")
    scan = named(
        "scan",
        "CT today.",
        ("test", "CT"),
        ("temporal", "today"),
        relations=[("T1", "T2")],
    )
    questions = ask(named("q", "Surgery now.", ("treatment", "Surgery")), given, settings)
    assert shown_of(draw(questions, ("a", [scan], given), k=1, settings=settings)) == []


def test_numbered_heads_are_shown_numbered_heads():
    settings = TaskSettings(tasks=("modifiers",), heads="numbered", prompt="compact")
    questions = ask(MILD, RELATED, settings)
    drawn = draw(questions, ("a", [SEVERE], RELATED), k=1, settings=settings)
    [shown] = show_demonstrations(questions, drawn)
    assert shown.prompt == (
        "mark: of dosage severity\n### text:\n"
        'Severe <span class="problem" id="1">pain</span>, '
        '<span class="drug" id="2">aspirin</span> 81 mg.\n### marked:\n'
        '<span class="severity" head="1">Severe</span> pain, '
        'aspirin <span class="dosage" head="2">81 mg</span>.\n### text:\n'
        'Mild <span class="problem" id="1">cough</span>, '
        '<span class="drug" id="2">heparin</span> 5 mg.\n### marked:\n'
    )


def test_all_questions_of_a_kind_get_the_same_demonstrations():
    settings = TaskSettings(tasks=("entities", "modifiers"))
    questions = [*ask(MILD, RELATED, settings), *ask(SEVERE, RELATED, settings)]
    other = replace(MILD, id="other", text="Mild cough; heparin 5 mg.")
    drawn = draw(questions, ("a", [other], RELATED), k=1, settings=settings)
    assert sorted((kind.task, kind.head or "") for kind in drawn) == [
        ("entities", ""),
        ("modifiers", "drug"),
        ("modifiers", "problem"),
    ]
    for question, shown in zip(questions, show_demonstrations(questions, drawn), strict=True):
        parts = split_prompt(question.prompt, task=question.task)
        [one] = drawn[kind_of(question)]
        assert shown.prompt == f"{one.example.prompt}{one.example.answer}\n{parts.question}"


@pytest.mark.parametrize(
    ("limit", "fitting"),
    [(1000, 2), (30, 2), (29, 1), (23, 1), (22, 0), (1, 0)],
)
def test_as_many_demonstrations_fit_as_the_longest_question_leaves_room_for(limit, fitting):
    questions = [
        *ask(named("q", "No."), BOTH_TYPES, COMPACT),
        *ask(named("long", "No cough at all."), BOTH_TYPES, COMPACT),
    ]
    drawn = draw(questions, ("a", [BOTH, PAIN], BOTH_TYPES), k=5, settings=COMPACT)

    def words(prompt):
        return len(prompt.split())

    # The longest question: "mark: problem drug" 3, "### text:" 2, text 4, "### marked:" 2: 11.
    # BOTH adds headings 4, text 3, answer 5 (an opening tag has a space): 12, so 23.
    # PAIN adds headings 4, text 1, answer 2: 7, so 30.
    assert count_fitting(questions, drawn, count_tokens=words, limit=limit) == fitting


def test_a_negative_number_is_refused():
    with pytest.raises(ConfigError, match="-1"):
        draw([], k=-1, settings=COMPACT)


def test_a_prompt_is_taken_apart_as_it_was_made():
    text = "see\n### Input Text:\nx\n### text:\ny"
    document = Document("d", text)
    for settings in (FULL, COMPACT):
        for question in ask(document, BOTH_TYPES, settings):
            parts = split_prompt(question.prompt, task="entities")
            assert parts.types == ("problem", "drug")
            assert parts.instruction + parts.question == question.prompt
            assert question.source in parts.question
            assert "see" not in parts.instruction
