"""Dictated letters of an outpatient clinic: problems and what is said about them."""

from __future__ import annotations

from fedmedlora.corpus.synthetic.style import Section, Style

_COMPLAINTS = (
    "[the patient|<he>] reports {severity>1} {complaint:1} in the {bodyloc>1} {temporal>1}",
    "<he> {negation=[denies|has had no|is without]>1,2} {symptom:1} or {symptom:2}",
    "<he> {negation=denies>1} {symptom:1} but has noticed {symptom:2} {temporal>2}",
    "there has been {symptom:1} {condition>1}, and {severity>2} {symptom:2} {condition>2}",
    "{symptom:1} comes on {condition>1} and is usually {severity>1}",
    "<his> {bodyloc>1} {complaint:1} is {course.post>1}, {bodyloc>2} {complaint:2} {course.post>2}",
    "<he> has had {symptom:1} and {symptom:2}, both {temporal>1,2}",
    "{negation=neither>1,2} {symptom:1} nor {symptom:2} is noted, only {bodyloc>3} {complaint:3}",
    "there is {course=no change in>1} the {symptom:1}",
    "not only {symptom:1} but also {severity>2} {symptom:2} occurs {condition>2}",
    "{symptom:1} is {course.post>1}, and {symptom:2} is {negation=[absent|no longer present]>2}",
    "{complaint:1} of the {bodyloc>1} began {temporal.at>1} and is worse {condition>1}",
)

_HISTORY = (
    "<his> {disease:1} has been {course.post>1} {temporal>1}",
    "<he> has {severity>1} {disease:1} and {course.pre>2} {disease:2}",
    "<his> {subject>1} has {disease:1}, and <his> {subject>2} had {disease:2}",
    "{disease:1} runs in the family, affecting <his> {subject>1}",
    "<his> {subject>1,2} had both {disease:1} and {disease:2}",
    "<he> was diagnosed with {disease:1} {temporal.at>1}, while <his> {subject>2} has {disease:2}",
    "there is {negation=no>1} history of {disease:1}, but {disease:2} was found {temporal.at>2}",
    "<his> {subject>1} {negation=never had>1} {disease:1}",
)

_ASSESSMENT = (
    "I think this is {uncertain.pre>1} {disease:1} rather than {disease:2}",
    "{disease:1} is {uncertain.post>1}",
    "{disease:1} is {uncertain.post>1}, but {disease:2} has been {negation=[ruled out|excluded]>2}",
    "it is {uncertain=[unclear whether|doubtful that]>1} this represents {severity>1} {disease:1}",
    "{severity>1} {disease:1}, {course.post>1}",
    "there is {uncertain.pre>1} {disease:1}, with {negation=no>2} sign of {disease:2}",
    "{course.pre>1} {disease:1} with {uncertain.pre>2} {disease:2}",
)

_TREATMENTS = (
    "<he> underwent {treatment:1} {temporal.at>1} for {disease:2}",
    "we discussed {treatment:1} and {treatment:2} [at length|today|in detail]",
    "<he> has {negation=[declined|not had]>1} {treatment:1} but [wants|has tried] {treatment:2}",
    "{treatment:1} has helped the {symptom:2}",
    "<he> finished {treatment:1} {temporal.at>1}",
)

_TESTS = (
    "[a|the last] {study:1} {temporal.at>1} was {labvalue=[normal|negative|abnormal]>1}",
    "the {lab:1} was {labvalue.unit>1}, with a reference range of {reference_range>1}",
    "{lab:1} was {labvalue>1} and {lab:2} was {labvalue>2}",
    "I have {negation=not ordered>1} a {study:1}",
)

_DRUGS = (
    "<he> takes {drug:1} {dosage.amount>1} {frequency>1} for {disease:2}",
    "<he> has {negation=not been taking>1} {drug:1}",
    "I prescribed {drug:1} {strength>1} {form>1} {duration>1}, to be taken {route>1}",
    "<he> stopped {drug:1} {temporal.at>1}",
    "{dosage>1} of {drug:1} {frequency>1} was advised",
)

_OTHER = (
    "<he> was referred to us by the <disease> clinic",
    "<his> [wife|mother|brother] drove <him> to the visit",
    "we will meet again on <longdate> at <small> o'clock",
    "<he> volunteers for the <disease> foundation",
    "there has been no change in address or phone number <long>",
    "it is possible to reach me at extension <long>",
    "<he> walks <number> blocks twice a day at work",
    "<his> [mother|father|sister] is a nurse on a <disease> ward",
    "I spent <number> minutes on a mild disagreement with the insurer",
    "a leaflet on <drug> was mailed last year",
    "<he> rested the <location> on a cushion",
    "<he> teaches a class on <treatment>",
)

STYLE = Style(
    name="outpatient",
    slots={
        "disease": ("problem", ("chronic",)),
        "symptom": ("problem", ("symptom",)),
        "complaint": ("problem", ("local",)),
        "treatment": ("treatment", ("clinic",)),
        "study": ("test", ("general",)),
        "lab": ("test", ("general",)),
        "drug": ("drug", ("tablet", "capsule")),
    },
    topics={
        "complaints": _COMPLAINTS,
        "history": _HISTORY,
        "assessment": _ASSESSMENT,
        "treatments": _TREATMENTS,
        "tests": _TESTS,
        "drugs": _DRUGS,
        "other": _OTHER,
    },
    sections=(
        Section(
            "I saw this <age>-year-old <man> [in clinic today|for follow-up|on <longdate>]. ",
            {"complaints": 8, "other": 1},
            2,
            3,
            capitalised=True,
        ),
        Section(
            "\n\n", {"history": 5, "treatments": 2, "drugs": 2, "other": 1}, 1, 3, capitalised=True
        ),
        Section(
            "\n\n[Impression: |Assessment: |]",
            {"assessment": 4, "treatments": 3, "tests": 4, "drugs": 3, "other": 1},
            3,
            4,
            capitalised=True,
        ),
    ),
)
