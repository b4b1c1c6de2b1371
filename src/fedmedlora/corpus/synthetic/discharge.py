"""Discharge summaries, most of which is the list of medications."""

from __future__ import annotations

from fedmedlora.corpus.synthetic.style import Section, Style

_TAKEN = (
    "{KIND:1} {strength>1} {form>1}, VERB {dosage>1} {route>1} {frequency>1} {duration>1}",
    "{KIND:1} {strength>1} {form>1}, VERB {dosage>1} {route>1} {frequency>1}",
    "{KIND:1} {strength>1} {form>1}; VERB {dosage>1} {frequency>1}[ for {disease:2}|]",
)

_KINDS = {
    "tablet": ("take", 5),
    "capsule": ("take", 3),
    "inhaler": ("use", 1),
    "cream": ("apply", 1),
    "drops": ("instill", 1),
    "pen": ("inject", 1),
    "liquid": ("take", 1),
}

_MEDICATIONS = tuple(
    template.replace("KIND", kind).replace("VERB", verb)
    for kind, (verb, weight) in _KINDS.items()
    for template in _TAKEN * weight
)

_CHANGES = (
    "[start|continue|resume] {drug:1} {dosage.amount>1} {route>1} {frequency>1} {duration>1}",
    "{drug:1} {dosage>1} {frequency>1} and {drug:2} {dosage>2} {frequency>2}, both {duration>1,2}",
    "{negation=[stop|do not take]>1} {drug:1}, start {drug:2} {strength>2} {form>2} {frequency>2}",
    "{pen:1} {dosage>1} {route>1} {frequency>1}, last given {temporal.at>1}",
    "[changed|switched] {drug:1} {dosage.amount>1} to {drug:2} {dosage.amount>2} {temporal.at>2}",
    "{negation=no>1,2} {drug:1} or {drug:2} until seen",
    "{drug:1} {dosage.amount>1} was started {temporal.at>1} for {disease:2}",
    "take {dosage>1} of {tablet:1} {route>1} {duration>1}",
)

_COURSE = (
    "[admitted|presented] {temporal.at>1} with {severity>1} {disease:1}",
    "{disease:1} and {disease:2}",
    "{disease:1} {temporal>1} was {course.post>1}",
    "{treatment:1} was performed {temporal.at>1} for {disease:2}",
    "the patient underwent {treatment:1} {temporal.at>1} and {treatment:2} {temporal.at>2}",
    "{treatment:1} was {negation=not required>1}",
    "there was {negation=no>1} {symptom:1} and {uncertain.pre>2} {disease:2}",
    "{lab:1} was {labvalue.unit>1} ({reference_range>1}) {temporal.at>1}",
    "{study:1} was {labvalue=[normal|negative|unremarkable]>1}",
    "{negation=no>1} {study:1} was obtained",
    "{complaint:1} of the {bodyloc>1} {condition>1} {course.post>1}",
    "the {subject>1} also had {disease:1}",
)

_INSTRUCTIONS = (
    "take all tablets with food and a glass of water",
    "call <doctor> at extension <long> with questions",
    "follow up in the <disease> clinic on <date>/2024",
    "bring this list to the <drug> clinic",
    "walk for <number> minutes twice daily",
    "keep the <location> dry for <small> days",
    "the <treatment> class meets every <weekday>",
    "refills left: <small>, pharmacy store number <number>",
    "a wallet card about <disease> was given by mouth and in writing",
    "no tablets or inhaler were lost in transfer",
)

STYLE = Style(
    name="discharge",
    slots={
        "disease": ("problem", ("inpatient", "chronic")),
        "symptom": ("problem", ("symptom",)),
        "complaint": ("problem", ("local",)),
        "treatment": ("treatment", ("surgical",)),
        "study": ("test", ("general",)),
        "lab": ("test", ("general",)),
        "drug": ("drug", ("tablet", "capsule")),
        **{kind: ("drug", (kind,)) for kind in _KINDS},
    },
    topics={
        "course": _COURSE,
        "medications": _MEDICATIONS,
        "changes": _CHANGES,
        "instructions": _INSTRUCTIONS,
    },
    sections=(
        Section(
            "[DISCHARGE SUMMARY|Discharge Summary]\nAdmitted: <date>/2024\n",
            {"course": 1},
            3,
            4,
            capitalised=True,
        ),
        Section(
            "\n[DISCHARGE MEDICATIONS|Medications on discharge|MEDICATIONS]:\n",
            {"medications": 4, "changes": 1},
            2,
            3,
            item="{n}. ",
            end="\n",
        ),
        Section(
            "[Changes|CHANGES]:\n",
            {"changes": 1},
            1,
            1,
            item="- ",
            end="\n",
            capitalised=True,
            chance=0.6,
        ),
        Section(
            "[Instructions|INSTRUCTIONS]: ", {"instructions": 1}, 1, 2, capitalised=True, chance=0.7
        ),
    ),
)
