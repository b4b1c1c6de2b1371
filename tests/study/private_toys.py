"""A small private study of two synthetic sites."""

from pathlib import Path

import yaml

from fedmedlora.config import check_study

TEXT = """
name: private
methods: [ffa-lora]
sites:
  icu: {synthetic: {style: icu, train: 8, validation: 1, test: 1}}
  outpatient: {synthetic: {style: outpatient, train: 10, validation: 1, test: 1}}
task: {tasks: [entities], prompt: compact, window_words: 60}
training: {steps: 2, batch: 4, objective: decisions}
federation: {rounds: 2}
adapter: {rank: 2, alpha: 8}
decoding: {draft: 32}
privacy: {epsilon: 4, delta: 0.01, batch: 4, accountant: rdp, ledger: ledgers}
"""


def study_of(folder: Path, **changes):
    content = {**yaml.safe_load(TEXT), "root": str(folder)}
    study = check_study(content, source="study.yaml")
    return study.with_settings(
        {key.replace("__", "."): value for key, value in changes.items()}, where="test"
    )
