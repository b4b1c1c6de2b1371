"""What the sites of a round stated in, whether its record says the same out.

Every statement that is kept is one that its site signed, of this run, this round and this phase;
what the record and the contributions say of a site is what it stated; who stated something is named
by them, and nobody else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fedmedlora.canonical import sha256
from fedmedlora.federation import wire
from fedmedlora.federation.contributions import (
    PACKED_FILE,
    REPLIES_FOLDER,
    STATEMENT_FILES,
    Contribution,
    Contributions,
    Signed,
)
from fedmedlora.federation.plan import FederationPlan
from fedmedlora.federation.records import RoundRecord
from fedmedlora.federation.replies import reported
from fedmedlora.federation.screening import failure_in
from fedmedlora.federation.statements import Phase


class Statements:
    """The kept statements of a round.

    Attributes:
        faults: what is wrong with those that were read, one sentence each.

    Args:
        place: the round's folder.
        plan: with the keys that they must be signed with.
        record: of the round.
        contributions: of the round.
    """

    def __init__(
        self, place: Path, plan: FederationPlan, record: RoundRecord, contributions: Contributions
    ) -> None:
        self.faults: list[str] = []
        self._place = place / REPLIES_FOLDER
        self._plan, self._record, self._told = plan, record, contributions
        self._keys = dict(plan.public_keys)
        self._call = wire.Call(plan.run_id, record.round, "", plan.wire)

    @property
    def are_kept(self) -> bool:
        """Whether there are any."""
        return self._place.exists()

    def file(self, site: str, name: str) -> Path:
        """Where something of a site's is kept."""
        return self._place / site / name

    def beside(self, name: str) -> Path:
        """Where something of the whole round is kept."""
        return self._place.parent / name

    def read(self, signed: Signed, phase: Phase) -> dict[str, Any]:
        """A kept statement; what it should not be is among the faults.

        Raises:
            OSError, ValueError, KeyError, TypeError: it cannot be read.
        """
        site, name = signed.site, STATEMENT_FILES[phase]
        data = self.file(site, name).read_bytes()
        if sha256(data) != signed.statement:
            self.faults.append(f"{site}: {name} is not the statement of its reply")
        if signed.public_key != self._keys.get(site, ""):
            self.faults.append(f"{site}: it was checked with another key than the plan's")
        elif not signed.fits(data):
            self.faults.append(f"{site}: its signature does not fit {name}")
        content: dict[str, Any] = json.loads(data)
        number = 0 if phase == "introduce" else self._record.round
        wanted = {"run": self._plan.run_id, "round": number, "site": site}
        config = content["config"]
        if content["phase"] != phase or wanted != {key: config.get(key) for key in wanted}:
            self.faults.append(f"{site}: {name} is of another run, round, site or phase")
        return content

    def check(self, manifests: Mapping[str, str]) -> None:
        """Compare the record and the contributions with all that was stated.

        Args:
            manifests: site -> JSON of the manifest that its reply must have, of those that count;
                none for masked rows.

        Raises:
            OSError, ValueError, KeyError, TypeError: a statement cannot be read.
        """
        self.faults += self._differing_declared()
        for one in self._told.contributions:
            self.faults += self._differing(one, manifests.get(one.signed.site))
        for signed in self._told.turned.get("train", ()):
            site = self._record.sites[signed.site]
            told = f"{site.status}: {site.reason}"
            self.faults += self._differing_fate(signed, "train", told)
        for signed in self._told.turned.get("score", ()):
            told = str(self._record.sites[signed.site].scoring)
            self.faults += self._differing_fate(signed, "score", told)
        scorers = {signed.site for signed in self._told.scorers}
        for name, site in self._record.sites.items():
            if (site.scoring == "ok") != (name in scorers):
                self.faults.append(f"{name}: its record says of its scoring {site.scoring!r}")
        self.faults += self._unnamed()

    def _differing_declared(self) -> Iterator[str]:
        declared: dict[str, dict[str, int]] = {}
        for signed in self._told.declared:
            declared[signed.site] = self.read(signed, "introduce")["numbers"]["metrics"]
        for name, site in self._record.sites.items():
            if dict(site.declared) != declared.get(name, {}):
                yield f"{name}: its record has other declared sizes than it stated"
        for one in self._told.contributions:
            most = declared.get(one.signed.site, {})
            if any(getattr(one, size) > most.get(size, 0) for size in ("examples", "tokens")):
                yield f"{one.signed.site}: it counts more than it declared"

    def _differing(self, one: Contribution, manifest: str | None) -> Iterator[str]:
        site = one.signed.site
        content = self.read(one.signed, "train")
        config, numbers = content["config"], content["numbers"]
        if config.get("status") != "ok":
            yield f"{site}: it counts, and stated that it had failed"
        wanted = None if manifest is None else f"sha256 {sha256(manifest.encode())}"
        if config.get("manifest") != wanted:
            yield f"{site}: it stated another manifest than it was asked for"
        if manifest is None:
            if any(numbers.values()):
                yield f"{site}: it stated numbers beside its masked row"
            return
        record = self._record.sites[site]
        for name, value in reported(numbers["metrics"], numbers["counts"]).items():
            if {name: getattr(record, name)} != {name: value}:
                yield f"{site}: its record has other {name} than it stated"
            if name in ("examples", "tokens") and getattr(one, name) != value:
                yield f"{site}: its contribution has other {name} than it stated"
        if record.validation_loss != one.validation_loss:
            yield f"{site}: its record has another validation loss than its contribution"

    def _differing_fate(self, signed: Signed, phase: Phase, told: str) -> Iterator[str]:
        """Of a site that answered and does not count."""
        site = signed.site
        failure = failure_in(self.read(signed, phase), self._call)
        if failure and told != f"failed: {failure}":
            yield f"{site}: it stated that it had failed, and its record says otherwise"
        elif not failure and not told.startswith("refused: "):
            yield f"{site}: it answered ({STATEMENT_FILES[phase]}), and its record says {told!r}"

    def _unnamed(self) -> Iterator[str]:
        """What is kept, and of nobody that the contributions name."""
        told = self._told
        trained: Iterable[Signed] = [one.signed for one in told.contributions]
        named: dict[str, Iterable[str]] = {
            PACKED_FILE: (*(signed.site for signed in trained), *told.candidates),
            STATEMENT_FILES["introduce"]: (one.site for one in told.declared),
            STATEMENT_FILES["train"]: (
                one.site for one in (*trained, *told.turned.get("train", ()))
            ),
            STATEMENT_FILES["score"]: (
                one.site for one in (*told.scorers, *told.turned.get("score", ()))
            ),
        }
        wanted = {f"{site}/{name}" for name, sites in named.items() for site in sites}
        for path in sorted(self._place.rglob("*")):
            name = path.relative_to(self._place).as_posix()
            if path.is_file() and name not in wanted:
                yield f"{REPLIES_FOLDER}/{name} is there, and its site is not named for it"
