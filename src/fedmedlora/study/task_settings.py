"""How a study's models are asked: its task section in, the tasks' settings out; no torch here.

Answers can only be read again by asking what was asked.
"""

from __future__ import annotations

from fedmedlora.config import Study
from fedmedlora.model.tagging import tagger_tasks
from fedmedlora.tasks.settings import TaskSettings


def task_settings(study: Study) -> TaskSettings:
    """The study's task section as the tasks take it."""
    return TaskSettings(**study.task.model_dump())


def tagger_task_settings(study: Study) -> TaskSettings:
    """How documents become a tagger's examples."""
    return tagger_tasks(study.encoder.window_words, study.task.tasks)
