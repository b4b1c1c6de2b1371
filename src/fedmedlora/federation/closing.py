"""The end of a round: what is known of it in, its checkpoint or the record of its failure out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from fedmedlora.federation import checkpoints
from fedmedlora.federation.contributions import (
    UNMASKING_FILE,
    contributions_of,
    kept_files,
)
from fedmedlora.federation.current_round import Round
from fedmedlora.federation.plan import FederationPlan
from fedmedlora.federation.records import RoundRecord
from fedmedlora.federation.replies import Candidate
from fedmedlora.federation.server_model import ServerModel
from fedmedlora.federation.suspects import SKETCHES_FILE, write_sketches


def close_round(
    folder: Path,
    plan: FederationPlan,
    current: Round,
    *,
    model: ServerModel,
    candidates: Mapping[str, Candidate],
) -> RoundRecord:
    """Write a complete round.

    Args:
        folder: of the federation.
        plan: of the federation.
        current: the round.
        model: after it.
        candidates: what was combined, in that order.

    Raises:
        RunError: the checkpoint cannot be written.
    """
    record = RoundRecord(
        round=current.number,
        method=plan.method,
        sites=current.sites,
        seconds=time.monotonic() - current.started,
        checkpoint=checkpoints.round_name(current.number),
        adapter_sha256=model.trainable.sha256,
        server_sha256=checkpoints.server_sha256(model.state),
        secure=current.secure,
    )
    checkpoints.write_round(
        folder,
        record,
        model.trainable,
        state=model.state,
        base_model=plan.base_model,
        contributions=contributions_of(
            plan,
            current.number,
            nonce=current.nonce,
            records=current.sites,
            candidates=candidates,
            answers=current.answers,
        ),
        kept=kept_files(candidates, current.answers) if plan.keep_replies else {},
        more=_more(plan, current),
    )
    return record


def _more(plan: FederationPlan, current: Round) -> dict[str, bytes]:
    """Further files of a complete round."""
    files = {}
    if current.sketches:
        files[SKETCHES_FILE] = write_sketches(current.sketches)
    if current.unmasking is not None and plan.keep_replies:
        files[UNMASKING_FILE] = current.unmasking.to_json()
    return files


def close_failed_round(
    folder: Path, plan: FederationPlan, current: Round, *, reason: str
) -> RoundRecord:
    """Write the record of a round that ends the run; arguments and errors as of ``close_round``."""
    record = RoundRecord(
        round=current.number,
        method=plan.method,
        sites=current.sites,
        seconds=time.monotonic() - current.started,
        status="failed",
        reason=reason,
    )
    checkpoints.write_failed_round(folder, record)
    return record
