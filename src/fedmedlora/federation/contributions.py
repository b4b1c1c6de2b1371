"""Whose work a round's adapter is made of: every contribution by site, weight, hashes, signature.

ROUND/contributions.json         always
ROUND/replies/SITE/packed.npy    with ``plan.keep_replies``: the adapter as it came, if it was
                                 scored or counts
ROUND/replies/SITE/introduce.json  what the site stated when it joined
ROUND/replies/SITE/train.json    what the site stated beside it, and signed; or that it failed
ROUND/replies/SITE/score.json    likewise of its losses, if it was asked to score
ROUND/unmasking.json             likewise, under secure aggregation: packed.npy are masked rows, and
                                 this is what unmasks their sum; see ``secure.unmasking``

Hashes of packed.npy and train.json are the ones in the site's own audit log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedmedlora.durable import write_bytes
from fedmedlora.errors import RunError
from fedmedlora.federation.plan import FederationPlan
from fedmedlora.federation.records import SiteRecord
from fedmedlora.federation.replies import Candidate, Score
from fedmedlora.federation.screening import Turned
from fedmedlora.federation.signing import is_signed
from fedmedlora.federation.statements import Phase, Proof

CONTRIBUTIONS_FILE = "contributions.json"
REPLIES_FOLDER = "replies"
PACKED_FILE = "packed.npy"
UNMASKING_FILE = "unmasking.json"
STATEMENT_FILES: dict[Phase, str] = {
    "introduce": "introduce.json",
    "train": "train.json",
    "score": "score.json",
}
#: 2: with ``turned`` and ``declared``. Those of 1 lack them.
FORMAT = 2


@dataclass(frozen=True)
class Signed:
    """What a site stated, by its hash.

    Attributes:
        site: its name.
        statement: SHA-256 (hex) of what it stated.
        signature: of that, hexadecimal; "" without keys.
        public_key: that the signature was checked with; "" without.
    """

    site: str
    statement: str
    signature: str
    public_key: str

    def fits(self, statement: bytes) -> bool:
        """Whether the signature is of this statement; an unsigned one fits."""
        if not self.public_key:
            return True
        return is_signed(statement, self.signature, self.public_key, purpose="reply")


@dataclass(frozen=True)
class Contribution:
    """What one site gave to a round's adapter.

    Attributes:
        signed: its reply to the request to train.
        weight: p_k; None if nobody knows it but the site.
        examples, tokens: as it reported.
        validation_loss: L_k, if the method scores.
    """

    signed: Signed
    weight: float | None
    examples: int
    tokens: int
    validation_loss: float | None


@dataclass(frozen=True)
class Contributions:
    """All of a round's.

    Attributes:
        run: the run's id.
        round: from 1.
        method: of the plan.
        nonce: of the round's requests.
        contributions: in the order of the sum.
        candidates: sites whose adapters were scored, in the order of the losses.
        scorers: who scored them.
        turned: phase -> what sites stated that does not count, as far as it is kept.
        declared: what sites stated of their sizes when they joined.
        before: hash of the round before's SHA256SUMS; "" in round 1.
    """

    run: str
    round: int
    method: str
    nonce: str
    contributions: tuple[Contribution, ...]
    candidates: tuple[str, ...] = ()
    scorers: tuple[Signed, ...] = ()
    turned: Mapping[str, tuple[Signed, ...]] = field(default_factory=dict)
    declared: tuple[Signed, ...] = ()
    before: str = ""

    def to_json(self) -> bytes:
        """As the file has it."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, allow_nan=False).encode()

    @classmethod
    def read(cls, folder: Path) -> Contributions:
        """Those of a round's folder.

        Raises:
            RunError: they cannot be read.
        """
        place = folder / CONTRIBUTIONS_FILE
        try:
            content = json.loads(place.read_bytes())
            if content.pop("format") not in (1, FORMAT):
                raise ValueError("another release made it")
            return cls(
                **{
                    **content,
                    "contributions": tuple(
                        Contribution(**{**one, "signed": Signed(**one["signed"])})
                        for one in content["contributions"]
                    ),
                    "candidates": tuple(content["candidates"]),
                    "scorers": _signed(content["scorers"]),
                    "declared": _signed(content.get("declared", ())),
                    "turned": {
                        phase: _signed(some) for phase, some in content.get("turned", {}).items()
                    },
                }
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(f"{place} cannot be read") from error


def _signed(content: Iterable[Mapping[str, Any]]) -> tuple[Signed, ...]:
    return tuple(Signed(**one) for one in content)


@dataclass
class Answers:
    """What came in a round and was its site's own.

    Attributes:
        trained: site -> its adapter, if it passed by itself.
        scored: sites whose adapters were scored, in the order of the losses.
        scores: what the sites found of them, by scoring site.
        stated: phase -> what sites stated, good or failed; what was refused unread is not there.
    """

    trained: dict[str, Candidate] = field(default_factory=dict)
    scored: tuple[str, ...] = ()
    scores: dict[str, Score] = field(default_factory=dict)
    stated: dict[Phase, dict[str, Proof]] = field(default_factory=dict)

    def state(
        self, phase: Phase, good: Mapping[str, Candidate | Score], turned: Mapping[str, Turned]
    ) -> None:
        """Note what the sites stated in a phase, as it was screened."""
        told = {site: one.proof for site, one in good.items()}
        failed = {site: one.proof for site, one in turned.items() if one.proof is not None}
        self.stated[phase] = {**told, **failed}


def contributions_of(
    plan: FederationPlan,
    number: int,
    *,
    nonce: str,
    records: Mapping[str, SiteRecord],
    candidates: Mapping[str, Candidate],
    answers: Answers,
) -> Contributions:
    """Those of a round that was just combined.

    Args:
        plan: of the federation.
        number: of the round.
        nonce: of its requests.
        records: of all sites, with their weights.
        candidates: what was combined, in that order.
        answers: all that came.
    """
    keys = dict(plan.public_keys)

    def signed(site: str, proof: Proof) -> Signed:
        return Signed(
            site, proof.sha256, proof.signature if site in keys else "", keys.get(site, "")
        )

    count: dict[Phase, Iterable[str]] = {"train": candidates, "score": answers.scores}
    return Contributions(
        run=plan.run_id,
        round=number,
        method=plan.method,
        nonce=nonce,
        contributions=tuple(
            Contribution(
                signed=signed(site, one.proof),
                weight=records[site].weight,
                examples=one.examples,
                tokens=one.tokens,
                validation_loss=records[site].validation_loss,
            )
            for site, one in candidates.items()
        ),
        candidates=answers.scored,
        scorers=tuple(signed(site, score.proof) for site, score in answers.scores.items()),
        turned={
            phase: tuple(signed(s, proof) for s, proof in stated.items() if s not in count[phase])
            for phase, stated in answers.stated.items()
            if phase in count
        },
        declared=tuple(
            signed(site, proof) for site, proof in answers.stated.get("introduce", {}).items()
        ),
    )


def kept_files(combined: Iterable[str], answers: Answers) -> dict[str, bytes | Path]:
    """What of a round's replies is kept: path in its ``replies`` -> content, or a file to move.

    Args:
        combined: sites whose adapters count.
        answers: all that came.
    """
    packed = {*combined, *answers.scored}
    files: dict[str, bytes | Path] = {
        f"{site}/{PACKED_FILE}": one.packed.path
        for site, one in answers.trained.items()
        if site in packed
    }
    for phase, stated in answers.stated.items():
        for site, proof in stated.items():
            files[f"{site}/{STATEMENT_FILES[phase]}"] = proof.statement
    return files


def write_kept(folder: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write what ``kept_files`` gave into a folder of ``durable.new_folder``; files are moved."""
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            write_bytes(place, content)
            continue
        content.replace(place)


def lineage(federation: Path) -> list[dict[str, Any]]:
    """Each complete round's contributions, as its file has them.

    Rounds of the release before have none.

    Args:
        federation: its folder.

    Raises:
        RunError: they cannot be read.
    """
    places = sorted(federation.glob(f"round-[0-9][0-9][0-9][0-9]/{CONTRIBUTIONS_FILE}"))
    return [asdict(Contributions.read(place.parent)) for place in places]
