"""Answers of an API model on disk: one line an answer, appended and synced as it comes.

What was paid for is kept whatever happens after it. A line that cannot be read (the last one of a
killed process, or a damaged one) is left where it is, and its question asked again. Prompts are not
kept, only their hashes; answers repeat the notes' text, so the file must be treated like notes.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from fedmedlora.errors import RunError
from fedmedlora.model.chat_settings import ChatSettings, Endpoint


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """One answer of a chat endpoint.

    Attributes:
        text: what the model wrote, byte for byte; "" if it refused.
        cut: whether it reached the token limit.
        refused: whether the model or a content filter would not answer.
        prompt_tokens: as the endpoint counted; None if it did not say.
        completion_tokens: likewise.
        model: the model that answered, as the endpoint named it; "" if it did not say.
    """

    text: str
    cut: bool
    refused: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str


_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "cut": (bool,),
    "refused": (bool,),
    "prompt_tokens": (int, type(None)),
    "completion_tokens": (int, type(None)),
    "model": (str,),
}


def cache_key(endpoint: Endpoint, settings: ChatSettings, prompt: str) -> str:
    """SHA-256 (hex) of all that an answer depends on: where, which model, how, and the prompt."""
    parts = [
        endpoint.identity,
        endpoint.model,
        None if settings.temperature is None else float(settings.temperature),
        settings.limit_field,
        settings.max_tokens,
        settings.seed,
        prompt,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class ChatCache:
    """The answers of one method, kept in one file; for one process, of any number of threads.

    Args:
        path: of the JSONL file; need not exist.

    Attributes:
        damaged: lines that could not be read.

    Raises:
        RunError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self._answers: dict[str, ChatAnswer] = {}
        self._lock = threading.Lock()
        try:
            content = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}") from error
        self._torn = content != b"" and not content.endswith(b"\n")
        for line in content.split(b"\n"):
            kept = _read_line(line)
            if kept is not None:
                self._answers[kept[0]] = kept[1]
            elif line:
                self.damaged += 1

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> ChatAnswer:
        return self._answers[key]

    def keep(self, key: str, answer: ChatAnswer) -> None:
        """Append an answer, and wait until the disk has it.

        Raises:
            RunError: the file cannot be written.
        """
        line = json.dumps({"key": key, **asdict(answer)}).encode() + b"\n"
        with self._lock:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as file:
                    file.write(b"\n" + line if self._torn else line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise RunError(f"{self.path}: cannot be written: {error.strerror}") from error
            self._torn = False
            self._answers[key] = answer


def _read_line(line: bytes) -> tuple[str, ChatAnswer] | None:
    """The key and the answer of a line, or None if it is not what ``keep`` writes."""
    try:
        record = json.loads(line)
        key = record.pop("key")
        values = {name: record.pop(name) for name in _TYPES}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    right = all(type(values[name]) in types for name, types in _TYPES.items())
    if not right or record or not isinstance(key, str):
        return None
    return key, ChatAnswer(**values)
