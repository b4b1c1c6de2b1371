"""A site's way to its coordinator: an address and a certificate in, what stands in between out.

Asks the fleet API for a page that is not there: any answer shows that name, network, TLS and proxy
work, and tells the coordinator's time.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

#: Flower refuses a message signed more than so many seconds before or after it is read.
REFUSED_SKEW_S = 300.0
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Reached:
    """What came back.

    Attributes:
        tls: None if the certificate is the coordinator's, else what is wrong.
        status: of the answer; None if there was none.
        skew_s: this machine's clock less the coordinator's; None if it did not tell.
        fault: why there was no answer at all.
        refused: whether the machine is there and nothing listens: its coordinator may not have
            started.
    """

    tls: str | None = None
    status: int | None = None
    skew_s: float | None = None
    fault: str | None = None
    refused: bool = False


def reach(coordinator: str, authority: Path) -> Reached:
    """Try to reach a coordinator.

    Args:
        coordinator: host:port.
        authority: file of the certificate that its own must be signed by.
    """
    try:
        trusted = ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError) as error:
        return Reached(tls=f"{authority} is no certificate: {error}")
    try:
        with httpx.Client(verify=trusted, timeout=_TIMEOUT_S) as client:
            answer = client.post(f"https://{coordinator}/v1/fleet/pull-messages")
    except httpx.ConnectError as error:
        cause = _cause(error)
        if isinstance(cause, ssl.SSLError):
            return Reached(tls=str(cause))
        refused = isinstance(cause, ConnectionRefusedError)
        return Reached(fault=str(cause) or "no connection", refused=refused)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Reached(fault=str(error) or type(error).__name__)
    return Reached(status=answer.status_code, skew_s=_skew(answer.headers.get("date")))


def _cause(error: BaseException) -> BaseException:
    """The first of an exception's causes that is of TLS, else the last."""
    last = error
    while True:
        if isinstance(last, ssl.SSLError):
            return last
        deeper = last.__cause__ or last.__context__
        if deeper is None:
            return last
        last = deeper


def _skew(date: str | None) -> float | None:
    if date is None:
        return None
    try:
        return (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
    except (ValueError, TypeError):
        return None
