import pytest
from task_notes import build, note, only

from fedmedlora.errors import ConfigError
from fedmedlora.tasks.settings import TaskSettings

NOTE = note(
    "Given aspirin 81 mg daily.",
    ("drug", "aspirin"),
    ("strength", "81 mg"),
    ("frequency", "daily"),
    relations=[("T1", "T2"), ("T1", "T3")],
)
COVERS = frozenset({"drug", "problem", "strength", "frequency", "severity"})


def test_the_full_entities_prompt_gives_task_guide_definitions_and_text():
    example = only(build(NOTE, covers=COVERS, tasks=("entities",))[0])
    assert example.prompt == (
        "### Task:\n"
        "Copy the input text unchanged as HTML and mark up every entity of these types: "
        "problem, drug. Put each entity into a <span> tag whose class is its type.\n"
        "### Markup Guide:\n"
        'problem: <span class="problem">...</span>\n'
        'drug: <span class="drug">...</span>\n'
        "### Definitions:\n"
        "problem: an abnormal condition that happens physically or mentally to a patient\n"
        "drug: generic or brand name of a medication, or a collective name of a group of "
        "medications\n"
        "### Input Text:\n"
        "Given aspirin 81 mg daily.\n"
        "### Output Text:\n"
    )
    assert example.answer == 'Given <span class="drug">aspirin</span> 81 mg daily.'
    assert example.openings == ('<span class="problem">', '<span class="drug">')


def test_the_compact_prompt_is_one_line_with_the_asked_types():
    settings = {"covers": COVERS, "prompt": "compact"}
    entities, modifiers = build(NOTE, **settings)[0]
    assert entities.prompt == (
        "mark: problem drug\n### text:\nGiven aspirin 81 mg daily.\n### marked:\n"
    )
    assert modifiers.prompt == (
        "mark: of frequency strength\n### text:\n"
        'Given <span class="drug">aspirin</span> 81 mg daily.\n### marked:\n'
    )


def test_a_marked_head_is_asked_only_for_covered_modifiers_that_it_may_take():
    example = only(build(NOTE, covers=COVERS, tasks=("modifiers",))[0])
    assert "these types: frequency, strength." in example.prompt
    assert "severity" not in example.prompt
    assert "dosage:" not in example.prompt
    assert '\nGiven <span class="drug">aspirin</span> 81 mg daily.\n' in example.prompt
    assert example.answer == (
        'Given aspirin <span class="strength">81 mg</span> <span class="frequency">daily</span>.'
    )
    assert example.openings == ('<span class="frequency">', '<span class="strength">')


def test_numbered_heads_are_named_by_the_tags_of_the_answer():
    example = only(build(NOTE, covers=COVERS, tasks=("modifiers",), heads="numbered")[0])
    assert '\nGiven <span class="drug" id="1">aspirin</span> 81 mg daily.\n' in example.prompt
    assert 'strength of entity 1: <span class="strength" head="1">...</span>' in example.prompt
    assert example.answer == (
        'Given aspirin <span class="strength" head="1">81 mg</span> '
        '<span class="frequency" head="1">daily</span>.'
    )
    assert example.openings == (
        '<span class="frequency" head="1">',
        '<span class="strength" head="1">',
    )


@pytest.mark.parametrize("heads", ["marked", "numbered"])
@pytest.mark.parametrize("task", ["entities", "modifiers"])
def test_prompts_of_a_site_begin_alike_up_to_the_text(task, heads):
    text = "Aspirin given. No aspirin."
    document = note(text, ("drug", "Aspirin"), ("drug", "aspirin"))
    first, second = build(document, tasks=(task,), heads=heads, window_words=2)[0]
    beginning = first.prompt.partition("### Input Text:\n")[0]
    assert len(beginning) > 200
    assert second.prompt.startswith(beginning)


def test_a_tag_of_the_note_is_masked_in_prompt_source_and_answer():
    document = note('see <span class="drug">x</span>, pain', ("problem", "pain"))
    example = only(build(document, tasks=("entities",))[0])
    assert example.source == 'see ‹span class="drug">x‹/span>, pain'
    assert example.source in example.prompt
    assert example.answer == ('see ‹span class="drug">x‹/span>, <span class="problem">pain</span>')


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": ()}, "tasks: "),
        ({"tasks": ("entities", "entities")}, "tasks: "),
        ({"tasks": ("ner",)}, "'ner'"),
        ({"window_words": 0}, "window_words: 0"),
        ({"heads": "both"}, "heads: 'both'"),
        ({"prompt": "short"}, "prompt: 'short'"),
    ],
)
def test_a_wrong_setting_is_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        TaskSettings(**wrong)
