"""Toy notes and random annotation for the tests of this folder."""

from hypothesis import strategies as st

from fedmedlora.schema import DEFAULT_SCHEME as SCHEME
from fedmedlora.schema import Document, Entity, Relation
from fedmedlora.tasks.build import build_examples
from fedmedlora.tasks.settings import TaskSettings

ALL = frozenset(SCHEME.types)

#: Words at hand twice and more, signs, doses, tags of a note's own, line breaks, odd characters.
_TOKENS = [
    *("pain", "no", "aspirin", "the", "chest", "10", "mg", "3.5", "b.i.d.", "Dr.", "ß", "😀"),
    *(".", ",", "(", ")", "<", "<span", "</span>", '<span class="drug">', "‹", "###", "\n", "\n\n"),
    *("\t", "  ", "\x00", "é", "x" * 60),
]


def note(text, *spans, relations=(), **more):
    """A document: ``spans`` are (type, words) found by their place in the text, ids T1, T2, ..."""
    entities = []
    for number, (name, words) in enumerate(spans, start=1):
        start = text.index(words)
        entities.append(Entity(f"T{number}", name, start, start + len(words)))
    types = {entity.id: entity.type for entity in entities}
    return Document(
        id="d1",
        text=text,
        entities=tuple(entities),
        relations=tuple(Relation(types[tail], head, tail) for head, tail in relations),
        **more,
    )


def build(document, *, covers=ALL, scheme=SCHEME, **settings):
    return build_examples(
        [document], covers=covers, scheme=scheme, settings=TaskSettings(**settings)
    )


def only(examples):
    (example,) = examples
    return example


@st.composite
def documents(draw):
    """Any document: spans nest, cross, repeat and touch, relations join anything to anything."""
    joins = st.sampled_from(["", " ", " ", " "])
    tokens = draw(st.lists(st.tuples(st.sampled_from(_TOKENS), joins), max_size=40))
    text = "".join(token + join for token, join in tokens)
    entities: list[Entity] = []
    if text:
        offsets = st.integers(0, len(text) - 1)
        lengths = st.integers(1, 25)
        types = st.sampled_from(["problem", "drug", "test", "severity", "dosage", "negation"])
        spans = draw(st.lists(st.tuples(types, offsets, lengths), max_size=10))
        entities = [
            Entity(f"T{number}", name, start, min(start + length, len(text)))
            for number, (name, start, length) in enumerate(spans)
        ]
    relations: list[Relation] = []
    if entities:
        ends = st.sampled_from(entities)
        pairs = draw(st.lists(st.tuples(ends, ends), max_size=12))
        relations = [Relation(tail.type, head.id, tail.id) for head, tail in pairs]
    return Document("d1", text, tuple(entities), tuple(relations))


SETTINGS = st.builds(
    TaskSettings,
    tasks=st.sampled_from([("entities", "modifiers"), ("entities",), ("modifiers",)]),
    window_words=st.integers(1, 30),
    heads=st.sampled_from(["marked", "numbered"]),
    prompt=st.sampled_from(["full", "compact"]),
)
