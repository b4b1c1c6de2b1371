"""An API model as an arm of a study: its answers about a cohort, bought once.

Nothing leaves before the study says so; see ``model.chat``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from fedmedlora.config_sections import ApiConfig
from fedmedlora.errors import ConfigError
from fedmedlora.model.chat import ChatCost, answer_by_api, refuse_egress
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
        ConfigError: the study does not let every cohort's notes leave, or names one that it does
            not have, or the environment names no endpoint.
    """
    study, allowed = arm.study, arm.study.api.allow_egress
    leaving = [*study.sites, *study.new_sites, *study.cohorts]
    if study.api.examples:  # worked examples come from the training notes, as they are shared
        leaving += study.site_names
    unknown = [] if isinstance(allowed, bool) else sorted({*allowed} - {*leaving})
    if unknown:
        raise ConfigError(
            f"api.allow_egress: {', '.join(unknown)} is no site or cohort whose notes would be "
            f"sent; these are {', '.join(dict.fromkeys(leaving))}"
        )
    refuse_egress(leaving, allowed, key="api.allow_egress")
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
    """Answers about one cohort; what they cost is noted by cohort and for all of them.

    Raises:
        EndpointError: it refuses or fails; what was answered is kept, and a later call goes on.
    """
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
    notes["cost"] = _add(notes.get("cost"), result.cost)
    return result.answers


def _add(before: dict[str, Any] | None, cost: ChatCost) -> dict[str, Any]:
    """What all cohorts so far took, whether they were asked now or in an earlier, interrupted run.

    ``requests`` are of this run alone: the cache does not know how often its answers were tried.
    An answer that two cohorts share is counted in both.
    """
    both = (cost.paid, cost.cached)
    usd = [part.usd for part in both]
    now: dict[str, Any] = {
        "answers": sum(part.answers for part in both),
        "requests": cost.requests,
        "prompt_tokens": sum(part.prompt for part in both),
        "completion_tokens": sum(part.completion for part in both),
        "unmetered": sum(part.unmetered for part in both),
        "usd": None if None in usd else sum(one or 0.0 for one in usd),
    }
    if before is None:
        return now
    return {
        name: None if value is None or before[name] is None else before[name] + value
        for name, value in now.items()
    }


def check_arms(arms: Sequence[Arm]) -> None:
    """``check_endpoint`` of every arm that has one."""
    for arm in arms:
        if arm.method == "api":
            check_endpoint(arm)
