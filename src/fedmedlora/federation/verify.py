"""A federation's folder in, whether every round is what its replies make of it out.

Each round's global adapter is made again from the kept replies by the code that made it, from the
state that the replies before it made, and its hash compared with the checkpoint's. No backbone and
no notes are needed. Under secure aggregation the sum of the masked rows is unmasked once more.
Methods with a decomposition (FlexLoRA, FedEx-LoRA) may differ in last bits on another machine; how
far is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedmedlora.aggregation.methods import ServerState
from fedmedlora.errors import AdapterError, FederationError, RunError
from fedmedlora.federation import checkpoints
from fedmedlora.federation.contributions import Contributions
from fedmedlora.federation.plan import FederationPlan
from fedmedlora.federation.plan_file import PLAN_FILE, read_begun, read_plan
from fedmedlora.federation.remaking import RemadeMaskedRound, RemadeRound, difference
from fedmedlora.federation.server_model import ServerModel
from fedmedlora.federation.stated import Statements
from fedmedlora.federation.sums import check_sums
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.adapter_files import read_adapter

#: What may be wrong with a file that is there.
_BROKEN = (
    AdapterError, FederationError, RunError, OSError, ValueError, KeyError, TypeError,
    AttributeError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True)
class RoundVerdict:
    """What was found of one round.

    Attributes:
        round: from 1.
        sites: whose replies it was made of.
        signed: how many of them are signed.
        recorded: hash (hex) of the checkpoint's adapter.
        made: hash of the one that was made again; "" if none could be.
        faults: what differs or is missing, one sentence each.
    """

    round: int
    sites: tuple[str, ...]
    signed: int
    recorded: str
    made: str
    faults: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the round is what its replies make of it."""
        return not self.faults and self.made == self.recorded != ""


def verify_federation(folder: Path) -> list[RoundVerdict]:
    """Make every round of the plan again from its kept replies; one that is not there is a fault.

    Raises:
        RunError: the folder holds no federation, no round, or the initial adapter is not the one
            that it began with.
        ConfigError: a value of the plan is out of range.
    """
    plan, digest = read_plan(folder)
    try:
        initial = read_adapter(folder / checkpoints.INITIAL_FOLDER)
    except AdapterError as error:
        raise RunError(
            f"{error}; replies are kept, and a run can be verified, with federation.keep_replies"
        ) from error
    if initial.sha256 != digest:
        raise RunError(
            f"{folder}: the initial adapter is not the one that the federation began with"
        )
    begun = read_begun(folder)
    numbers = list(checkpoints.rounds_in(folder))
    if not numbers:
        raise RunError(f"{folder} has no complete round")
    verdicts = []
    state = ServerState(initial.tensors)
    for number in range(1, max(numbers[-1], plan.rounds) + 1):
        verdict, state = _verify_round(folder, number, plan, initial, state, begun=begun)
        verdicts.append(verdict)
    return verdicts


def _verify_round(
    folder: Path,
    number: int,
    plan: FederationPlan,
    initial: Adapter,
    before: ServerState,
    *,
    begun: str,
) -> tuple[RoundVerdict, ServerState]:
    """What is found of a round, and the state to go on from: the checkpoint's, if there is one."""
    place = folder / checkpoints.round_name(number)
    if not place.exists():
        fault = f"it is not there, and the plan has {plan.rounds} rounds"
        return RoundVerdict(number, (), 0, "", "", (fault,)), before
    faults: list[str] = []
    try:
        check_sums(place)
        checkpoints.check_follows(folder, number)
    except _BROKEN as error:
        faults.append(_told(error))
    try:
        record, recorded = checkpoints.read_round(place, initial)
        contributions = Contributions.read(place)
    except _BROKEN as error:
        lost = RoundVerdict(number, (), 0, "", "", (*faults, _told(error)))
        return lost, before
    sites = tuple(one.signed.site for one in contributions.contributions)
    statements = Statements(place, plan, record, contributions)
    remade = RemadeRound if plan.secure is None else RemadeMaskedRound
    model = ServerModel(plan, initial, before)
    again = remade(plan, model, statements, record, contributions, begun=begun)
    made = ""
    try:
        again.check_sites(number)
        model = again.combine()
        made = model.trainable.sha256
        faults += again.faults
        if made != record.adapter_sha256:
            faults.append(f"another adapter: {difference(model.state.factors, recorded.factors)}")
        if checkpoints.server_sha256(model.state) != record.server_sha256:
            faults.append("what else the server keeps is another")
    except _BROKEN as error:
        faults += [*again.faults, _told(error)]
    verdict = RoundVerdict(
        round=number,
        sites=sites,
        signed=sum(bool(one.signed.signature) for one in contributions.contributions),
        recorded=record.adapter_sha256 or "",
        made=made,
        faults=tuple(dict.fromkeys(faults)),
    )
    return verdict, recorded


def _told(error: BaseException) -> str:
    if isinstance(error, AdapterError | FederationError | RunError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return f"a file of it is broken ({type(error).__name__})"


def federations_in(run: Path) -> list[Path]:
    """The folders of all federations in a run folder, or the one that it is itself."""
    return sorted(place.parent for place in run.rglob(PLAN_FILE))
