"""The n2c2 2018 track 2 format: brat files through the shipped mapping."""

from fedmedlora.corpus.brat import read_brat
from fedmedlora.corpus.mapping import load_mapping
from fedmedlora.schema import DEFAULT_SCHEME, Relation

TEXT = "Aspirin 81 mg tablet 1 po daily x 5\ndays for pain ; rash\n"
ANN = """\
T1\tDrug 0 7\tAspirin
T2\tStrength 8 13\t81 mg
T3\tForm 14 20\ttablet
T4\tDosage 21 22\t1
T5\tRoute 23 25\tpo
T6\tFrequency 26 31\tdaily
T7\tDuration 32 35;36 40\tx 5 days
T8\tReason 45 49\tpain
T9\tADE 52 56\trash
R1\tStrength-Drug Arg1:T2 Arg2:T1
R2\tForm-Drug Arg1:T3 Arg2:T1
R3\tDosage-Drug Arg1:T4 Arg2:T1
R4\tRoute-Drug Arg1:T5 Arg2:T1
R5\tFrequency-Drug Arg1:T6 Arg2:T1
R6\tDuration-Drug Arg1:T7 Arg2:T1
R7\tReason-Drug Arg1:T8 Arg2:T1
R8\tADE-Drug Arg1:T9 Arg2:T1
"""


def test_attributes_are_the_drugs_modifiers_and_reasons_and_adverse_events_problems(tmp_path):
    (tmp_path / "100035.txt").write_text(TEXT)
    (tmp_path / "100035.ann").write_text(ANN)
    mapping = load_mapping("n2c2-2018", scheme=DEFAULT_SCHEME)
    (document,), report = read_brat(tmp_path, mapping)
    assert [(e.type, TEXT[e.start : e.end]) for e in document.entities] == [
        ("drug", "Aspirin"),
        ("strength", "81 mg"),
        ("form", "tablet"),
        ("dosage", "1"),
        ("route", "po"),
        ("frequency", "daily"),
        ("duration", "x 5\ndays"),
        ("problem", "pain"),
        ("problem", "rash"),
    ]
    kinds = ["strength", "form", "dosage", "route", "frequency", "duration"]
    assert document.relations == tuple(
        Relation(kind, "T1", f"T{number}") for number, kind in enumerate(kinds, start=2)
    )
    assert document.covers == {"drug", "problem", *kinds}
    assert report.relations.skipped == {
        ("unmapped type", "Reason-Drug"): 1,
        ("unmapped type", "ADE-Drug"): 1,
    }
    assert report.discontinuous == {"joined over line breaks": 1}
    assert report.balanced
