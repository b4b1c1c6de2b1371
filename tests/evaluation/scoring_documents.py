"""Toy documents, and hypothesis strategies for pairs of gold and predicted documents."""

from hypothesis import strategies as st

from fedmedlora.schema import Document, Entity, Relation, Scheme

SCHEME = Scheme(
    mains={"problem": "p", "drug": "d"},
    modifiers={"severity": "s", "dosage": "d"},
    pairs={"problem": ("severity",), "drug": ("dosage",)},
)
TEXT = "x" * 40


def doc(*spans, name="d", relations=(), covers=None, text=TEXT):
    """A document of ``(type, start, end)`` spans; relations are (head, tail) places in them."""
    entities = tuple(Entity(f"e{n}", *span) for n, span in enumerate(spans))
    return Document(
        id=name,
        text=text,
        entities=entities,
        relations=tuple(
            Relation(entities[tail].type, entities[head].id, entities[tail].id)
            for head, tail in relations
        ),
        covers=covers,
    )


def spans(size=40):
    """Half-open, non-empty offsets into a text of ``size`` characters."""
    return st.tuples(st.integers(0, size - 1), st.integers(1, 12)).map(
        lambda pair: (pair[0], min(size, pair[0] + pair[1]))
    )


@st.composite
def documents(draw, name="d"):
    """A document of a few mains and modifiers, each modifier with a head or without."""
    mains = draw(st.lists(st.tuples(st.sampled_from(["problem", "drug"]), spans()), max_size=6))
    tails = draw(st.lists(st.tuples(st.sampled_from(["severity", "dosage"]), spans()), max_size=6))
    heads = draw(
        st.lists(
            st.tuples(st.integers(0, len(mains) - 1), st.integers(0, len(tails) - 1)), max_size=6
        )
        if mains and tails
        else st.just([])
    )
    return doc(
        *((name, *span) for name, span in mains + tails),
        name=name,
        relations=[(head, len(mains) + tail) for head, tail in heads],
    )


@st.composite
def cohorts(draw, prefix=""):
    """Gold and predicted documents with the same ids, some predictions missing."""
    names = [f"{prefix}{n}" for n in range(draw(st.integers(1, 4)))]
    gold = [draw(documents(name)) for name in names]
    predicted = [draw(documents(name)) for name in names if draw(st.integers(0, 4))]
    return gold, predicted
