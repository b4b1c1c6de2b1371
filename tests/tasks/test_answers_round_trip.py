"""Encoding and reading back are inverse; and nothing that a model writes can break reading."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from task_notes import ALL, SCHEME, SETTINGS, documents

from fedmedlora.tasks.build import build_examples
from fedmedlora.tasks.markup import mask, split_answer
from fedmedlora.tasks.reading import predict_documents
from fedmedlora.tasks.windows import cut_windows

_OPENINGS = st.sampled_from(
    [f'<span class="{name}">' for name in ("problem", "drug", "dosage", "route", "x", "")]
    + [f'<span class="{name}" head="{n}">' for name in ("dosage", "severity") for n in (1, 2, 9)]
)
_NOISE = _OPENINGS | st.sampled_from(
    ["</span>", "<span", "</", "### Input Text:\n", " no ", "pain"]
)


def ask(document, task_settings):
    return build_examples([document], covers=ALL, scheme=SCHEME, settings=task_settings)


def windows_of(document, task_settings):
    """For each entity that lies whole in a window, that window."""
    windows = cut_windows(document.text, words=task_settings.window_words)
    return {
        entity.id: window
        for entity in document.entities
        for window in windows
        if window.start <= entity.start and entity.end <= window.end
    }


def crosses(one, other):
    return one.start < other.start < one.end < other.end


def keep_nested(entities):
    """The stated rule, applied the slow way: longer first, then earlier, then as listed."""
    kept = []
    for entity in sorted(entities, key=lambda e: (e.start - e.end, e.start)):
        if not any(crosses(entity, k) or crosses(k, entity) for k in kept):
            kept.append(entity)
    return kept


def as_spans(entities):
    return {(entity.type, entity.start, entity.end) for entity in entities}


@settings(max_examples=150, deadline=None)
@given(documents(), SETTINGS)
def test_gold_answers_are_read_back_as_the_annotation_less_what_was_counted(document, chosen):
    examples, report = ask(document, chosen)
    answers = [(example, example.answer) for example in examples]
    readings = predict_documents([document], answers, scheme=SCHEME, tasks=chosen.tasks)
    places = windows_of(document, chosen)

    if "entities" in chosen.tasks:
        read = readings["entities"].documents[0].entities
        mains = [e for e in document.entities if e.type in SCHEME.mains and e.id in places]
        assert as_spans(read) == as_spans(keep_nested(mains))
        lost = report.entities_cut + report.entities_crossing + report.entities_repeated
        assert len(read) == report.entities - lost

    if "modifiers" in chosen.tasks:
        read = readings["modifiers"].documents[0]
        by_id = {entity.id: entity for entity in read.entities}
        said = {
            (r.head, by_id[r.tail].type, by_id[r.tail].start, by_id[r.tail].end)
            for r in read.relations
        }
        gold = {entity.id: entity for entity in document.entities}
        sayable = {
            (r.head, r.type, gold[r.tail].start, gold[r.tail].end)
            for r in document.relations
            if SCHEME.valid(gold[r.head].type, r.type)
            and r.head in places
            and places[r.head] == places.get(r.tail)
        }
        assert said <= sayable
        assert len(said) == len(read.relations)
        assert len(sayable) - len(said) == report.relations_crossing
        lost = report.relations_invalid + report.relations_cut + report.relations_apart
        lost += report.relations_crossing + report.relations_repeated
        assert len(said) == report.relations - lost
        if not any(crosses(a, b) for a in document.entities for b in document.entities):
            assert said == sayable

    for reading in readings.values():
        counts = reading.counts
        assert counts.accepted == counts.spans
        assert counts.changed == counts.unreadable == counts.stray_closings == counts.repeated == 0


@settings(max_examples=60, deadline=None)
@given(documents(), SETTINGS)
def test_examples_hold_what_their_fields_promise(document, chosen):
    examples, report = ask(document, chosen)
    assert examples == ask(document, chosen)[0]
    assert len({example.id for example in examples}) == len(examples)
    assert len(examples) == report.entity_examples + report.modifier_examples
    for example in examples:
        text = document.text[example.start : example.end]
        assert example.source == mask(text)
        assert len(example.source) == len(text)
        assert example.prompt.endswith(("\n### Output Text:\n", "\n### marked:\n"))
        pieces = split_answer(example.answer)
        assert "".join(p for p in pieces if not re.match("</?span", p)) == example.source
        assert {p for p in pieces if p.startswith("<span")} <= set(example.openings)
        assert (example.task == "modifiers") == bool(example.heads)


@st.composite
def damaged(draw, answer):
    """The gold answer with stretches dropped, repeated, changed in case, and noise put in."""
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(answer)))
        end = min(len(answer), start + draw(st.integers(0, 12)))
        middle = draw(
            st.sampled_from(["", answer[start:end] * 2, answer[start:end].upper()]) | _NOISE
        )
        answer = answer[:start] + middle + answer[end:]
    return answer


@settings(max_examples=150, deadline=None)
@given(documents(), SETTINGS, st.data())
def test_whatever_is_answered_spans_lie_in_their_window_and_copy_its_text(document, chosen, data):
    examples, _ = ask(document, chosen)
    noise = st.text(max_size=30) | st.lists(_NOISE, max_size=8).map("".join)
    answers = [(example, data.draw(damaged(example.answer) | noise)) for example in examples[:4]]
    for task, reading in predict_documents([document], answers, scheme=SCHEME).items():
        counts = reading.counts
        assert counts.answers == sum(example.task == task for example, _ in answers)
        lost = counts.unclosed + counts.malformed + counts.unknown_class + counts.unasked
        lost += counts.unknown_head + counts.invalid_pair + counts.changed_words
        lost += counts.dropped_words + counts.ambiguous + counts.blank
        assert counts.spans == counts.accepted + lost
        predicted = reading.documents[0]
        given_ids = {entity.id for entity in document.entities} if task == "modifiers" else set()
        new = [entity for entity in predicted.entities if entity.id not in given_ids]
        assert len(as_spans(new)) == len(new)
        for entity in new:
            (home,) = {
                (e.start, e.end)
                for e, _ in answers
                if e.task == task and e.start <= entity.start and entity.end <= e.end
            }
            said = squeeze(
                mask(document.text[slice(*home)])[entity.start - home[0] : entity.end - home[0]]
            )
            assert any(said in squeeze(answer) for e, answer in answers if e.start == home[0])
        for relation in predicted.relations:
            assert SCHEME.valid(predicted.entity(relation.head).type, relation.type)


def squeeze(text):
    """What is compared of a text: no case, no white space, no tags."""
    return "".join(re.sub(r"<\s*/?\s*span\b[^<>]*>?", "", text, flags=re.I).split()).casefold()
