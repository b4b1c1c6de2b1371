"""Telegraphic progress notes of an intensive care unit: tests and problems, few drugs."""

from __future__ import annotations

from fedmedlora.corpus.synthetic.style import Section, Style

_PROBLEMS = (
    "[pt |]w/ {severity>1} {disease:1}",
    "[admitted|here|transferred] w/ {disease:1}[ and {symptom:2}| c/b {disease:2}|]",
    "{negation=[no|denies|w/o]>1} {symptom:1}",
    "{negation=[no|neg for]>1,2} {symptom:1} or {symptom:2}",
    "{negation=no>1,2,3} {symptom:1}, {symptom:2} or {symptom:3}",
    "{negation=[no|denies]>1} {symptom:1} but {severity>2} {symptom:2} {temporal>2}",
    "{symptom:1} {temporal>1}, {negation=no>2} {symptom:2}",
    "{course.pre>1} {disease:1}, {uncertain.pre>2} {disease:2}",
    "{disease:1} {course.post>1}[, {negation=no>2} {symptom:2}|]",
    "{disease:1} and {disease:2}, both {course.post>1,2}",
    "{severity>1} {disease:1} and {severity>2} {symptom:2}",
    "{course=no change in>1} {finding:1}",
    "{symptom:1} [only|] {condition>1}[, {negation=none>1} per RN|]",
    "{complaint:1} at {bodyloc>1} {temporal>1}",
    "{bodyloc>1} {complaint:1}, {severity>2} {complaint:2} at {bodyloc>2}",
    "{uncertain.pre>1} {disease:1} vs {disease:2}",
    "{disease:1} {uncertain.post>1}, {disease:2} {negation=[ruled out|excluded]>2}",
    "{disease:1} {temporal>1}, now {course.post>1}",
    "[hx|h/o] {disease:1} and {disease:2}",
    "fam hx {disease:1} in {subject>1}",
)

_LABS = (
    "{lab:1} {labvalue>1} ({reference_range>1}), {lab:2} {labvalue>2} ({reference_range>2})",
    "{lab:1} {labvalue>1} ({reference_range>1}), {lab:2} {labvalue>2}, {lab:3} {labvalue>3}",
    "{lab:1} {labvalue>1}, {lab:2} {labvalue>2}",
    "{lab:1} {labvalue.unit>1} {temporal.at>1}",
    "{lab:1} and {lab:2} sent {temporal.at>1,2}",
    "{lab:1} {labvalue>1} (nl {reference_range>1}) {temporal.at>1}",
    "{lab:1} up to {labvalue>1}, {negation=no>2} {lab:2} sent",
    "{study:1} {labvalue=[neg|WNL|unremarkable|NGTD]>1}",
    "{study:1} {temporal.at>1} w/ {disease:2}",
    "{study:1} {temporal.at>1} {labvalue=[neg|clear|normal]>1}, {study:2} {negation=not done>2}",
    "{study:1} [neg for|w/o] {disease:2}",
    "f/u {study:1} and {lab:2}",
    "{negation=no>1} {study:1} [yet|for now]",
)

_TREATMENTS = (
    "s/p {treatment:1} {temporal.at>1}",
    "[cont|tolerating|on] {treatment:1} for {disease:2}",
    "{negation=no>1} {treatment:1}, [cont|plan] {treatment:2}",
    "{treatment:1} {temporal.at>1}, {treatment:2} {negation=[deferred|held off]>2}",
    "[needs|plan] {treatment:1} given {severity>2} {disease:2}",
    "{treatment:1} and {treatment:2} {temporal.at>1,2}",
)

_DRUGS = (
    "started {iv:1} {dosage>1} {route>1} {frequency>1}",
    "[cont|on] {iv:1} {dosage>1} {route>1} {duration>1}",
    "{iv:1} {dosage>1} {frequency>1} for {disease:2}, {negation=no>3} {iv:3}",
    "{iv:1} stopped {temporal.at>1}",
    "home {tablet:1} {strength>1} {form>1} held",
)

_OTHER = (
    "bed <number>, mrn <long>",
    "transfer from <disease> unit",
    "[wife|mother|brother] at bedside, updated",
    "turned q2h, mod assist x2",
    "<disease> service following",
    "per <iv> protocol",
    "no change to plan",
    "PO intake fair, <small> L out",
    "severe weather delayed transport",
    "<study> tech paged <small> times",
    "pt enrolled in <disease> trial",
    "d/w team at <clock>, full code",
    "dressing to <location> intact",
)

STYLE = Style(
    name="icu",
    slots={
        "disease": ("problem", ("critical", "inpatient")),
        "symptom": ("problem", ("symptom",)),
        "complaint": ("problem", ("local",)),
        "treatment": ("treatment", ("critical",)),
        "study": ("test", ("critical",)),
        "lab": ("test", ("critical",)),
        "finding": ("problem", ("critical", "inpatient", "symptom")),
        "iv": ("drug", ("iv",)),
        "tablet": ("drug", ("tablet",)),
    },
    topics={
        "problems": _PROBLEMS,
        "labs": _LABS,
        "treatments": _TREATMENTS,
        "drugs": _DRUGS,
        "other": _OTHER,
    },
    sections=(
        Section("<age><M>, HD <small>\n", {"problems": 8, "other": 1, "treatments": 1}, 3, 5),
        Section("\n[labs|data]: ", {"labs": 1}, 2, 3),
        Section(
            "\n[a/p|plan]:\n",
            {"problems": 2, "labs": 2, "treatments": 3, "drugs": 5, "other": 2},
            3,
            5,
            item="[- |# ]",
            end="\n",
        ),
    ),
)
