"""An answer of a chat model in, the same without the code fence around it out."""

from __future__ import annotations

import re

from fedmedlora.tasks.markup import TAG

_FENCE = re.compile(r"^[ \t]*```[\w+-]*[ \t]*\r?$", re.MULTILINE)


def strip_fence(answer: str, *, source: str) -> str:
    """What stands inside the one code fence of ``answer``; ``answer`` where that is not clear.

    A fence is two lines of three backticks, or one at the very beginning of an answer that was cut.
    What stands around it is a preamble, and goes; unless a span tag stands there, or the note
    (``source``) has such a line itself. Everything else is left to reading, which takes over only
    what copies the source.
    """
    lines = list(_FENCE.finditer(answer))
    cut = len(lines) == 1 and not answer[: lines[0].start()].strip()
    if not (cut or len(lines) == 2) or _FENCE.search(source):
        return answer
    end = len(answer) if cut else lines[1].start()
    around = answer[: lines[0].start()] + answer[end:]
    if TAG.search(around):
        return answer
    return answer[lines[0].end() : end].removeprefix("\n").removesuffix("\n")
