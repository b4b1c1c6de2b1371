"""Nodes in, the site that each speaks for out, and how much it trains on: asked of the nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from fedmedlora.durable import replace_bytes
from fedmedlora.errors import FederationError, RunError
from fedmedlora.federation import wire
from fedmedlora.federation.client import INTRODUCE
from fedmedlora.federation.counted_grid import CountedGrid
from fedmedlora.federation.ends import CoordinatorEnd
from fedmedlora.federation.flower import Message
from fedmedlora.federation.plan import Declared, FederationPlan, OnEvent
from fedmedlora.federation.screening import Turned, ended, failure_of
from fedmedlora.federation.statements import Proof, request_sha256

ASK_AGAIN_S = 0.2
#: A node that is turned away is asked again later each time: each question starts a process there.
MOST_WAIT_S = 60.0
#: A node makes its site ready before it answers: a backbone may have to be loaded.
READY_S = 600.0

_NO_SITE = Turned("refused", "it is no site of this run")
_NOT_BELIEVED = Turned("refused", "it does not bear the signature of the site that it names")
_TAKEN = Turned("refused", "another node is that site")


class Roster:
    """Which node speaks for which of the plan's sites.

    A node that comes back under another number is entered again; a name is one node's at a time.

    Attributes:
        declared: site -> the most that it trains on in a round, as it first said in this run,
            however often the coordinator was started.
        proofs: site -> what it stated then.

    Args:
        plan: says which sites are expected, and how long to wait.
        grid: where the nodes are.
        end: checks that a node has the key of the site that it claims, where the plan has keys.
        on_event: told ("name-taken", site) when a second node claims a site during the run,
            ("not-believed", site) when one claims a site without its key, and ("turned-away", site,
            reason) of any other that does not join; its site is "" if it named none.
        kept: file of what was declared, read now and written at each first word of a site; ``None``
            keeps it for as long as this object lives.

    Raises:
        RunError: the file is there and cannot be read.
    """

    def __init__(
        self,
        plan: FederationPlan,
        grid: CountedGrid,
        *,
        end: CoordinatorEnd | None = None,
        on_event: OnEvent | None = None,
        kept: Path | None = None,
    ) -> None:
        self._plan, self._grid, self._on_event, self._kept = plan, grid, on_event, kept
        self._end = end or CoordinatorEnd(plan)
        self._question = self._end.introduction()
        self._asked = request_sha256(self._question)
        self._sites: dict[int, str] = {}  # of every node that ever spoke for one
        self._nodes: dict[str, int] = {}  # that speaks for a site now
        self.declared, self.proofs = ({}, {}) if kept is None else _recalled(kept)
        self._begun = False
        self._again: dict[int, tuple[float, float]] = {}  # node -> (seconds waited, due)

    def site(self, node: int) -> str:
        """The site that a node speaks for; "" if it is none of the plan's."""
        return self._sites.get(node, "")

    def gather(self) -> None:
        """Wait until all sites are there, or the plan's ``connect_s`` are over.

        Raises:
            FederationError: two nodes say that they are the same site.
        """
        self._meet(len(self._plan.sites), wait_s=self._plan.connect_s)
        self._begun = True

    def present(self) -> dict[int, str]:
        """Node -> site of those that are there now; nodes that are new are asked first.

        Where fewer are there than a round needs, they are waited for as in the beginning.
        """
        if self._plan.secure is None:  # else a site's size is its own
            self._ask([node for site, node in self._nodes.items() if site not in self.declared])
        self._meet(self._plan.quorum, wait_s=self._plan.connect_s)
        here = set(self._grid.get_node_ids())
        return {node: site for site, node in self._nodes.items() if node in here}

    def _meet(self, enough: int, *, wait_s: float) -> None:
        """Ask unknown nodes which site they are, until enough are there or the time is up."""
        deadline = time.monotonic() + wait_s
        while True:
            here = set(self._grid.get_node_ids())
            self._ask_strangers(here - set(self._nodes.values()))
            known = [site for site, node in self._nodes.items() if node in here]
            if len(known) >= enough or time.monotonic() >= deadline:
                return
            time.sleep(ASK_AGAIN_S)

    def _ask_strangers(self, nodes: set[int]) -> None:
        now = time.monotonic()
        # One that was away begins anew.
        self._again = {node: again for node, again in self._again.items() if node in nodes}
        asked = sorted(node for node in nodes if self._again.get(node, (0.0, 0.0))[1] <= now)
        self._ask(asked)
        now = time.monotonic()
        for node in asked:
            wait = min(max(ASK_AGAIN_S, 2 * self._again.get(node, (0.0, 0.0))[0]), MOST_WAIT_S)
            self._again[node] = (wait, now + wait)

    def _ask(self, nodes: Sequence[int]) -> None:
        here = set(self._grid.get_node_ids())
        asked = [node for node in nodes if node in here]
        if not asked:
            return
        ttl = self._plan.ttl_s
        messages = []
        for node in asked:
            question = self._end.address(self._question, phase="introduce", node=node, site="")
            messages.append(Message(question, node, INTRODUCE, ttl=ttl))
        limit = None
        if not self._grid.is_local:
            limit = self._plan.timeout_s or max(self._plan.connect_s, READY_S)
        for reply in self._grid.send_and_receive(messages, timeout=limit):
            self._enter(reply, here)

    def _enter(self, reply: Message, here: set[int]) -> None:
        node = reply.metadata.src_node_id
        site, declared, proof, fate = self._read(reply, here)
        self._end.record(
            site,
            phase="introduce",
            round=0,
            status="ok" if fate is None else fate.status,
            reason=None if fate is None else fate.reason,
            node=node,
        )
        if fate is _TAKEN and not self._begun:
            raise FederationError(f"two nodes say that they are site {site!r}")
        if fate is not None:
            self._tell_of(fate, site)
            return  # who came first keeps the name: the run goes on
        self._sites[node], self._nodes[site] = site, node
        if declared is not None and proof is not None and site not in self.declared:
            self.declared[site], self.proofs[site] = declared, proof
            self._keep()
        if self._on_event is not None:
            self._on_event("joined", site=site)

    def _tell_of(self, fate: Turned, site: str) -> None:
        if self._on_event is None:
            return
        if fate in (_TAKEN, _NOT_BELIEVED):
            self._on_event("name-taken" if fate is _TAKEN else "not-believed", site=site)
        else:
            self._on_event("turned-away", site=site, reason=fate.reason)

    def _read(
        self, reply: Message, here: set[int]
    ) -> tuple[str, Declared | None, Proof | None, Turned | None]:
        """The site that an untrusted node is, what it declares and stated; or why it is none."""
        node = reply.metadata.src_node_id
        if reply.has_error():
            return "", None, None, ended(reply)
        claimed = reply.content.config_records.get(wire.CONFIG, {}).get("site")
        site = claimed if isinstance(claimed, str) and claimed in self._plan.sites else ""
        try:
            proof = self._end.check(reply.content, site, phase="introduce", request=self._asked)
        except FederationError:
            return site, None, None, _NOT_BELIEVED
        known, declared = wire.read_introduction(reply.content, self._plan.run_id)
        if not site or known is None or node not in here:
            return site, None, None, failure_of(reply.content) or _NO_SITE
        others = [name for name, other in self._nodes.items() if other in here - {node}]
        return site, declared, proof, _TAKEN if site in others else None

    def _keep(self) -> None:
        if self._kept is None:
            return
        content = {
            site: {
                **asdict(most),
                "statement": self.proofs[site].statement.decode(),
                "signature": self.proofs[site].signature,
            }
            for site, most in self.declared.items()
        }
        replace_bytes(self._kept, json.dumps(content, indent=1).encode())


def _recalled(file: Path) -> tuple[dict[str, Declared], dict[str, Proof]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        declared = {
            str(site): Declared(*(int(most[one.name]) for one in fields(Declared)))
            for site, most in content.items()
        }
        proofs = {
            str(site): Proof(most["statement"].encode(), str(most["signature"]))
            for site, most in content.items()
        }
        return declared, proofs
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{file}, which holds what the sites declared when they joined, cannot be read; move "
            "it away: each site is then asked anew, and what it says holds for the rounds to come"
        ) from error
