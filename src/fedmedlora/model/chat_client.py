"""One prompt in, one answer of a chat endpoint out: requests, waiting and trying again.

No message holds a body, a prompt, the key or the URL's query: host, status and counts only.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from fedmedlora.errors import ConfigError, EndpointError
from fedmedlora.model.chat_cache import ChatAnswer
from fedmedlora.model.chat_settings import ChatSettings, Endpoint

_RETRIED = (408, 429)  # and all from 500 on
_LONGEST_BACKOFF = 60.0
#: Told to wait longer than this, a run had better end and be resumed: seconds.
_LONGEST_WAIT = 300.0
#: Codes of OpenAI's error bodies that say more than the status. Nothing else of a body is read.
_CODES = {
    "insufficient_quota": "the account's quota is used up: add credit",
    "context_length_exceeded": "the prompt and max_tokens are too long for the model: take fewer "
    "demonstrations, shorter windows or a smaller max_tokens",
    "unsupported_parameter": "it does not take one of temperature, seed and the token limit: "
    "change temperature, seed or limit_field",
    "unsupported_value": "it does not take the value of temperature, seed or the token limit",
}
_FILTERED = "content_filter"


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A failure that may pass: what happened, what to do if it stays, and the wait asked for."""

    what: str
    advice: str
    wait: float = 0.0


class Stopped(Exception):
    """The client was told to stop before this prompt was answered."""


class ChatClient:
    """Connections to one endpoint, for any number of threads.

    Args:
        endpoint: where to.
        settings: how.
        sleep: waits some seconds; by default until then or until ``stop``.
        direct: past any proxy that the environment names.

    Attributes:
        requests: sent so far, tries again included.
        retries: of them, tries again.

    Raises:
        ConfigError: the environment's proxy or certificate settings cannot be used.
    """

    _ADVICE = "check model, max_tokens, limit_field, temperature and seed"

    def __init__(
        self,
        endpoint: Endpoint,
        settings: ChatSettings,
        *,
        sleep: Callable[[float], object] | None = None,
        direct: bool = False,
    ) -> None:
        self.requests = self.retries = 0
        self._endpoint, self._settings = endpoint, settings
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait
        self._lock = threading.Lock()
        headers = {"Content-Type": "application/json"}
        if endpoint.key:
            headers["Authorization"] = f"Bearer {endpoint.key}"
        try:
            self._http = httpx.Client(
                headers=headers,
                timeout=settings.timeout_seconds,
                limits=httpx.Limits(max_connections=settings.concurrency),
                # A redirect would carry notes to a host that nobody named.
                follow_redirects=False,
                trust_env=not direct,
            )
        except (httpx.InvalidURL, ValueError, ImportError, OSError):
            raise ConfigError(
                "the HTTP client cannot be set up with the environment's proxy or certificate "
                "settings: check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
            ) from None

    def stop(self) -> None:
        """Let no request begin any more; those under way end."""
        self._stopped.set()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, prompt: str, *, example: str) -> ChatAnswer:
        """The model's answer to ``prompt`` as the one message of a user.

        Args:
            prompt: sent as it is.
            example: id of the example, for messages.

        Raises:
            EndpointError: it refuses, answers something else, or fails more often than allowed.
            Stopped: ``stop`` was called.
        """
        return self._send(self._request(prompt), example)

    def _send(self, request: Mapping[str, Any], example: str) -> ChatAnswer:
        body = json.dumps(request).encode()
        tries = 0
        while True:
            if self._stopped.is_set():
                raise Stopped
            with self._lock:
                self.requests += 1
                self.retries += tries > 0
            tries += 1
            outcome = self._try(body, example)
            if isinstance(outcome, ChatAnswer):
                return outcome
            if outcome.wait > _LONGEST_WAIT:
                raise self._error(f"{outcome.what}, and asks to wait {outcome.wait:.0f} s")
            if tries > self._settings.retries:
                times = f"{tries} times in a row" if tries > 1 else "and retries is 0"
                raise self._error(f"{outcome.what}, {times}: {outcome.advice}")
            backoff = min(2.0 ** (tries - 1), _LONGEST_BACKOFF) * random.uniform(0.5, 1)
            self._sleep(max(backoff, outcome.wait))

    def _request(self, prompt: str) -> dict[str, Any]:
        settings = self._settings
        request: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": [{"role": "user", "content": prompt}],
            settings.limit_field: settings.max_tokens,
        }
        if settings.temperature is not None:
            request["temperature"] = settings.temperature
        if settings.seed is not None:
            request["seed"] = settings.seed
        return request

    def _try(self, body: bytes, example: str) -> ChatAnswer | _Trouble:
        try:
            response = self._http.post(self._endpoint.url, content=body)
        except httpx.TimeoutException:
            silence = f"{self._settings.timeout_seconds:g} s"
            return _Trouble(f"no answer within {silence}", "raise timeout_seconds, or try later")
        except httpx.ConnectError as error:
            if "CERTIFICATE" in str(error):
                raise self._error(
                    "its certificate is not trusted: name your authority's file in SSL_CERT_FILE"
                ) from None
            variable = self._settings.base_url_variable
            return _Trouble("no connection", f"check {variable}, the network and the proxy")
        except httpx.RequestError as error:
            return _Trouble(f"the connection broke ({type(error).__name__})", "try again later")
        status = response.status_code
        if status in _RETRIED or status >= 500:
            return self._trouble(response)
        if status != 200:
            return self._refusal(response, example)
        return self._answer(response)

    def _trouble(self, response: httpx.Response) -> _Trouble:
        status = response.status_code
        code = _code(response)
        if code == "insufficient_quota":
            raise self._error(f"it refuses ({status}): {_CODES[code]}")
        wait = _seconds(response.headers.get("retry-after", ""))
        if status == 429:
            return _Trouble("too many requests (429)", "lower concurrency, or try later", wait)
        return _Trouble(f"it fails ({status})", "try again later", wait)

    def _refusal(self, response: httpx.Response, example: str) -> ChatAnswer:
        status, code = response.status_code, _code(response)
        if code == _FILTERED:
            return ChatAnswer("", False, True, None, None, "")
        settings, model = self._settings, self._endpoint.model
        if code is not None:
            raise self._error(f"it refuses example {example!r} ({status}): {_CODES[code]}")
        if status == 401:
            raise self._error(
                f"the key is refused (401): set {settings.key_variable} to a valid one"
            )
        if status == 403:
            raise self._error(
                f"access is forbidden (403): the key of {settings.key_variable} may not use the "
                f"model {model!r}, or not from here"
            )
        if status == 404:
            raise self._error(
                f"not found (404): there is no model {model!r}, or {settings.base_url_variable} "
                "is not its base URL (most end in /v1)"
            )
        if 300 <= status < 400:
            raise self._error(
                f"it redirects elsewhere ({status}), which is not followed: set "
                f"{settings.base_url_variable} to where it leads"
            )
        raise self._error(f"it refuses example {example!r} ({status}): {self._ADVICE}")

    def _answer(self, response: httpx.Response) -> ChatAnswer:
        content = response.content.strip()
        variable = self._settings.base_url_variable
        if not content:
            raise self._error(f"the answer is empty (200): check {variable} and the proxy")
        if content.startswith(b"<"):
            raise self._error(
                f"the answer is a web page, not JSON: check {variable} (most end in /v1) and "
                "the proxy"
            )
        answer = self._read(content)
        if answer is None:
            raise self._error(
                f"the answer is not a completion: check that {variable} speaks OpenAI's protocol"
            )
        return answer

    def _read(self, content: bytes) -> ChatAnswer | None:
        """The answer that a body holds, or None if it holds none."""
        return _read(content)

    def _error(self, message: str) -> EndpointError:
        return EndpointError(f"{self._endpoint.host}: {message}")


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _code(response: httpx.Response) -> str | None:
    """The error's code, if it is one that means something here."""
    body = _json(response.content)
    error = body.get("error") if isinstance(body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) and (code in _CODES or code == _FILTERED) else None


def _read(content: bytes) -> ChatAnswer | None:
    """The first choice of a chat completion, or None if it is none."""
    body = _json(content)
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or not isinstance(message := choice.get("message"), dict):
        return None
    reason = choice.get("finish_reason")
    text = message.get("content")
    cut = reason == "length"
    refused = reason == _FILTERED or isinstance(message.get("refusal"), str)
    if text is None and (cut or refused):
        text = ""
    if not isinstance(text, str):
        return None
    usage = body.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    model = body.get("model")
    return ChatAnswer(
        # JSON can hold half of a surrogate pair, files cannot.
        text.encode("utf-8", "replace").decode(),
        cut,
        refused,
        read_count(counts.get("prompt_tokens")),
        read_count(counts.get("completion_tokens")),
        model if isinstance(model, str) else "",
    )


def read_count(value: object) -> int | None:
    """A whole number that is not negative, or None."""
    return value if type(value) is int and value >= 0 else None


def _seconds(header: str) -> float:
    """What a Retry-After header asks to wait: seconds, or until a date; 0 if it says neither."""
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
