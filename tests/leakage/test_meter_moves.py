"""A meter that never moves proves nothing: an adapter that knows its notes by heart is seen."""

import pytest

from fedmedlora.config import load_study
from fedmedlora.leakage import exposure
from fedmedlora.leakage.meter import measure_leakage
from fedmedlora.study.run import run_study

TEXT = """
name: by-heart
methods: [single-site]
sites:
  icu: {synthetic: {style: icu, train: 20, validation: 1, test: 1}}
task: {heads: numbered, prompt: compact, window_words: 12}
training: {steps: 150, batch: 8, learning_rate: 2.2e-3, objective: decisions}
federation: {rounds: 1}
leakage: {canaries: 1, repetitions: [6], withhold: 6}
"""


@pytest.mark.slow
def test_what_was_learnt_by_heart_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(exposure, "CANDIDATES", 255)
    (tmp_path / "study.yaml").write_text(TEXT, encoding="utf-8")
    run_study(load_study(tmp_path / "study.yaml"), tmp_path / "run")
    found = measure_leakage(tmp_path / "run")
    aucs = {one.score: one.auc for one in found.membership}
    assert aucs["loss"] > 0.9
    assert aucs["calibrated"] > 0.8
    bits = {one.kind: one.bits for one in found.exposure}
    assert bits["inside"] > 4  # of 8; chance is 1.4
