"""Documents of every awkward kind, for the property tests of the codecs."""

from hypothesis import strategies as st

from fedmedlora.schema import Document, Entity, Relation

_PIECES = [
    *"ab7 .\t\n\r\f\v\x1c\x85\u00a0\u2028\ufeff\u0301<>&\"'\\;:|#é",
    "\r\n",
    "\n\n",
    "\U0001f9ec",
    "\U00020000",
    "mg",
    "  ",
]
_texts = st.lists(st.sampled_from(_PIECES), max_size=30).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20
)
_ids = st.sampled_from(
    ["T1", "T2", "T3", "T10", "T01", "T0", "e1", "T٣", "a b", "\n", "é/..", "R1"]
)
_types = st.sampled_from(
    ["problem", "drug", "severity", "bodyloc", "Lab_value", "x;y", "CO-OCC", "é"]
)
_document_ids = st.one_of(
    st.sampled_from(
        ["a", "A", "a.ann", ".hidden", "../up", "x/y", "con", "a\tb", "\U0001f9ec", " "]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    st.text("ab/", min_size=150, max_size=300),
)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """One document: spans of any shape, repeated relations, groups and covers."""
    text = draw(_texts)
    entities = []
    if text:
        for name in draw(st.lists(_ids, unique=True, max_size=6)):
            start = draw(st.integers(0, len(text) - 1))
            end = draw(st.integers(start + 1, len(text)))
            entities.append(Entity(name, draw(_types), start, end))
    relations: list[Relation] = []
    if entities:
        ends = st.sampled_from([e.id for e in entities])
        relations = draw(st.lists(st.builds(Relation, _types, ends, ends), max_size=4))
    return Document(
        id=draw(_document_ids),
        text=text,
        entities=tuple(entities),
        relations=tuple(relations),
        group=draw(st.none() | st.sampled_from(["patient 1", "\n"])),
        covers=draw(st.none() | st.frozensets(_types, max_size=3)),
    )


def document_lists(*, at_least: int = 1) -> st.SearchStrategy[list[Document]]:
    """Documents of different ids."""
    return st.lists(documents(), min_size=at_least, max_size=4, unique_by=lambda d: d.id)
