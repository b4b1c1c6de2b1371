"""Examples in, raw answers of an API model out, and what they cost.

For the comparison with a commercial model (GPT-4o in arXiv 2601.22124). The prompts are those of
the local models, and the answers are read by ``tasks.reading`` like theirs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from fedmedlora.errors import EndpointError
from fedmedlora.model.chat_cache import ChatAnswer, ChatCache, cache_key
from fedmedlora.model.chat_client import ChatClient, Stopped
from fedmedlora.model.chat_settings import ChatSettings, read_endpoint, refuse_egress
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.fence import strip_fence

__all__ = ["ChatCost", "ChatResult", "ChatSettings", "Tokens", "answer_by_api", "refuse_egress"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What some answers took, as the endpoint counted.

    Attributes:
        answers: how many; a prompt that several examples share is answered once.
        prompt: tokens of their prompts.
        completion: tokens of the answers.
        unmetered: of the answers, those whose tokens the endpoint did not tell.
        usd: price of these tokens in US dollars; None without prices.
    """

    answers: int = 0
    prompt: int = 0
    completion: int = 0
    unmetered: int = 0
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class ChatCost:
    """What a call did and took.

    Attributes:
        paid: answers that this call asked for.
        cached: answers that were there before, with what they took then.
        requests: sent by this call, tries again included.
        retries: of them, tries again.
        cut: answers that reached ``max_tokens``; what is there of them is used.
        refused: answers that the model or a content filter would not give; they are empty.
        damaged: lines of the cache that could not be read, and whose prompts were asked again.
        models: what answered, as the endpoint named it, sorted.
    """

    paid: Tokens
    cached: Tokens
    requests: int
    retries: int
    cut: int
    refused: int
    damaged: int
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChatResult:
    """Answers in the order of the examples, without code fences around them; and their cost."""

    answers: list[str]
    cost: ChatCost


def answer_by_api(
    examples: Sequence[Example],
    settings: ChatSettings,
    *,
    cohorts: Collection[str],
    cache: Path,
    on_done: Callable[[int], None] | None = None,
    environ: Mapping[str, str] = os.environ,
    sleep: Callable[[float], object] | None = None,
) -> ChatResult:
    """Ask a chat endpoint for the answers to ``examples`` that ``cache`` does not have.

    An interrupt or an error waits for the requests under way, whose answers are kept like all: the
    same call goes on from there.

    Args:
        examples: their prompts are sent.
        settings: endpoint, model and permission.
        cohorts: names of all cohorts and sites whose notes stand in the prompts; not empty.
        cache: JSONL file of the answers; holds note text. One process at a time.
        on_done: told the number of examples answered so far.
        environ: where base URL, model and key are read.
        sleep: waits some seconds between tries.

    Raises:
        ConfigError: the endpoint is not named, or notes would leave without permission.
        EndpointError: the endpoint refuses, fails too often or answers something else.
        RunError: the cache cannot be read or written.
        ValueError: ``cohorts`` is empty.
    """
    if not cohorts:
        raise ValueError("cohorts: name those whose notes stand in the prompts")
    refuse_egress(cohorts, settings.allow_egress)
    endpoint = read_endpoint(settings, environ)
    store = ChatCache(cache)
    keys = [cache_key(endpoint, settings, example.prompt) for example in examples]
    distinct = dict.fromkeys(keys)
    before = [store[key] for key in distinct if key in store]
    missing: dict[str, list[Example]] = {}
    for key, example in zip(keys, examples, strict=True):
        if key not in store:
            missing.setdefault(key, []).append(example)
    client = ChatClient(endpoint, settings, sleep=sleep)
    try:
        _ask_missing(client, store, missing, settings.concurrency, len(examples), on_done)
    except EndpointError as error:
        there = sum(key in store for key in keys)
        raise EndpointError(
            f"{error}; {there} of {len(keys)} answers are kept in {cache} and are not asked for "
            "again"
        ) from None
    finally:
        client.close()
    answers = [store[key] for key in distinct]
    cost = ChatCost(
        paid=_tokens([store[key] for key in missing], settings),
        cached=_tokens(before, settings),
        requests=client.requests,
        retries=client.retries,
        cut=sum(answer.cut for answer in answers),
        refused=sum(answer.refused for answer in answers),
        damaged=store.damaged,
        models=tuple(sorted({answer.model for answer in answers if answer.model})),
    )
    texts = [
        strip_fence(store[key].text, source=example.source)
        for key, example in zip(keys, examples, strict=True)
    ]
    return ChatResult(texts, cost)


def _ask_missing(
    client: ChatClient,
    store: ChatCache,
    missing: Mapping[str, Sequence[Example]],
    concurrency: int,
    total: int,
    on_done: Callable[[int], None] | None,
) -> None:
    """Fill ``store``; ``missing`` has the examples of each key that it lacks."""
    done = total - sum(len(examples) for examples in missing.values())

    def tell() -> None:
        if on_done is not None:
            on_done(done)

    def ask(key: str, example: Example) -> None:
        try:
            store.keep(key, client.ask(example.prompt, example=example.id))
        except Exception:
            client.stop()  # here, so that this thread does not take up the next one
            raise

    if done or not missing:
        tell()
    with ThreadPoolExecutor(max_workers=concurrency) as pool:
        futures = {pool.submit(ask, key, asked[0]): key for key, asked in missing.items()}
        try:
            for future in as_completed(futures):
                try:
                    future.result()
                except Stopped:
                    continue  # another one failed, and will say how
                done += len(missing[futures[future]])
                tell()
        except BaseException:
            client.stop()
            pool.shutdown(cancel_futures=True)
            raise


def _tokens(answers: Sequence[ChatAnswer], settings: ChatSettings) -> Tokens:
    prompt = sum(answer.prompt_tokens or 0 for answer in answers)
    completion = sum(answer.completion_tokens or 0 for answer in answers)
    unmetered = sum(
        answer.prompt_tokens is None or answer.completion_tokens is None for answer in answers
    )
    prices = settings.usd_per_million_prompt, settings.usd_per_million_completion
    usd = None
    if prices[0] is not None and prices[1] is not None:
        usd = (prompt * prices[0] + completion * prices[1]) / 1e6
    return Tokens(len(answers), prompt, completion, unmetered, usd)
