"""A run folder with every file that a report can show."""

import json

import yaml
from report_notes import COVERS, FED, HOSTILE, SITES, gold, methods

from fedmedlora.corpus.jsonl import as_record
from fedmedlora.evaluation.records import SCORED_OF, Cohort, score_cohorts
from fedmedlora.schema import DEFAULT_SCHEME


def site_round(weight, loss, validation):
    return {
        "status": "ok",
        "examples": 10,
        "tokens": 100,
        "weight": weight,
        "loss_first": 1.0,
        "loss_last": loss,
        "validation_loss": validation,
        "seconds": 2.0,
        "bytes_down": 2_000_000,
        "bytes_up": 1_000_000,
    }


def rounds(label):
    return [
        {
            "round": n,
            "method": label,
            "sites": {
                "north": site_round(0.6, 0.5 / n, 1.5),
                "south": site_round(0.4, 0.7 / n, 2.5),
            },
        }
        for n in (1, 2, 3)
    ]


def write_json(folder, name, content):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def write_documents(folder, name, documents):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(as_record(document), ensure_ascii=False) for document in documents]
    file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def write_scores(folder, kept):
    """Predictions and scores of these methods, made by the package's own scoring."""
    notes, records = gold(), []
    for row, answer in kept:
        for asked, scored in SCORED_OF.items():
            predicted = {name: [answer(d) for d in documents] for name, documents in notes.items()}
            for name, documents in predicted.items():
                write_documents(
                    folder, f"predictions/{row['label']}/{asked}/{name}.jsonl", documents
                )
            records += score_cohorts(
                {n: Cohort(notes[n], predicted[n], COVERS[n]) for n in notes},
                scheme=DEFAULT_SCHEME,
                method=row["label"],
                round=None,
                tasks=scored,
            )
    write_json(folder, "scores.json", [record.as_dict() for record in records])


def plain_run(folder, *, study=None):
    """The files that every run has, and no more."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"name": "toy <b>study</b>", "seed": 7, "sites": {}, **(study or {})}
    (folder / "study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    write_scores(folder, [m for m in methods() if m[0]["kind"] not in ("new-site", "adapted")])
    return folder


def full_run(folder, *, include_text=True):
    """A run with every file."""
    plain_run(folder, study={"report": {"include_text": include_text}} if include_text else None)
    write_scores(folder, methods())
    write_json(folder, "methods.json", [row for row, _ in methods()])
    write_json(folder, "versions.json", {"fedmedlora": "0.1.0"})
    examples = {"entities": 30, "entities_cut": 2, "relations": 12, "relations_cut": 0}
    write_json(
        folder,
        "data.json",
        {
            "sites": {
                name: {
                    "train": 20,
                    "validation": 2,
                    "covers": sorted(COVERS[name]),
                    "annotates": dict.fromkeys(sorted(COVERS[name]), "exhaustive")
                    | {"course": "partial"},
                    "training_examples": examples,
                }
                for name in SITES
            },
            "cohorts": {
                name: {"documents": len(notes), "covers": sorted(COVERS[name])}
                for name, notes in gold().items()
            },
        },
    )
    for name, documents in gold().items():
        write_documents(folder, f"gold/{name}.jsonl", documents)
    (folder / "rounds.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for label in (FED, HOSTILE) for r in rounds(label))
    )
    for label, more in (
        (FED, {}),
        (HOSTILE, {"peak_memory_mb": 512.0}),
        (
            "zero-shot",
            {
                "cost": {
                    "prompt_tokens": 1200,
                    "completion_tokens": 300,
                    "requests": 12,
                    "usd": 0.25,
                }
            },
        ),
    ):
        write_json(
            folder,
            f"answers/{label}/done.json",
            {
                "method": label,
                "seconds": 75.0,
                "backbone_parameters": 12_000_000,
                "adapter_parameters": 2_000_000,
                "rounds": rounds(label) if "fed" in label else [],
                **more,
            },
        )
    compared = [
        ("north", "north", FED, "single-site/north", 0.1, 0.02, 0.2),
        ("south", "south", FED, "single-site/south", -0.3, -0.4, -0.1),
        ("north", "north", "adapted/north", "single-site/north", 0.0, -0.1, 0.1),
        (None, "all", HOSTILE, "centralised", 0.0, -0.05, 0.05),
    ]
    write_json(
        folder,
        "comparisons.json",
        [
            {
                "question": "joining",
                "site": site,
                "cohort": cohort,
                "task": task,
                "matching": matching,
                "type": "micro",
                "first": first,
                "second": second,
                "f1": f1,
                "low": low,
                "high": high,
                "p": 0.1,
            }
            for site, cohort, first, second, f1, low, high in compared
            for task in ("entities", "relations")
            for matching in ("strict", "lenient")
        ],
    )
    write_json(
        folder,
        "validation_rounds.json",
        [
            {
                "method": FED,
                "round": n,
                "task": task,
                "matching": matching,
                "f1": 0.2 * n,
                "tp": n,
                "predicted": 5,
                "gold": 5,
            }
            for n in (1, 2, 3)
            for task in ("entities", "modifiers")
            for matching in ("strict", "lenient")
        ],
    )
    write_json(
        folder,
        "seeds.json",
        [
            {
                "method": FED,
                "cohort": "all",
                "task": "entities",
                "matching": matching,
                "type": "micro",
                "seeds": [1, 2],
                "f1": [0.51, 0.53],
                "mean": 0.52,
                "low": 0.48,
                "high": 0.56,
            }
            for matching in ("strict", "lenient")
        ],
    )
    for name in ("sites-1", "other"):
        plain_run(folder / "variants" / name)
    write_json(
        folder,
        "variants.json",
        [
            {"name": "sites-1", "kind": "scaling", "folder": "variants/sites-1", "sites": 1},
            {"name": "other", "kind": "variant", "folder": "variants/other"},
        ],
    )
    write_json(
        folder,
        "leakage.json",
        {
            "membership": [
                membership(site, against, score, auc)
                for site, against, score, auc in (
                    ("north", "held-out", "loss", 0.61),
                    ("north", "held-out", "calibrated", 0.58),
                    ("all", "held-out", "loss", 0.55),
                )
            ],
            "exposure": [
                {
                    "method": FED,
                    "kind": "inside",
                    "repetitions": times,
                    "canaries": 6,
                    "candidates": 1023,
                    "bits": bits,
                    "low": bits - 1,
                    "high": bits + 1,
                    "most": bits + 2,
                }
                for times, bits in ((1, 1.5), (16, 7.05))
            ],
            "words": [
                {
                    "method": FED,
                    "site": "north",
                    "round": 1,
                    "seen": seen,
                    "question": "whose",
                    "members": 40,
                    "others": 60,
                    "auc": auc,
                    "low": auc - 0.1,
                    "high": auc + 0.1,
                    "precision": 0.6,
                    "chance": 0.4,
                }
                for seen, auc in (("update", 0.8), ("sum", 0.5))
            ],
            "missing": ["south: no held-out note <b>"],
        },
    )
    return folder


def membership(site, against, score, auc):
    return {
        "method": FED,
        "site": site,
        "against": against,
        "unit": "patient",
        "members": 30,
        "others": 17,
        "score": score,
        "auc": auc,
        "low": auc - 0.1,
        "high": auc + 0.1,
        "tpr": 0.2,
        "tpr_low": 0.05,
        "tpr_high": 0.4,
    }
