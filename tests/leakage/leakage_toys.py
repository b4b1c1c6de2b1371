"""A study that trains in seconds."""

from fedmedlora.config import load_study

TEXT = """
name: leaky
methods: [dictionary, single-site, fed-medlora]
sites:
  icu: {synthetic: {style: icu, train: 10, validation: 1, test: 1}}
  outpatient: {synthetic: {style: outpatient, train: 6, validation: 1, test: 2}}
task: {heads: numbered, prompt: compact, window_words: 30}
training: {steps: 2, batch: 2, learning_rate: 1.0e-3, objective: decisions}
federation: {rounds: 2, keep_replies: true}
"""


def study_of(folder, *settings):
    """The study with settings of its own."""
    file = folder / "study.yaml"
    file.write_text(TEXT, encoding="utf-8")
    return load_study(file, settings)
