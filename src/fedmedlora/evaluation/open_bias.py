"""Choosing the open bias: validation notes and a decoder in, one bias a task out.

Federated models open too few tags (docs/decisions). A constant added to the logit of beginning a
tag is chosen by strict micro F1 on the sites' own validation notes. Counts add over sites, so in a
federation each site need send no more than its counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedmedlora.evaluation.counts import Counts
from fedmedlora.evaluation.records import score_documents
from fedmedlora.schema import Document, Scheme
from fedmedlora.tasks.build import build_examples
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.reading import predict_documents
from fedmedlora.tasks.settings import TaskSettings

#: What of a task's records decides: entities by their spans, modifiers by whose they are.
_DECIDES = {"entities": "entities", "modifiers": "relations"}


def choose_open_biases(
    validation: Sequence[tuple[Sequence[Document], frozenset[str], Sequence[str]]],
    answers: Callable[[int, Sequence[Example], float], Sequence[str]],
    *,
    candidates: Sequence[float],
    scheme: Scheme,
    settings: TaskSettings,
) -> dict[str, float]:
    """The candidate with the best strict micro F1 for each task; of equals the one nearest to 0.

    Args:
        validation: each site's validation notes, what its annotators covered, and the tasks that
            it takes part in.
        answers: (place in ``validation``, examples, bias) -> their answers.
        candidates: biases to try, added to a logit.
        scheme: types and pairs.
        settings: how the model is asked.
    """
    best: dict[str, tuple[float, float]] = {}
    for bias in sorted(candidates, key=abs):
        counts = dict.fromkeys(settings.tasks, Counts())
        for place, (documents, covers, tasks) in enumerate(validation):
            made, _ = build_examples(documents, covers=covers, scheme=scheme, settings=settings)
            examples = [example for example in made if example.task in tasks]
            pairs = list(zip(examples, answers(place, examples, bias), strict=True))
            read = predict_documents(documents, pairs, scheme=scheme, tasks=settings.tasks)
            for task in (task for task in settings.tasks if task in tasks):
                counts[task] += _strict(documents, read[task].documents, covers, scheme, task)
        for task, count in counts.items():
            score = count.f1 or 0.0
            if task not in best or score > best[task][0]:
                best[task] = (score, bias)
    return {task: bias for task, (_, bias) in best.items()}


def _strict(
    gold: Sequence[Document],
    predicted: Sequence[Document],
    covers: frozenset[str],
    scheme: Scheme,
    task: str,
) -> Counts:
    wanted = _DECIDES[task]
    records = score_documents(
        gold,
        predicted,
        scheme=scheme,
        covers=covers,
        method="",
        round=None,
        cohort="",
        tasks=(wanted,),  # type: ignore[arg-type]
        bootstrap=None,
    )
    for record in records:
        if (record.matching, record.level, record.type) == ("strict", "typed", "micro"):
            return Counts(record.tp, record.predicted, record.gold)
    return Counts()
