"""Flower's SuperNode, that ends when any part of it does: ``python -m`` with its arguments.

Its own program may live on without its connection (the thread of its HTTP server keeps it) or
without its heartbeat; whoever looks after the process could not see it.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from typing import NoReturn


def main() -> NoReturn:
    """Run it with the arguments of this process until it ends; never returns."""
    from fedmedlora.federation.offline import OFFLINE

    os.environ.update(OFFLINE)
    from flwr.supernode.cli import flower_supernode

    def part_ended(told: threading.ExceptHookArgs) -> None:
        traceback.print_exception(told.exc_type, told.exc_value, told.exc_traceback)
        _leave(1)

    threading.excepthook = part_ended
    code = 1
    try:
        flower_supernode()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    _leave(code)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
