"""Whose work a round's adapter is made of: every contribution by site, weight, hashes, signature.

ROUND/contributions.json         always
ROUND/replies/SITE/packed.npy    with ``plan.keep_replies``: the adapter as it came
ROUND/replies/SITE/train.json    what the site stated beside it, and signed
ROUND/replies/SITE/score.json    likewise of its losses, if it scored

Hashes of packed.npy and train.json are the ones in the site's own audit log.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedmedlora.durable import write_bytes
from fedmedlora.errors import RunError
from fedmedlora.federation.plan import FederationPlan, SiteRecord
from fedmedlora.federation.screening import Candidate, Score
from fedmedlora.federation.signing import is_signed
from fedmedlora.federation.statements import Proof

CONTRIBUTIONS_FILE = "contributions.json"
REPLIES_FOLDER = "replies"
PACKED_FILE, TRAIN_FILE, SCORE_FILE = "packed.npy", "train.json", "score.json"
FORMAT = 1


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
        before: hash of the round before's SHA256SUMS; "" in round 1.
    """

    run: str
    round: int
    method: str
    nonce: str
    contributions: tuple[Contribution, ...]
    candidates: tuple[str, ...] = ()
    scorers: tuple[Signed, ...] = ()
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
            if content.pop("format") != FORMAT:
                raise ValueError("another release made it")
            return cls(
                **{
                    **content,
                    "contributions": tuple(
                        Contribution(**{**one, "signed": Signed(**one["signed"])})
                        for one in content["contributions"]
                    ),
                    "candidates": tuple(content["candidates"]),
                    "scorers": tuple(Signed(**one) for one in content["scorers"]),
                }
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(f"{place} cannot be read") from error


def contributions_of(
    plan: FederationPlan,
    number: int,
    *,
    nonce: str,
    records: Mapping[str, SiteRecord],
    candidates: Mapping[str, Candidate],
    scored: tuple[str, ...],
    scores: Mapping[str, Score],
) -> Contributions:
    """Those of a round that was just combined.

    Args:
        plan: of the federation.
        number: of the round.
        nonce: of its requests.
        records: of all sites, with their weights.
        candidates: what was combined, in that order.
        scored: the sites whose adapters were scored, in the order of the losses.
        scores: by those who scored.
    """
    keys = dict(plan.public_keys)

    def signed(site: str, proof: Proof) -> Signed:
        return Signed(
            site, proof.sha256, proof.signature if site in keys else "", keys.get(site, "")
        )

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
        candidates=scored,
        scorers=tuple(signed(site, score.proof) for site, score in scores.items()),
    )


def kept_files(
    candidates: Mapping[str, Candidate], scores: Mapping[str, Score]
) -> dict[str, bytes | Path]:
    """What of a round's replies is kept: path in its ``replies`` -> content, or a file to move."""
    files: dict[str, bytes | Path] = {}
    for site, candidate in candidates.items():
        files[f"{site}/{PACKED_FILE}"] = candidate.packed.path
        files[f"{site}/{TRAIN_FILE}"] = candidate.proof.statement
    for site, score in scores.items():
        files[f"{site}/{SCORE_FILE}"] = score.proof.statement
    return files


def write_kept(folder: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write what ``kept_files`` gave into a folder; files are moved."""
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            write_bytes(place, content)
            continue
        content.replace(place)
        with place.open("rb") as file:
            os.fsync(file.fileno())


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
