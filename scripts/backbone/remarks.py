"""What clinical shorthand says about a name: phrases of each kind, and forms that hold them.

General knowledge of how notes are written, in words of this module's own; no text of any note, and
nothing of the annotation scheme but which kinds of remark there are and what they are called.
``<x>`` stands for a number, a date or a unit that is drawn.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

DOSE_UNITS = "mg mcg g ml units meq mg mg mcg iu mg / kg".split(" ")
VALUE_UNITS = [*"% mm cm bpm k".split(), "mmol / l", "mg / dl", "g / dl", "mm hg", "u / l"]
_MONTHS = (
    "january february march april may june july august september october november december "
    "jan feb mar apr jun jul aug sept oct nov dec"
).split()


def _date(rng: random.Random) -> str:
    month, day = rng.choice(_MONTHS), rng.randint(1, 31)
    year = rng.randint(1985, 2024)
    return rng.choice(
        (
            f"{month} {day}",
            f"{month} {year}",
            f"{rng.randint(1, 12)} / {day}",
            f"{rng.randint(1, 12)} / {day} / {year}",
            f"{year}",
            f"{month} {day} , {year}",
        )
    )


def _decimal(rng: random.Random) -> str:
    return rng.choice((f"{rng.randint(0, 40)} . {rng.randint(0, 9)}", str(rng.randint(2, 400))))


_FORMS = [
    *"tablet tab tablets capsule caplet pill lozenge suspension syrup solution elixir gel".split(),
    *"cream ointment lotion patch drops spray inhaler nebulizer suppository ampule syringe".split(),
    *("vial", "chewable tablet", "extended release capsule", "oral solution", "eye drops", "cap"),
]
_DRAWN: dict[str, Callable[[random.Random], str]] = {
    "few": lambda rng: rng.choice([*map(str, range(1, 13)), "two", "three", "four", "several"]),
    "many": lambda rng: str(rng.choice((5, 10, 20, 25, 40, 50, 75, 80, 100, 125, 200, 250, 500))),
    "number": _decimal,
    "hour": lambda rng: rng.choice((f"{rng.randint(0, 23):02d}00", f"{rng.randint(1, 12)} am")),
    "date": _date,
    "span": lambda rng: rng.choice("minutes hours days weeks months years d wk day week".split()),
    "dose": lambda rng: rng.choice(DOSE_UNITS),
    "unit": lambda rng: rng.choice(VALUE_UNITS),
    "form": lambda rng: rng.choice(_FORMS),
}

#: Kind of remark -> phrases.
REMARKS: dict[str, tuple[str, ...]] = {
    "strength": ("<many> <dose>", "<many> <dose>", "<number> <dose>", "<many> mg"),
    "dosage": (
        *("<few> <form>", "<few> <form>", "one <form>", "half a <form>", "<few> puffs"),
        *("<many> <dose>", "<many> <dose>", "<number> <dose>", "<few> g", "<few> <dose> / hr"),
    ),
    "form": tuple(_FORMS),
    "route": (
        *("po", "po", "iv", "iv", "im", "sc", "sl", "pr", "orally", "by mouth", "by mouth", "oral"),
        *("intravenously", "subcutaneously", "topically", "inhaled", "rectally", "to the skin"),
        *("intravenous", "subcutaneous", "topical", "under the skin", "through the nose", "ivp"),
        *("in both eyes", "by injection", "via peg", "per ngt", "sublingual", "transdermal"),
    ),
    "frequency": (
        *("daily", "bid", "tid", "qid", "qd", "qhs", "prn", "q <few> h", "q 6 h", "q 8 h"),
        *("once daily", "twice daily", "twice a day", "once a day", "three times a day"),
        *("every <few> hours", "every day", "nightly", "weekly", "every week", "monthly"),
        *("at bedtime", "in the morning", "every evening", "as needed", "<few> times a day"),
        *("every other day", "once a week", "with meals", "x 1", "continuously", "q am", "qod"),
    ),
    "duration": (
        *("for <few> <span>", "x <few> <span>", "for <few> <span>", "for a week", "x <few> doses"),
        *("for a total of <few> <span>", "until <date>", "through <date>", "over <few> <span>"),
    ),
    "temporal": (
        *("today", "yesterday", "overnight", "this morning", "last night", "last week", "now"),
        *("<few> <span> ago", "<few> <span> ago", "since <date>", "for <few> <span>", "recently"),
        *(
            "<date>",
            "<date>",
            "<date>",
            "x <few> <span>",
            "earlier today",
            "last month",
            "as a boy",
        ),
        *("in the past", "previously", "at <hour>", "pod <few>", "since birth", "for many years"),
        *("postoperatively", "on admission", "tomorrow", "next week", "over the last <few> <span>"),
    ),
    "negation": (
        *("no", "no", "no", "denies", "without", "negative for", "no evidence of", "w / o", "not"),
        *("no signs of", "never had", "free of", "absence of", "denied", "does not have", "no new"),
        *("no further", "no history of", "has not had", "rules out", "fails to show"),
    ),
    "undone": (
        *(
            "held",
            "not done",
            "not given",
            "cancelled",
            "deferred",
            "refused",
            "declined",
            "absent",
        ),
        *("not needed", "not indicated", "not obtained", "stopped", "discontinued", "withheld"),
        *("was not taken", "never started", "not seen", "excluded", "resolved completely"),
    ),
    "value": (
        *("<number>", "<number>", "<number>", "<number> <unit>", "<number> <unit>", "<number> %"),
        *("normal", "negative", "positive", "elevated", "high", "low", "within normal limits"),
        *(
            "abnormal",
            "wnl",
            "unremarkable",
            "clear",
            "trace",
            "pending",
            "1 : <many>",
            "neg",
            "pos",
        ),
        *("> <number>", "< <number>", "grossly normal", "within limits", "nl", "borderline"),
    ),
    "range": (
        *("<number> - <number>", "<number> - <number>", "<number> to <number>", "< <number>"),
        *(
            "<number> - <number> <unit>",
            "up to <number>",
            "normal <number> - <number>",
            "> <number>",
        ),
    ),
    "severity": (
        *("mild", "mild", "moderate", "severe", "severe", "marked", "slight", "significant"),
        *("massive", "minimal", "mildly", "severely", "intense", "profound", "minor", "bad"),
        *("mild to moderate", "extensive", "very severe", "life - threatening", "trace", "major"),
    ),
    "bodyloc": (
        *("left arm", "right hand", "leg", "legs", "foot", "left ear", "right eye", "scalp"),
        *("chest wall", "upper back", "abdomen", "left lower lobe", "both legs", "cheek", "throat"),
        *("neck", "tongue", "kidney", "bilateral feet", "liver", "skin", "right lung", "pelvis"),
        *("left side", "epigastric", "facial", "toe", "forehead", "nose", "upper arm", "bladder"),
    ),
    "course": (
        *("worsening", "improving", "stable", "progressive", "recurrent", "resolving", "worse"),
        *("better", "improved", "unchanged", "getting worse", "new", "increasing", "decreased"),
        *("chronic", "acute", "persistent", "intermittent", "resolved", "no change in", "ongoing"),
        *("slowly improving", "waxing and waning", "well controlled", "on and off", "sudden"),
    ),
    "condition": (
        *(
            "when walking",
            "on exertion",
            "with deep breaths",
            "after eating",
            "at rest",
            "at night",
        ),
        *("when lying flat", "with movement", "while sitting", "if he stands", "during exercise"),
        *("after a fall", "with cold air", "on climbing stairs", "when she coughs", "w / activity"),
        *("in the heat", "during sleep", "while swallowing", "before meals", "under stress"),
    ),
    "subject": (
        *"mother father brother sister aunt uncle grandfather son daughter cousin twin".split(),
        *("maternal aunt", "paternal grandfather", "older brother", "mom", "dad", "parents"),
    ),
    "uncertain": (
        *("possible", "probable", "likely", "suspected", "?", "may have", "concern for", "r / o"),
        *(
            "questionable",
            "cannot exclude",
            "appears to be",
            "suggestive of",
            "presumed",
            "perhaps",
        ),
        *("might be", "suspicious for", "could represent", "consistent with", "poss", "prob"),
    ),
    "doubted": ("likely", "possible", "suspected", "not excluded", "considered", "in question"),
}
#: Kind of remark -> the words by which a prompt may ask for it.
REMARK_WORDS: dict[str, tuple[str, ...]] = {
    "strength": ("strength", "potency"),
    "dosage": ("dosage", "dose"),
    "form": ("form", "shape"),
    "route": ("route", "way"),
    "frequency": ("frequency", "often"),
    "duration": ("duration", "length"),
    "temporal": ("temporal", "when"),
    "negation": ("negation", "absent"),
    "value": ("labvalue", "result"),
    "range": ("reference_range", "limits"),
    "severity": ("severity", "degree"),
    "bodyloc": ("bodyloc", "place"),
    "course": ("course", "development"),
    "condition": ("condition", "situation"),
    "subject": ("subject", "relative"),
    "uncertain": ("uncertain", "doubt"),
}
#: Kinds whose phrases are remarks of another kind that stand elsewhere.
SAME_AS = {"undone": "negation", "doubted": "uncertain"}

#: Class of a name -> forms of what is said about one or two such names (@1, @2). ``~kind:12`` is a
#: remark that belongs to both; ``?`` before an item makes it optional,
#: ``|`` gives alternatives, of which ``_`` is nothing.
FORMS: dict[str, tuple[str, ...]] = {
    "medicine": (
        "?~dosage:1 @1 ~dosage:1 ~route:1 ~frequency:1",
        "@1 ~strength:1 ~form:1 , take ~dosage:1 ~route:1 ~frequency:1 ?~duration:1",
        "@1 ~strength:1 ~form:1 ~frequency:1",
        "@1 ~strength:1 ~form:1 ?~route:1 ~frequency:1 ?~duration:1",
        "on|takes|given|continue|started|resume|received|home @1 ~dosage:1 ?~route:1 ~frequency:1",
        "is|was taking|using @1 ~dosage:1 ?~frequency:1 ?~duration:1",
        "@1 ~dosage:1 ~route:1 ~duration:1",
        "?~dosage:1 ~dosage:1 of @1 ~route:1 ~frequency:1",
        "start|give|order @1 ~route:1 ~frequency:1 ~duration:1",
        "~negation:1 @1",
        "@1 ~undone:1",
        "@1 was|is|been ~undone:1 ~temporal:1",
        "~negation:12 @1 or|and|, @2",
        "started|stopped|received|last|increased @1 on|in|_ ~temporal:1",
        "received @1 and @2 ~temporal:12",
        "@1 ~dosage:1 and|, @2 ~dosage:2 , ~frequency:12",
    ),
    "exam": (
        "@1 ~value:1",
        "@1 ~value:1",
        "@1 ~value:1 , @2 ~value:2",
        "@1 was|is|of|:|= ~value:1",
        "@1 was ~value:1 and @2 was ~value:2",
        "@1 ~value:1 ( ~range:1 )",
        "@1 : ~value:1 ; ref|reference|nl ~range:1",
        "@1 ~temporal:1 ~value:1",
        "@1 on|from|at ~temporal:1 was|: ~value:1",
        "@1 up|down|trended|rose|fell to ~value:1 ?~temporal:1",
        "~negation:1 @1 ?~temporal:1",
        "@1 ~undone:1",
        "@1 and|, @2 sent|drawn|done|repeated ~temporal:12",
        "@1 and @2 ~value:12",
        "check|repeat|follow|f / u @1 ~temporal:1",
    ),
    "disorder": (
        "?~severity:1 @1 ~condition:1",
        "~severity:1 @1",
        "~severity:1 @1 ?and|, ~severity:2 @2",
        "~negation:1 @1",
        "~negation:1 @1 , but has @2",
        "~negation:12 @1 or|and|, @2",
        "~negation:12 @1 or|and|nor|, @2",
        "~course:1 @1",
        "@1 is|was|has|remains|, ~course:1",
        "?~temporal:1 @1 ~course:1",
        "~uncertain:1 @1",
        "~uncertain:1 ?~severity:1 @1",
        "@1 ~doubted:1",
        "~uncertain:1 @1 vs|versus|or @2",
        "his|her|the|family|~subject:1 had|has|died|with @1",
        "@1 in ?his|her ~subject:1",
        "?his|her ~subject:12 has|had @1 and @2",
        "@1 on|in|_ ?~temporal:1",
        "h / o|hx|known @1 since|_ ?~temporal:1",
        "has|had|developed|reports @1 ~temporal:1 ?~course:1",
        "@1 and|, @2 , both|all ~temporal:12",
        "@1 of|in|at|over the|his|her ~bodyloc:1",
        "?~severity:1 ~bodyloc:1 @1 ?~temporal:1",
        "c / o|complains|reports|notes ~severity:1 @1 in the ~bodyloc:1 ~condition:1",
    ),
    "operation": (
        "s / p @1 ?on|in|_ ~temporal:1",
        "underwent|had|received|completed @1 ?on|in|_ ~temporal:1",
        "~negation:1 @1",
        "@1 ~undone:1",
        "@1 was|is ~undone:1",
        "@1 and @2 ~temporal:12",
        "@1 ~temporal:1",
        "@1 on|in ~temporal:1",
        "needs|for|plan|tolerated|discussed|after @1",
        "was treated with @1 and @2",
        "@1 helped|planned|recommended|successful",
    ),
}
#: Class of a name -> last words that tell it.
LAST_WORDS: dict[str, tuple[str, ...]] = {
    "medicine": ("acid", "sodium", "hydrochloride", "xr", "vaccine", "extract", "sulfate"),
    "exam": ("scan", "level", "test", "culture", "exam", "study", "panel", "count", "biopsy"),
    "disorder": ("disease", "syndrome", "pain", "disorder", "failure", "infection", "swelling"),
    "operation": ("surgery", "repair", "therapy", "removal", "placement", "transplant", "tube"),
}
#: What is said about no name; "@" is one that only says which place, group or paper is meant.
ASIDES = (
    *("@ clinic <date>", "@ team following", "on the @ ward", "per @ protocol", "@ handout given"),
    *("in the @ trial", "@ nurse called", "went to a @ group", "@ unit full", "@ service aware"),
    *("<few> yo man", "<many> y / o woman", "seen on <date>", "room <many>", "day <few>", "plan :"),
    *("labs :", "meds :", "a / p :", "impression :", "history :", "exam :", "#", "-", "<few> ."),
    *("follow up in <few> weeks", "will call <date>", "family present", "diet as tolerated", ""),
    *("lives with wife", "page <many>", "admitted <date>", "vs stable", "code full", "", "", ""),
    *("the patient", "he", "she", "pt", "he", "she", "and", "also", "then", "today we saw him"),
)


def fill(phrase: str, rng: random.Random) -> list[str]:
    """The words of a phrase, with what ``<x>`` stands for drawn."""
    return re.sub(r"<(\w+)>", lambda found: _DRAWN[found[1]](rng), phrase).split()
