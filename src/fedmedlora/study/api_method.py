"""An API model as an arm of a study: its answers about a cohort, bought once.

Nothing leaves before the study says so; see ``model.chat``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from fedmedlora.config_sections import ApiConfig
from fedmedlora.model.chat import answer_by_api, refuse_egress
from fedmedlora.model.chat_settings import ChatSettings, read_endpoint
from fedmedlora.study.arms import Arm
from fedmedlora.study.data import CohortData
from fedmedlora.study.few_shot_method import training_notes
from fedmedlora.study.methods import MethodRunner
from fedmedlora.study.run_folder import RunFolder
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.few_shot import draw_demonstrations, show_demonstrations


def check_endpoint(arm: Arm) -> None:
    """Refuse an API arm that may not send, or could not, before anything is trained.

    Raises:
        ConfigError: the study does not let every cohort's notes leave, or the environment names no
            endpoint.
    """
    leaving = [*arm.study.sites, *arm.study.new_sites, *arm.study.cohorts]
    refuse_egress(leaving, arm.study.api.allow_egress, key="api.allow_egress")
    read_endpoint(chat_settings(arm.study.api))


def chat_settings(api: ApiConfig) -> ChatSettings:
    """The study's section as the endpoint's client takes it."""
    return ChatSettings(**api.model_dump(exclude={"examples"}))


def answer_by_endpoint(
    runner: MethodRunner,
    arm: Arm,
    cohort: CohortData,
    examples: Sequence[Example],
    *,
    folder: RunFolder,
    notes: dict[str, Any],
    on_done: Callable[[int], None],
) -> list[str]:
    """Answers about one cohort; costs are added up in ``notes``."""
    api = arm.study.api
    leaving = {cohort.name}
    if api.examples:
        bench = runner.lora
        drawn = draw_demonstrations(
            examples,
            training_notes(runner),
            k=api.examples,
            scheme=bench.scheme,
            settings=bench.settings,
            seed=arm.study.seed,
        )
        leaving |= {one.site for shown in drawn.values() for one in shown}
        examples = show_demonstrations(examples, drawn)
    result = answer_by_api(
        examples,
        chat_settings(api),
        cohorts=sorted(leaving),
        cache=folder.path / "answers" / arm.label / "api-cache.jsonl",
        on_done=on_done,
    )
    notes.setdefault("costs", {})[cohort.name] = asdict(result.cost)
    return result.answers


def check_arms(arms: Sequence[Arm]) -> None:
    """``check_endpoint`` of every arm that has one."""
    for arm in arms:
        if arm.method == "api":
            check_endpoint(arm)
