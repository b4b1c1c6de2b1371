"""An arm's settings in, the plan of its federation out; no notes and no model are needed."""

from __future__ import annotations

from collections.abc import Sequence

from fedmedlora.aggregation.methods import METHODS
from fedmedlora.aggregation.outliers import ScreeningOptions
from fedmedlora.aggregation.robust import RobustOptions
from fedmedlora.aggregation.server_optimiser import ServerOptions
from fedmedlora.config import Study
from fedmedlora.federation.plan import FederationPlan
from fedmedlora.model.packing import form_of
from fedmedlora.study.arms import Arm, robust_options, secure_options

#: How the server steps where the study does not say; else all the way to the average.
_SERVER_DEFAULTS = {"fedavgm": {"momentum": 0.9}, "fedadam": {"learning_rate": 0.01}}


def federation_plan(arm: Arm, names: tuple[str, ...]) -> FederationPlan:
    """The federation of an arm over sites of these names.

    Args:
        arm: of a trained kind.
        names: of the sites, in the order of every sum.

    Raises:
        ConfigError: its settings cannot be together.
    """
    study, federation = arm.study, arm.study.federation
    method = METHODS[arm.federated_method]
    server = _SERVER_DEFAULTS.get(arm.method, {})
    if arm.kind == "federated":  # a site alone takes no steps but its own
        server = {**server, **federation.server.model_dump(exclude_none=True)}
    ranks = [
        (name, site.adapter.rank, site.adapter.alpha)
        for name, site in study.sites.items()
        if site.adapter is not None and name in names
    ]
    flower = federation.engine == "flower"
    return FederationPlan(
        run_id=f"{study.name}/{arm.label}",
        sites=names,
        rounds=1 if arm.kind in ("adapted", "new-site") else federation.rounds,
        method=arm.federated_method,
        beta=federation.beta,
        tau=federation.tau,
        validation=federation.validation,
        size=federation.size,
        # What nobody sends is not to lose anything on its way.
        wire=federation.wire if arm.kind == "federated" else form_of(federation.wire),
        seed=study.seed,
        ranks=tuple(ranks) if method.mixed_ranks else (),
        server=ServerOptions(**server),
        screening=ScreeningOptions(**federation.screening.model_dump()),
        robust=robust_options(arm.study) if arm.kind == "federated" else RobustOptions(),
        refactor_every=federation.refactor_every if arm.method == "fedsvd" else None,
        min_sites=federation.min_sites if len(names) > 1 else None,
        timeout_s=federation.deadline_seconds,
        base_model=study.backbone.name,
        processes=study.runtime.processes if flower else site_processes(study, names),
        keep_replies=federation.keep_replies,
        secure=secure_options(study) if arm.kind == "federated" else None,
    )


def site_processes(study: Study, names: Sequence[str]) -> int:
    """Worker processes of the in-process engine; a site alone needs none."""
    return min(study.runtime.site_processes, len(names))
