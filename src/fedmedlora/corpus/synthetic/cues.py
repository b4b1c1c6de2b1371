"""Words of the closed classes: modifiers, drug forms and what only looks like an annotation.

Enters: nothing. Leaves: tables of phrases by style and key. A phrase may hold plain fillers such as
``<small>``, which ``grammar`` draws. These classes are shared by training and test notes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """How drugs of one kind are given; each field lists what the modifier may be.

    Strength is the content of one unit of a form ("500 mg" of a "500 mg tablet"); dosage is how
    much is given at a time ("2 tablets", "1 g").
    """

    strength: tuple[str, ...]
    form: tuple[str, ...]
    dosage: tuple[str, ...]
    route: tuple[str, ...]


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split(","))


KINDS: dict[str, Kind] = {
    "iv": Kind(
        _phrases("1 g, 2 g, 500 mg, <tens>00 units, <tens> mcg, <tens> mg"),
        _phrases("vial, piggyback, syringe, premix bag"),
        _phrases(
            "1 g, 2 g, 1.5 g, <tens> mg, <tens> mg, <small> mg, <tens> mcg, <number> mcg/min, "
            "<number> units/hr, <tens>00 units, <small> units, <tens> mEq, <tens> mL/hr"
        ),
        _phrases("IV, IV push, SQ, IM, per central line, IV, IV"),
    ),
    "tablet": Kind(
        _phrases(
            "500 mg, <tens> mg, <tens> mg, <small> mg, <small>.5 mg, <small>00 mg, 0.<small> mg, "
            "<tens>0 units, <tens> mEq, <tens> mcg"
        ),
        _phrases("tablet, tablet, tab, extended release tablet, chewable tablet"),
        _phrases("1 tablet, 1 tablet, 2 tablets, 1.5 tablets, half a tablet, 3 tablets, 1 tab"),
        _phrases("by mouth, by mouth, orally, PO, under the tongue"),
    ),
    "capsule": Kind(
        _phrases("<tens> mg, <tens> mg, <small>00 mg, <tens>0 mg, 0.<small> mg"),
        _phrases("capsule, capsule, cap, delayed release capsule"),
        _phrases("1 capsule, 2 capsules, 1 cap, 3 capsules"),
        _phrases("by mouth, by mouth, orally, PO"),
    ),
    "inhaler": Kind(
        _phrases("<tens> mcg, <number> mcg, <small>.5 mcg"),
        _phrases("inhaler, aerosol inhaler, dry powder inhaler, nasal spray"),
        _phrases("1 puff, 2 puffs, 4 puffs, 1 spray, 2 sprays"),
        _phrases("inhaled, by inhalation, into each nostril"),
    ),
    "cream": Kind(
        _phrases("1 %, 0.<small> %, 0.0<small> %, <small>.5 %"),
        _phrases("cream, ointment, gel, lotion"),
        _phrases("a thin layer, a small amount, 2 g, 1 fingertip unit"),
        _phrases("topically, to the skin"),
    ),
    "drops": Kind(
        _phrases("1 %, 0.<small> %, 0.00<small> %"),
        _phrases("ophthalmic solution, eye drops, suspension"),
        _phrases("1 drop, 2 drops"),
        _phrases("into both eyes, in the affected eye, into each eye"),
    ),
    "pen": Kind(
        _phrases("100 units/mL, 40 mg/0.4 mL, 3 mg/mL, 80 mg/0.8 mL"),
        _phrases("pen, prefilled syringe, injection, vial"),
        _phrases("<number> units, <number> units, <tens> mg, 0.<small> mg"),
        _phrases("subcutaneously, under the skin, SC"),
    ),
    "liquid": Kind(
        _phrases("<tens> g/15 mL, <tens> mg/5 mL, <tens>0 mg/5 mL, <number> g"),
        _phrases("oral solution, syrup, suspension, powder"),
        _phrases("<number> mL, <tens> mL, 1 packet, <small> teaspoons"),
        _phrases("by mouth, orally, via feeding tube"),
    ),
}

CUES: dict[str, dict[str, tuple[str, ...]]] = {
    "icu": {
        "severity": _phrases("severe, mild, mod, marked, massive, minimal, severe, profound"),
        "course.pre": _phrases("worsening, improving, persistent, resolving, stable, recurrent"),
        "course.post": _phrases("improving, worse, resolved, stable, unchanged, slowly better"),
        "uncertain.pre": _phrases(
            "likely, possible, r/o, c/f, ?, concern for, probable, suspect, poss"
        ),
        "uncertain.post": _phrases("suspected, not excluded, possible, likely"),
        "condition": _phrases(
            "w/ turning, w/ suctioning, at rest, off sedation, when supine, on SBT, w/ exertion, "
            "w/ cough, on PS trial"
        ),
        "temporal": _phrases(
            "overnight, today, this am, on <date>@, since <clock>, x <small> days, since <date>, "
            "last night, since admission, for <small> days"
        ),
        "temporal.at": _phrases(
            "overnight, today, yesterday, this am, on <date>@, last night, at <clock>@, "
            "<small>h ago, <small> days ago"
        ),
        "frequency": _phrases(
            "q12h, q8h, q6h, q24h, daily, bid, tid, q4h prn, prn, qhs, qid, x1, q2h prn"
        ),
        "duration": _phrases("x <small> days, for <small> days, x <small>d, x <small> more days"),
        "labvalue": _phrases("neg, WNL, normal, unremarkable, pos, NGTD, clear"),
        "subject": _phrases("mother, father, brother, sister, son"),
    },
    "outpatient": {
        "severity": _phrases("mild, moderate, severe, significant, intense, slight, debilitating"),
        "course.pre": _phrases("worsening, recurrent, progressive, persistent, intermittent"),
        "course.post": _phrases(
            "improving, getting worse, stable, unchanged, well controlled, slowly progressing, "
            "coming and going, gradually improving"
        ),
        "uncertain.pre": _phrases(
            "possible, probable, suspected, likely, questionable, a concern for"
        ),
        "uncertain.post": _phrases(
            "suspected, a possibility, likely, not certain, in the differential, felt to be likely"
        ),
        "condition": _phrases(
            "with exertion, at rest, when lying flat, after meals, when climbing stairs, at work, "
            "in cold weather, with bending, when she misses sleep, during stress, while driving, "
            "when standing up, after drinking coffee, with deep breathing"
        ),
        "temporal": _phrases(
            "for the past <count> weeks, since last <weekday>, since <year>, for <count> months, "
            "since childhood, for several years, since <month>, since the age of <age>"
        ),
        "temporal.at": _phrases(
            "<count> months ago, in <month> <year>@, in <year>@, last year, over the weekend, "
            "<count> weeks ago, last <weekday>, on <longdate>@"
        ),
        "frequency": _phrases("once a day, twice a day, as needed, every morning, at bedtime"),
        "duration": _phrases("for <count> weeks, for <small> days, for another month"),
        "labvalue": _phrases(
            "normal, negative, unremarkable, abnormal, within normal limits, positive"
        ),
        "subject": _phrases(
            "mother, father, brother, sister, maternal aunt, grandmother, son, daughter, "
            "paternal uncle, older brother, cousin, grandfather"
        ),
    },
    "discharge": {
        "severity": _phrases("mild, moderate, severe, significant, extensive, minor"),
        "course.pre": _phrases("recurrent, worsening, resolving, persistent"),
        "course.post": _phrases("resolved, improved, stable, unchanged, markedly improved"),
        "uncertain.pre": _phrases("possible, presumed, suspected, probable, likely"),
        "uncertain.post": _phrases("suspected, felt to be likely, thought to be unlikely"),
        "condition": _phrases("with ambulation, at rest, after eating, with weight bearing"),
        "temporal": _phrases(
            "for <small> days, since <year>, prior to admission, since <longdate>, x <small> days"
        ),
        "temporal.at": _phrases(
            "on <longdate>@, on <date>/2024@, prior to admission, <small> days ago, in <year>@, "
            "on <longdate>@"
        ),
        "frequency": _phrases(
            "once daily, twice daily, three times daily, every 6 hours, every 8 hours as needed, "
            "every morning, at bedtime, every 12 hours, every other day, once a week, daily, "
            "4 times a day, every 4 hours as needed"
        ),
        "duration": _phrases(
            "for 14 days, for 7 days, for <small> days, for <small> weeks, x 10 days, "
            "for <small> more days, for 1 month, for 30 days"
        ),
        "labvalue": _phrases("normal, negative, unremarkable, positive, no growth"),
        "subject": _phrases("mother, father, brother, sister, roommate, wife"),
    },
}
