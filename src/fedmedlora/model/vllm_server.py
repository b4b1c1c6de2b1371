"""Examples in, raw answers of a vLLM server that holds the adapter out: an optional backend.

vLLM runs in an environment of its own, with the adapter's folder as one of its LoRA modules; it is
spoken to by OpenAI's protocol for completions. The prompts are those of every local model. Answers
are written freely, not enforced: ``tasks.reading`` finds in them what can be grounded.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx

from fedmedlora.errors import ConfigError
from fedmedlora.model.chat_cache import ChatAnswer
from fedmedlora.model.chat_client import ChatClient, Stopped, read_count
from fedmedlora.model.chat_settings import ChatSettings, Endpoint, read_endpoint
from fedmedlora.tasks.example import Example

URL_VARIABLE, KEY_VARIABLE = "VLLM_BASE_URL", "VLLM_API_KEY"
HERE = "http://127.0.0.1:8000/v1"
_SPARE = 64  # tokens allowed to even the shortest source


def answer_by_vllm(
    examples: Sequence[Example],
    *,
    lora: str,
    allow_egress: bool = False,
    concurrency: int = 64,
    on_done: Callable[[int], None] | None = None,
    environ: Mapping[str, str] = os.environ,
    sleep: Callable[[float], object] | None = None,
) -> list[str]:
    """One raw answer for each example, in order, greedy.

    Args:
        examples: their prompts are sent.
        lora: the adapter's name at the server: NAME of its ``--lora-modules NAME=FOLDER``.
        allow_egress: the server may be another machine; the notes then leave this one.
        concurrency: requests under way at once; the server makes batches of them.
        on_done: told the number of examples answered so far.
        environ: ``VLLM_BASE_URL`` (by default this machine's port 8000), ``VLLM_API_KEY``.
        sleep: waits some seconds between tries.

    Raises:
        ConfigError: the server is elsewhere and notes may not leave, or its name is no URL.
        EndpointError: it has no such adapter, refuses, fails too often or answers something else.
    """
    settings = ChatSettings(
        model=lora, base_url_variable=URL_VARIABLE, key_variable=KEY_VARIABLE,
        allow_egress=allow_egress, concurrency=concurrency, timeout_seconds=600.0,
    )  # fmt: skip
    environ = {URL_VARIABLE: HERE, **{name: value for name, value in environ.items() if value}}
    endpoint = read_endpoint(settings, environ, path="/completions")
    here = _is_here(endpoint)
    if not allow_egress and not here:
        raise ConfigError(
            f"{endpoint.host} is not this machine: the notes would leave it; if that is permitted, "
            "give --allow-egress"
        )
    # A proxy would carry what is meant for this machine to another.
    client = CompletionClient(endpoint, settings, sleep=sleep, direct=here)
    try:
        client.check_served()
        return _ask_all(client, examples, concurrency, on_done)
    finally:
        client.close()


def _is_here(endpoint: Endpoint) -> bool:
    host = httpx.URL(endpoint.url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ask_all(
    client: CompletionClient,
    examples: Sequence[Example],
    concurrency: int,
    on_done: Callable[[int], None] | None,
) -> list[str]:
    answers = [""] * len(examples)

    def ask(example: Example) -> str:
        try:
            limit = _SPARE + 2 * len(example.source)
            return client.complete(example.prompt, limit=limit, example=example.id).text
        except Exception:
            client.stop()  # here, so that this thread does not take up the next one
            raise

    with ThreadPoolExecutor(max_workers=concurrency) as pool:
        places = {pool.submit(ask, example): place for place, example in enumerate(examples)}
        try:
            for done, future in enumerate(as_completed(places), start=1):
                try:
                    answers[places[future]] = future.result()
                except Stopped:
                    continue  # another one failed, and will say how
                if on_done is not None:
                    on_done(done)
        except BaseException:
            client.stop()
            pool.shutdown(cancel_futures=True)
            raise
    return answers


class CompletionClient(ChatClient):
    """Connections to one server, for any number of threads; see ``ChatClient``."""

    _ADVICE = "are prompt and answer longer than its --max-model-len?"

    def complete(self, prompt: str, *, limit: int, example: str) -> ChatAnswer:
        """What the model writes after a prompt, up to so many tokens; errors as of ``ask``."""
        request = {
            "model": self._endpoint.model,
            "prompt": prompt,
            "max_tokens": limit,
            "temperature": 0.0,
            "spaces_between_special_tokens": False,
        }
        return self._send(request, example)

    def check_served(self) -> None:
        """Check that the server has the adapter.

        Raises:
            EndpointError: it has not, or cannot be asked.
        """
        url = httpx.URL(self._endpoint.url)
        url = url.copy_with(path=url.path.removesuffix("/completions") + "/models")
        try:
            response = self._http.get(url)
        except httpx.RequestError as error:
            raise self._error(
                f"no answer ({type(error).__name__}): is the server running? It is started with "
                "`vllm serve BACKBONE --enable-lora --lora-modules NAME=FOLDER`, and "
                f"{URL_VARIABLE} says where"
            ) from None
        if response.status_code != 200:
            raise self._error(
                f"it does not tell its models ({response.status_code}): check {URL_VARIABLE} "
                f"and {KEY_VARIABLE}"
            )
        try:
            names = [str(model["id"]) for model in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            raise self._error(
                f"it does not speak OpenAI's protocol: check {URL_VARIABLE}"
            ) from None
        if self._endpoint.model not in names:
            raise self._error(
                f"it has no adapter {self._endpoint.model!r}, only {', '.join(names)}: start it "
                "with --enable-lora --lora-modules NAME=FOLDER, and give NAME with --lora"
            )

    def _read(self, content: bytes) -> ChatAnswer | None:
        try:
            body: Any = json.loads(content)
            choice = body["choices"][0]
            text = choice["text"].encode("utf-8", "replace").decode()
        except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError):
            return None
        usage = body.get("usage")
        counts = usage if isinstance(usage, dict) else {}
        return ChatAnswer(
            text,
            choice.get("finish_reason") == "length",
            False,
            read_count(counts.get("prompt_tokens")),
            read_count(counts.get("completion_tokens")),
            str(body.get("model", "")),
        )
