"""What a site found on its way to its coordinator in; what that means and what to do out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fedmedlora.federation.deployment.reaching import REFUSED_SKEW_S, Reached

_FINE_SKEW_S = 60.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: it is.
        state: ok; wrong (the site cannot take part); unsure (it may not go well).
        found: what was found.
        advice: what to do; "" if all is well.
    """

    what: str
    state: Literal["ok", "wrong", "unsure"]
    found: str
    advice: str = ""


def connection_checks(found: Reached, where: str) -> list[Check]:
    """What a site's way to its coordinator is like.

    Args:
        found: by trying it.
        where: host:port of the coordinator.
    """
    return list(_connection(found, where))


def _connection(found: Reached, where: str) -> Iterator[Check]:
    if found.refused:
        advice = (
            "right before the coordinator has started; else is the port right, and does a "
            "firewall refuse it?"
        )
        yield Check("connection", "unsure", f"{where}: {found.fault}", advice)
        return
    if found.fault is not None:
        advice = f"allow this machine to open connections to {where} (TCP); is the name right?"
        yield Check("connection", "wrong", f"{where}: {found.fault}", advice)
        return
    if found.tls is not None:
        advice = "something else answers there, or in between: ask the network's people"
        yield Check("TLS", "wrong", f"{where}: {found.tls}", advice)
        return
    yield Check("TLS", "ok", f"{where} has the coordinator's certificate")
    if found.status in (502, 503, 504):
        advice = "its proxy answers and its SuperLink does not: the coordinator has not started"
        yield Check("connection", "unsure", f"{where} answers {found.status}", advice)
    elif found.status in (400, 401, 403, 415, 422):  # of a request that nobody signed
        yield Check("connection", "ok", f"the SuperLink behind {where} answers")
    else:
        advice = "no SuperLink stands there: is the port right?"
        yield Check("connection", "wrong", f"{where} answers {found.status}", advice)
    if found.skew_s is None:
        yield Check("clock", "unsure", "the coordinator does not tell its time", "use NTP")
    else:
        skew = abs(found.skew_s)
        told = f"{skew:.0f} s from the coordinator's"
        state: Literal["ok", "wrong", "unsure"] = "ok" if skew < _FINE_SKEW_S else "unsure"
        state = "wrong" if skew >= REFUSED_SKEW_S else state
        advice = "" if state == "ok" else "set the clock (NTP): signed messages would be refused"
        yield Check("clock", state, told, advice)
