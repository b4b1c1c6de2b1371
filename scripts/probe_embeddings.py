"""What a backbone's token embeddings know of medicine: a linear probe of names' types.

    python scripts/probe_embeddings.py BACKBONE_FOLDER ...

Five-fold accuracy of ridge regression from the mean, first and last embedding of a name's tokens to
its type. The names are those of the synthetic sites' training notes, never the held-out ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedmedlora.corpus.synthetic.labs import LABS
from fedmedlora.corpus.synthetic.lexicon import DRUGS, PROBLEMS, STUDIES, TREATMENTS, Names
from fedmedlora.progress import quiet_libraries

_FOLDS = 5
_STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)


def _names() -> list[tuple[str, str]]:
    tables: dict[str, Mapping[str, Names]] = {
        "problem": PROBLEMS,
        "treatment": TREATMENTS,
        "test": STUDIES,
        "drug": DRUGS,
    }
    found = {(n, kind) for kind, t in tables.items() for names in t.values() for n in names.seen}
    return sorted(found | {(lab.name, "test") for labs in LABS.values() for lab in labs.seen})


def _accuracy(features: NDArray[np.float64], kinds: NDArray[np.int64]) -> float:
    """Of the best strength of the ridge, over all folds."""
    fold = np.random.default_rng(0).permutation(len(kinds)) % _FOLDS
    features = np.column_stack([features, np.ones(len(features))])
    targets = np.eye(int(kinds.max()) + 1)[kinds]
    right = []
    for strength in _STRENGTHS:
        hits = 0
        for number in range(_FOLDS):
            train, test = features[fold != number], features[fold == number]
            gram = train.T @ train + strength * np.eye(features.shape[1])
            weights = np.linalg.solve(gram, train.T @ targets[fold != number])
            hits += int(((test @ weights).argmax(1) == kinds[fold == number]).sum())
        right.append(hits / len(kinds))
    return max(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbones", nargs="+", type=Path)
    arguments = parser.parse_args()
    quiet_libraries()
    names = _names()
    order = sorted({kind for _, kind in names})
    kinds = np.array([order.index(kind) for _, kind in names])
    for folder in arguments.backbones:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
        table = model.get_input_embeddings().weight.detach().float().numpy().astype(float)
        table /= np.linalg.norm(table, axis=1, keepdims=True) + 1e-9
        rows = [table[tokenizer(name, add_special_tokens=False)["input_ids"]] for name, _ in names]
        features = np.stack([np.concatenate([r.mean(0), r[0], r[-1]]) for r in rows])
        drawn = np.random.default_rng(1).standard_normal(features.shape)
        print(
            f"{folder}: {_accuracy(features, kinds):.2f} of {len(names)} names; "
            f"noise {_accuracy(drawn, kinds):.2f}"
        )


if __name__ == "__main__":
    main()
