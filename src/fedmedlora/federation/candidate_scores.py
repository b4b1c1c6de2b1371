"""Candidate adapters of a round in, the validation loss L_k of each out: Fed-MedLoRA+.

The server scores them on notes of its own, or every site that trained scores all of them on its
validation notes and sends the losses back.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedmedlora.aggregation.weights import pool_losses
from fedmedlora.errors import FederationError
from fedmedlora.federation.correspondence import Correspondence
from fedmedlora.federation.current_round import Round
from fedmedlora.federation.plan import Declared, ServerLosses
from fedmedlora.federation.replies import Candidate
from fedmedlora.federation.screening import Turned, screen_scores
from fedmedlora.federation.server_model import ServerModel

#: Losses of all candidates by each who scored, and over how many tokens each took them.
Scored = tuple[list[list[float]], list[int]]


def validation_losses(
    candidates: Mapping[str, Candidate],
    current: Round,
    *,
    model: ServerModel,
    post: Correspondence,
    declared: Mapping[str, Declared],
    server_losses: ServerLosses | None,
) -> dict[str, float]:
    """L_k of every candidate that has a finite one; the others are refused.

    Args:
        candidates: by site.
        current: the round; is told who scored, and the losses.
        model: as it was when it sent.
        post: where sites are asked.
        declared: the most tokens that each site scores on.
        server_losses: scores them instead of the sites.

    Raises:
        FederationError: too few sites scored, or ``server_losses`` gave another number of losses.
    """
    if server_losses is not None:
        adapters = [one.adapter(current.calls[site]) for site, one in candidates.items()]
        rows, tokens = [list(server_losses(adapters))], [1]
    else:
        rows, tokens = _scores_of_sites(
            candidates, current, model=model, post=post, declared=declared
        )
    if any(len(row) != len(candidates) for row in rows):
        raise FederationError(
            f"server_losses gave {len(rows[0])} losses for {len(candidates)} candidates"
        )
    table = np.array(rows, dtype=np.float64)
    finite = [bool(np.isfinite(column).all()) for column in table.T]
    for site, good in zip(candidates, finite, strict=True):
        if not good:
            reason = "its adapter's validation loss is not finite"
            current.turn({site: Turned("refused", reason)})
    if not any(finite):
        return {}
    names = [site for site, good in zip(candidates, finite, strict=True) if good]
    pooled = pool_losses(list(table[:, finite]), tokens)
    losses = {site: float(loss) for site, loss in zip(names, pooled, strict=True)}
    for site, loss in losses.items():
        current.note(site, validation_loss=loss)
    return losses


def _scores_of_sites(
    candidates: Mapping[str, Candidate],
    current: Round,
    *,
    model: ServerModel,
    post: Correspondence,
    declared: Mapping[str, Declared],
) -> Scored:
    """Every admitted site scores every candidate; rows of losses, and tokens counted."""
    first = current.calls[next(iter(candidates))]
    call, content = model.scoring_request(first, [one.packed.read() for one in candidates.values()])
    nodes = {node: site for node, site in current.nodes.items() if site in candidates}
    scores, turned = screen_scores(
        post.ask("score", ((site, content) for site in nodes.values())),
        nodes,
        dict.fromkeys(nodes.values(), call),
        candidates=[one.sha256 for one in candidates.values()],
        declared=declared,
        check=post.check("score"),
    )
    post.count("score")
    current.answers.scored, current.answers.scores = tuple(candidates), scores
    current.answers.state("score", scores, turned)
    for site in scores:
        current.note(site, scoring="ok")
    for site, fate in turned.items():
        current.note(site, scoring=f"{fate.status}: {fate.reason}")
    post.close("score", turned)
    current.need_quorum("scored the candidates", len(scores))
    good = [scores[site] for site in candidates if site in scores]
    return [list(score.losses) for score in good], [score.tokens for score in good]
