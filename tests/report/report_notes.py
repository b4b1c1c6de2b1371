"""Notes of two made-up sites and how methods answer them: one error of each kind, by hand.

Names are hostile on purpose: whoever writes a label into a page must escape it.
"""

from dataclasses import replace

from fedmedlora.schema import Document, Entity, Relation

FED = "fed-medlora"
HOSTILE = 'fed"><img src=x onerror="window.hit=1">'
BREAKOUT = "</script><script>window.hit=1</script>"
SITES = ("north", "south")
TYPES = ("problem", "drug", "dosage", "strength", "frequency", "negation")
#: Only here: its predictions elsewhere are set aside.
NORTH = frozenset(TYPES)
SOUTH = frozenset({"problem", "drug", "dosage", "negation"})
COVERS = {"north": NORTH, "south": SOUTH, "abroad": SOUTH}


def note(name, text, spans, links=()):
    """A document of ``{id: (type, words)}``; the words' first occurrence is the span."""
    return Document(
        id=name,
        text=text,
        entities=tuple(
            Entity(key, kind, text.index(words), text.index(words) + len(words))
            for key, (kind, words) in spans.items()
        ),
        relations=tuple(Relation(spans[tail][0], head, tail) for head, tail in links),
    )


def north_notes():
    """One error of each kind can be made in the first; the second holds what must be escaped."""
    return [
        note(
            "n1",
            "Seen today 😀: chest pain. Took aspirin 100 mg daily, then heparin for leg swelling.",
            {
                "p": ("problem", "chest pain"),
                "a": ("drug", "aspirin"),
                "h": ("drug", "heparin"),
                "s": ("problem", "leg swelling"),
                "m": ("strength", "100 mg"),
                "f": ("frequency", "daily"),
            },
            [("a", "m"), ("a", "f")],
        ),
        note(
            "n2",
            f"No fever. {BREAKOUT} & more.",
            {"f": ("problem", "fever"), "n": ("negation", "No")},
            [("f", "n")],
        ),
    ]


def south_notes():
    return [
        note(
            "s1",
            "Ibuprofen two tablets for back pain.",
            {
                "i": ("drug", "Ibuprofen"),
                "d": ("dosage", "two tablets"),
                "b": ("problem", "back pain"),
                "x": ("bodyloc", "back"),  # south's annotators did not look for it
            },
            [("i", "d")],
        ),
        note(
            "s2",
            "Denies nausea.",
            {"n": ("negation", "Denies"), "p": ("problem", "nausea")},
            [("p", "n")],
        ),
    ]


def gold():
    return {
        "north": north_notes(),
        "south": south_notes(),
        "abroad": [
            note(
                "a1",
                "Paracetamol for headache.",
                {"d": ("drug", "Paracetamol"), "h": ("problem", "headache")},
            )
        ],
    }


def with_errors(document):
    """n1 with one error of each kind; every other document as it is."""
    if document.id != "n1":
        return document
    text = document.text
    wrong = note(
        "n1",
        text,
        {
            "p": ("drug", "chest pain"),  # wrong type
            "a": ("drug", "aspirin"),
            "h": ("drug", "heparin"),
            "s": ("problem", "swelling"),  # wrong boundary
            "t": ("problem", "today"),  # spurious
            "m": ("strength", "100 mg"),
            "f": ("frequency", "daily"),
        },
        [("h", "m"), ("a", "f")],  # wrong head
    )
    return wrong


def nothing(document):
    return replace(document, entities=(), relations=())


def methods():
    """(record of methods.json, how it answers)."""
    rows = [
        ({"label": "zero-shot", "kind": "untrained"}, nothing),
        ({"label": "single-site/north", "kind": "single", "site": "north"}, with_errors),
        ({"label": "single-site/south", "kind": "single", "site": "south"}, nothing),
        ({"label": FED, "kind": "federated"}, with_errors),
        ({"label": HOSTILE, "kind": "federated"}, lambda document: document),
        ({"label": "adapted/north", "kind": "adapted", "site": "north", "of": FED}, with_errors),
        *(
            (
                {
                    "label": f"new/{start}/{n}",
                    "kind": "new-site",
                    "site": "abroad",
                    "notes": n,
                    "of": FED if start == "fed" else None,
                },
                answer,
            )
            for start, n, answer in (
                ("fed", 5, with_errors),
                ("fed", 20, with_errors),
                ("scratch", 5, nothing),
                ("scratch", 20, with_errors),
            )
        ),
        ({"label": "centralised", "kind": "centralised"}, lambda document: document),
    ]
    return [({"method": row["label"], **row}, answer) for row, answer in rows]
