"""How an API model is asked: settings and the environment in, a checked endpoint out.

Nothing is sent here. The key is read from the environment alone, and stands in no message.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import httpx

from fedmedlora.errors import ConfigError

LIMITS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """What is asked of a chat endpoint that speaks OpenAI's protocol, and how patiently.

    Attributes:
        model: the model's name at the endpoint; "" takes it from ``model_variable``.
        model_variable: environment variable of the model's name.
        base_url_variable: environment variable of the base URL, as
            ``https://api.openai.com/v1``; ``/chat/completions`` is added to its path.
        key_variable: environment variable of the key; where it is not set, none is sent.
        allow_egress: whether notes may be sent: True, False, or the names of the cohorts (and
            sites) whose notes may. A server on this very machine needs it as well.
        temperature: None sends none, for models that refuse it.
        max_tokens: an answer is cut at this many tokens; at least 1.
        limit_field: the name that the endpoint has for this limit, one of ``LIMITS``.
        seed: sent along if given; most endpoints promise little for it.
        concurrency: requests under way at once; at least 1.
        timeout_seconds: of silence, until a request counts as failed; above 0.
        retries: of each request, after 408, 429, 5xx, silence or a broken connection; 0 or more.
        usd_per_million_prompt: price of a million prompt tokens, if costs shall be told.
        usd_per_million_completion: of a million tokens of answers; both prices or none.

    Raises:
        ConfigError: a value outside these.
    """

    model: str = ""
    model_variable: str = "OPENAI_MODEL"
    base_url_variable: str = "OPENAI_BASE_URL"
    key_variable: str = "OPENAI_API_KEY"
    allow_egress: bool | tuple[str, ...] = False
    temperature: float | None = 0.0
    max_tokens: int = 1024
    limit_field: str = "max_tokens"
    seed: int | None = None
    concurrency: int = 4
    timeout_seconds: float = 120.0
    retries: int = 6
    usd_per_million_prompt: float | None = None
    usd_per_million_completion: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 1), ("concurrency", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: {getattr(self, name)!r} must be at least {least}")
        if not 0 < self.timeout_seconds < float("inf"):
            raise ConfigError(f"timeout_seconds: {self.timeout_seconds!r} must be above 0")
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise ConfigError(f"temperature: {self.temperature!r} is not between 0 and 2")
        if self.limit_field not in LIMITS:
            raise ConfigError(
                f"limit_field: {self.limit_field!r} is not one of {', '.join(LIMITS)}"
            )
        prices = (self.usd_per_million_prompt, self.usd_per_million_completion)
        if (prices[0] is None) != (prices[1] is None):
            raise ConfigError(
                "usd_per_million_prompt and usd_per_million_completion: give both prices or none"
            )
        if any(price is not None and not 0 <= price < float("inf") for price in prices):
            raise ConfigError(f"usd_per_million_...: {prices!r} must not be negative")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go.

    Attributes:
        url: where they are posted; may hold a query, so it is never shown.
        host: host and port, for messages.
        identity: host, port and path, without a query: what answers are kept under.
        model: the model's name there.
        key: sent as a bearer token; "" sends none.
    """

    url: str = field(repr=False)
    host: str
    identity: str
    model: str
    key: str = field(repr=False)


def read_endpoint(
    settings: ChatSettings,
    environ: Mapping[str, str] = os.environ,
    *,
    path: str = "/chat/completions",
) -> Endpoint:
    """The endpoint that ``settings`` and the environment name.

    Args:
        settings: with the variables' names.
        environ: the environment.
        path: added to that of the base URL.

    Raises:
        ConfigError: a variable is not set or is no URL, model or key; its value is not shown.
    """
    variable = settings.base_url_variable
    written = environ.get(variable, "").strip()
    if not written:
        raise ConfigError(
            f"the environment variable {variable} is not set: give the base URL of the endpoint, "
            "as https://api.openai.com/v1"
        )
    try:
        base = httpx.URL(written)
    except httpx.InvalidURL:
        raise ConfigError(f"the environment variable {variable} is not a URL") from None
    if base.scheme not in ("http", "https") or not base.host:
        raise ConfigError(
            f"the environment variable {variable} must begin with https:// or http://"
        )
    if base.userinfo:
        raise ConfigError(
            f"the environment variable {variable} holds a user name or password: take it out, and "
            f"put the key into {settings.key_variable}"
        )
    model = settings.model or environ.get(settings.model_variable, "").strip()
    if not model:
        raise ConfigError(
            f"no model is named: set model, or the environment variable {settings.model_variable}"
        )
    key = environ.get(settings.key_variable, "").strip()
    # The HTTP library would show the key when it refuses such a header.
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"the environment variable {settings.key_variable} holds characters that no key has"
        )
    path = base.path.rstrip("/") + path
    host = base.host if base.port is None else f"{base.host}:{base.port}"
    return Endpoint(str(base.copy_with(path=path)), host, f"{host}{path}", model, key)


def refuse_egress(
    cohorts: Collection[str], allowed: bool | str | Collection[str], *, key: str = "allow_egress"
) -> None:
    """Refuse to send notes of ``cohorts`` to an API unless the study allows it in so many words.

    A server on this machine is no exception: what it does with notes is not known here.

    Args:
        cohorts: names of the cohorts asked about, and of the sites that demonstrations come from.
        allowed: True allows all, a name or a collection of names these.
        key: of the study file, for the message.

    Raises:
        ConfigError: naming the cohorts whose notes would leave, and what to write.
    """
    if allowed is True:
        return
    named = () if allowed is False else (allowed,) if isinstance(allowed, str) else allowed
    leaving = [name for name in dict.fromkeys(cohorts) if name not in named]
    if leaving:
        names = ", ".join(leaving)
        raise ConfigError(
            f"the notes of {names} would be sent to an API: if that is permitted, write "
            f"`{key}: true` into the study file, or `{key}: [{names}]` for these alone"
        )
