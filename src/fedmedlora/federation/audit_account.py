"""An audit log for somebody who asks what left: entries in, plain sentences and rows out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fedmedlora.federation.audit_check import Checked

HEADERS = ("time (UTC)", "what", "run", "site", "bytes", "sha256", "numbers")
_SHOWN_HASH = 16


def sentences(checked: Checked) -> list[str]:
    """What a log says, in plain words."""
    entries = checked.entries
    if not entries:
        return ["The log has no entry.", *_faults(checked)]
    first, last = (_clean(entry.get("time", "?"))[:19] for entry in (entries[0], entries[-1]))
    lines = [
        f"Log {checked.log} of the {_clean(checked.role)} {_clean(checked.owner)}: "
        f"{len(entries)} entries, {first} to {last} (UTC)."
    ]
    for kind, word in (("sent", "Sent"), ("received", "Received")):
        chosen = [entry for entry in entries if entry.get("kind") == kind]
        kinds = Counter(_content(entry) for entry in chosen)
        told = ", ".join(f"{count} x {name}" for name, count in kinds.items()) or "nothing"
        size = sum(_whole(entry.get("bytes")) for entry in chosen)
        lines.append(f"{word}: {told}; {size:,} bytes.")
    unfinished = sum(entry.get("kind") == "completed" for entry in entries)
    if unfinished:
        lines.append(
            f"Entries that a killed process left unfinished, and the next completed: {unfinished}."
        )
    whole = "Every entry follows from the one before it, and the last is the head's."
    return [*lines, *(_faults(checked) or [whole])]


def _faults(checked: Checked) -> list[str]:
    if not checked.faults:
        return []
    told = [f"- {_clean(fault, most=200)}" for fault in checked.faults]
    return ["THE LOG IS NOT AS IT WAS WRITTEN:", *told]


def rows(checked: Checked) -> list[tuple[str, ...]]:
    """A row of ``HEADERS`` for each entry."""
    return [
        (
            _clean(entry.get("time", "?"))[:19],
            f"{_clean(entry.get('kind', '?'))} {_content(entry)}".strip(),
            _run(entry),
            _clean(entry.get("site", "")),
            f"{_whole(entry.get('bytes')):,}" if "bytes" in entry else "",
            _clean(entry.get("sha256", ""))[:_SHOWN_HASH],
            _numbers(entry),
        )
        for entry in checked.entries
    ]


def _content(entry: Mapping[str, Any]) -> str:
    """What a message held, as far as the log knows."""
    said = _mapping(entry, "said")
    phase = _clean(entry.get("phase", ""))
    status = _mapping(said, "config").get("status", entry.get("status", "ok"))
    if status != "ok":
        return (
            f"{phase}: {_clean(status)} {_clean(_mapping(said, 'config').get('code', ''))}".strip()
        )
    arrays = _mapping(said, "arrays") or _mapping(entry, "arrays")
    holds = ["adapter"] if arrays else []
    holds += [_clean(name) for name in _mapping(said, "numbers")]
    return f"{phase}: {', '.join(holds)}" if holds else phase


def _run(entry: Mapping[str, Any]) -> str:
    if "run" not in entry:
        return ""
    number = entry.get("round")
    return _clean(entry["run"]) + (f", round {_whole(number)}" if number else "")


def _numbers(entry: Mapping[str, Any]) -> str:
    told = []
    for record in _mapping(_mapping(entry, "said"), "numbers").values():
        if isinstance(record, Mapping):
            told += [f"{_clean(name)}={_clean(value)}" for name, value in record.items()]
    return " ".join(told) or _clean(entry.get("reason") or "", most=80)


def _mapping(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = entry.get(key)
    return value if isinstance(value, Mapping) else {}


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _clean(value: object, *, most: int = 60) -> str:
    """What may come from a log that somebody changed, fit for a terminal."""
    return re.sub(r"[^ -~]", "?", str(value))[:most]
