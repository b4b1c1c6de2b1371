"""What comes from a site is not believed: malformed, forged, repeated and missing replies."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from federation_toy import MANIFEST, SITES, Raising, ToySite, plan, sites, start

from fedmedlora.aggregation.methods import ServerState
from fedmedlora.errors import FederationError, RunError
from fedmedlora.federation import run as run_module
from fedmedlora.federation import wire
from fedmedlora.federation.checkpoints import Progress
from fedmedlora.federation.client import Desk
from fedmedlora.federation.counted_grid import CountedGrid
from fedmedlora.federation.flower import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MetricRecord,
    RecordDict,
    from_bytes,
    to_bytes,
)
from fedmedlora.federation.grid import InProcessGrid, SequentialSwitch
from fedmedlora.federation.plan import Declared
from fedmedlora.federation.strategy import RoundStrategy

SOUTH = 2  # its node


def run_tampered(monkeypatch, folder, change, *, kind="train", **changes):
    """One round in which ``change`` alters the content of south's reply on its way."""

    class Tampered(SequentialSwitch):
        def receive(self):
            reply = from_bytes(super().receive())
            if reply.metadata.src_node_id == SOUTH and reply.metadata.message_type == kind:
                content = reply.content
                change(content)
                reply.content = content
            return to_bytes(reply)

    monkeypatch.setattr(run_module, "SequentialSwitch", Tampered)
    result = run_module.run_federation(
        plan(**{"rounds": 1, "min_sites": 2, **changes}), start(), workers=sites(), folder=folder
    )
    return result.records[0].sites


def set_array(content, array):
    content[wire.ARRAYS] = ArrayRecord({wire.PACKED: array})


def set_metric(name, value):
    def change(content):
        metrics = content[wire.METRICS]
        metrics[name] = value

    return change


def set_config(name, value):
    def change(content):
        content[wire.CONFIG][name] = value

    return change


def packed(value=0.0):
    return np.full(MANIFEST.size, value, np.float32)


def bf16(values):
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def claimed(array, *, dtype="uint16", shape=(MANIFEST.size,), stype="numpy.ndarray"):
    return Array(dtype, shape, stype, Array(array).data)


ARRAYS = {
    "too short": Array(bf16(packed()[:-1])),
    "too long": Array(bf16(np.zeros(MANIFEST.size + 1))),
    "two-dimensional": Array(bf16(packed())[None]),
    "float32": Array(packed()),
    "float64": Array(packed().astype(np.float64)),
    "int8": Array(packed().astype(np.int8)),
    "not a number": Array(bf16(packed(math.nan))),
    "infinite": Array(bf16(packed(math.inf))),
    "not numpy's": claimed(bf16(packed()), stype="pickle"),
    "another size than claimed": claimed(bf16(packed()[:-1])),
    "another type than claimed": claimed(packed().astype(np.float16)),
    "garbage": Array("uint16", (MANIFEST.size,), "numpy.ndarray", b"\x93NUMPY garbage"),
    "empty": Array("uint16", (MANIFEST.size,), "numpy.ndarray", b""),
    "far more data than claimed": Array(
        "uint16", (MANIFEST.size,), "numpy.ndarray", Array(bf16(packed())).data + b"x" * 10_000
    ),
    "another header for the same values": Array(
        "uint16", (MANIFEST.size,), "numpy.ndarray",
        Array(bf16(packed())).data.replace(b"14,), } ", b"14,) , }"),
    ),
    "objects": Array("uint16", (MANIFEST.size,), "numpy.ndarray", b"\x93NUMPY\x01\x00\x46\x00"
                     + b"{'descr': '|O', 'fortran_order': False, 'shape': (14,)}".ljust(69) + b"\n"
                     + b"cos\nsystem\n(S'true'\ntR."),
}  # fmt: skip

CHANGES = {
    **{name: lambda c, array=array: set_array(c, array) for name, array in ARRAYS.items()},
    "no adapter": lambda c: c.pop(wire.ARRAYS),
    "two adapters": lambda c: c.update({"more": c[wire.ARRAYS]}),
    "two arrays": lambda c: c[wire.ARRAYS].update({"more": Array(packed())}),
    "no config": lambda c: c.pop(wire.CONFIG),
    "no metrics": lambda c: c.pop(wire.METRICS),
    "no counts": lambda c: c.pop(wire.COUNTS),
    "nothing": lambda c: [c.pop(key) for key in list(c)],
    "no examples": lambda c: c[wire.METRICS].pop("examples"),
    "zero examples": set_metric("examples", 0),
    "negative examples": set_metric("examples", -5),
    "fractional examples": set_metric("examples", 1.5),
    "infinite examples": set_metric("examples", math.inf),
    "a list of examples": set_metric("examples", [1, 2]),
    "too many examples to count": set_metric("examples", 2**60),
    "zero tokens": set_metric("tokens", 0),
    "tokens not a number": set_metric("tokens", math.nan),
    "another run": set_config("run", "other"),
    "another round": set_config("round", 7),
    "another site": set_config("site", "north"),
    "another manifest": set_config("manifest", MANIFEST.to_json().replace("bbbb", "cccc")),
    "a manifest that is none": set_config("manifest", "{}"),
    "a count that is text": lambda c: c.update({wire.COUNTS: MetricRecord({"Mrs Zyxwvut, 63": 1})}),
    "a count that is not finite": lambda c: c.update(
        {wire.COUNTS: MetricRecord({"steps": math.nan})}
    ),
    "too many counts": lambda c: c.update(
        {wire.COUNTS: MetricRecord({f"c{i}": 1 for i in range(1000)})}
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_malformed_reply_is_refused_and_the_others_are_averaged(monkeypatch, tmp_path, name):
    records = run_tampered(monkeypatch, tmp_path, CHANGES[name])
    assert records["south"].status == "refused"
    assert records["south"].reason
    assert "Zyxwvut" not in records["south"].reason
    assert records["south"].weight == 0
    assert records["north"].weight + records["west"].weight == pytest.approx(1)


def test_a_malformed_reply_ends_a_run_that_needs_all_sites(monkeypatch, tmp_path):
    with pytest.raises(FederationError, match="south refused"):
        run_tampered(monkeypatch, tmp_path, CHANGES["zero examples"], min_sites=None)


@pytest.mark.parametrize(("name", "most"), [("examples", 20), ("tokens", 200)])
def test_a_reply_above_what_its_site_declared_is_refused_with_both_numbers(
    monkeypatch, tmp_path, name, most
):
    south = run_tampered(monkeypatch, tmp_path, set_metric(name, most + 1))["south"]
    assert south.status == "refused"
    assert (
        south.reason == f"it counts {most + 1} {name}, and declared {most} at most when it joined"
    )
    assert south.declared == {"examples": 20, "tokens": 200, "validation": 200}


def test_what_was_declared_is_the_most_and_less_is_good(monkeypatch, tmp_path):
    south = run_tampered(monkeypatch, tmp_path, set_metric("tokens", 150))["south"]
    assert (south.status, south.tokens) == ("ok", 150)


@pytest.mark.parametrize("examples", [None, 0, -3, 1.5])
def test_a_site_that_declares_no_size_is_asked_again_and_not_counted(
    monkeypatch, tmp_path, examples
):
    asked = []

    def change(content):
        asked.append(content)
        told = {"examples": examples or 0, "tokens": 200, "validation": 200}
        content[wire.METRICS] = MetricRecord(told)
        if examples is None:
            content.pop(wire.METRICS)

    south = run_tampered(monkeypatch, tmp_path, change, kind="query.introduce", rounds=2)["south"]
    assert (south.status, south.declared) == ("refused", {})
    assert "did not declare" in south.reason
    assert len(asked) == 3  # joining, and before each round


class Growing(ToySite):
    """Declares more each time that it is asked."""

    times = 0

    def declared(self):
        self.times += 1
        return Declared(20 * self.times, 200 * self.times, 200)

    def train(self, adapter, order):
        return replace(super().train(adapter, order), tokens=200 * self.times)


def test_a_site_that_comes_back_is_held_to_what_it_first_declared(tmp_path):
    class Renumbered(InProcessGrid):
        """South is node 2 in round 1, and node 4 after it."""

        asked = 0

        def get_node_ids(self):
            return [1, 3, 4] if self.asked else [1, 2, 3]

        def push_messages(self, messages):
            messages = list(messages)
            self.asked += any(message.metadata.message_type == "train" for message in messages)
            return super().push_messages(messages)

    workers = sites(south=Growing("south"))
    rounds = run_on(Renumbered, tmp_path, rounds=2, desk=Desk4(SITES, workers))
    assert [sites["south"].status for sites in rounds] == ["ok", "refused"]
    assert "counts 400 tokens, and declared 200" in rounds[1]["south"].reason


def restarted(folder, *, south, rounds=1):
    """The rounds of a run that is begun, or goes on, in a folder."""
    a_plan = plan(rounds=rounds, min_sites=2)
    return run_module.run_federation(
        a_plan, start(), workers=sites(south=south), folder=folder, resume=True
    ).records


@pytest.mark.parametrize("before", ["the first round", "the second round"])
def test_a_restarted_coordinator_holds_a_site_to_what_it_first_declared(tmp_path, before):
    modest, greedy = ToySite("south"), Growing("south")
    greedy.times = 1  # declares twice as much, and trains on it
    if before == "the first round":
        with pytest.raises(KeyboardInterrupt):
            restarted(tmp_path, south=Raising("south", error=KeyboardInterrupt))
    else:
        restarted(tmp_path, south=modest)
    number = 1 if before == "the first round" else 2
    south = restarted(tmp_path, south=greedy, rounds=number)[-1].sites["south"]
    assert south.reason == "it counts 400 tokens, and declared 200 at most when it joined"


def test_a_run_that_is_begun_anew_takes_what_the_sites_declare_then(tmp_path):
    restarted(tmp_path / "run", south=ToySite("south"))
    for place in (tmp_path / "run").iterdir():
        if place.name != "declared.json":
            shutil.rmtree(place) if place.is_dir() else place.unlink()
    greedy = Growing("south")
    greedy.times = 1
    assert restarted(tmp_path / "run", south=greedy)[0].sites["south"].status == "ok"


@pytest.mark.parametrize("text", ["", "[]", '{"south": 3}', '{"south": {"examples": "x"}}'])
def test_declared_sizes_that_cannot_be_read_are_told_and_not_passed_over(tmp_path, text):
    restarted(tmp_path, south=ToySite("south"))
    (tmp_path / "declared.json").write_text(text)
    with pytest.raises(RunError, match=r"declared\.json, which holds what the sites declared"):
        restarted(tmp_path, south=ToySite("south"), rounds=2)


def test_declared_sizes_that_were_damaged_and_moved_away_are_asked_for_anew(tmp_path):
    restarted(tmp_path, south=ToySite("south"))
    (tmp_path / "declared.json").write_text("[]")
    with pytest.raises(RunError, match="move it away: each site is then asked anew"):
        restarted(tmp_path, south=ToySite("south"), rounds=2)
    (tmp_path / "declared.json").unlink()
    records = restarted(tmp_path, south=ToySite("south"), rounds=2)
    assert {one.status for one in records[-1].sites.values()} == {"ok"}
    assert set(json.loads((tmp_path / "declared.json").read_text())) == set(SITES)


def test_losses_that_are_not_finite_are_recorded_as_unknown(monkeypatch, tmp_path):
    records = run_tampered(monkeypatch, tmp_path, set_metric("loss_last", math.nan))
    assert records["south"].status == "ok"
    assert records["south"].loss_last is None


def test_a_forged_failure_cannot_bring_text_into_the_record(monkeypatch, tmp_path):
    def change(content):
        config = content[wire.CONFIG]
        config["status"] = "failed"
        config["code"] = "Mrs Zyxwvut <b>63</b>"

    reason = run_tampered(monkeypatch, tmp_path, change)["south"].reason
    assert "Mrs" not in reason
    assert "<" not in reason


@pytest.mark.parametrize(
    "change",
    [
        set_metric("losses", [1.0, 2.0]),
        set_metric("losses", [math.nan] * 3),
        set_metric("losses", 1.0),
        set_metric("tokens", 0),
        set_metric("tokens", 201),
        set_config("round", 2),
        set_config("candidates", ["0" * 64] * 3),
        lambda c: c[wire.CONFIG].pop("candidates"),
        lambda c: c.pop(wire.METRICS),
    ],
)
def test_malformed_scores_are_left_out(monkeypatch, tmp_path, change):
    records = run_tampered(monkeypatch, tmp_path, change, kind="evaluate", method="fed-medlora+")
    assert records["south"].scoring.startswith("refused")
    assert records["south"].status == "ok"
    # north's and west's scores of candidate 0.5, by 100 and 500 tokens: (.5 + 4.5 * 5) / 6
    assert records["north"].validation_loss == pytest.approx((0.5 + 22.5) / 6, abs=1e-6)


def test_a_score_on_more_than_its_site_declared_is_refused_with_both_numbers(monkeypatch, tmp_path):
    change = set_metric("tokens", 201)
    south = run_tampered(monkeypatch, tmp_path, change, kind="evaluate", method="fed-medlora+")
    told = "refused: it scored on 201 tokens, and declared 200 at most when it joined"
    assert south["south"].scoring == told


# Grids on which sites are missing, late or doubled


def run_on(grid, folder, *, workers=None, told=None, desk=None, **changes):
    on_event = None if told is None else lambda kind, **facts: told.append(kind)
    a_plan = plan(**{"rounds": 1, "min_sites": 2, "connect_s": 0.1, **changes})
    strategy = RoundStrategy(
        a_plan, start(), Progress(ServerState(start().tensors)), folder=folder, on_event=on_event
    )
    switch = SequentialSwitch(desk or Desk(SITES, workers or sites()))
    counted = CountedGrid(grid(switch, nodes=3))
    first = strategy.begin(counted)
    strategy.start(counted, first, num_rounds=a_plan.rounds, timeout=a_plan.timeout_s)
    return [record.sites for record in strategy.records]


class WithoutSouth(InProcessGrid):
    def get_node_ids(self):
        return [1, 3]


class LateSouth(InProcessGrid):
    """South's answers to training never come."""

    def pull_messages(self, message_ids):
        return [
            reply
            for reply in super().pull_messages(message_ids)
            if (reply.metadata.src_node_id, reply.metadata.message_type) != (SOUTH, "train")
        ]


class TwiceSouth(InProcessGrid):
    def pull_messages(self, message_ids):
        replies = list(super().pull_messages(message_ids))
        return replies * 2 if replies and replies[0].metadata.src_node_id == SOUTH else replies


class SouthFromRoundTwo(InProcessGrid):
    asked = 0

    def get_node_ids(self):
        return [1, 2, 3] if self.asked else [1, 3]

    def push_messages(self, messages):
        messages = list(messages)
        self.asked += any(message.metadata.message_type == "train" for message in messages)
        return super().push_messages(messages)


class SouthGone(SouthFromRoundTwo):
    def get_node_ids(self):
        return [1, 3] if self.asked else [1, 2, 3]


def test_a_site_that_never_connected_is_absent_and_said_so(tmp_path):
    south = run_on(WithoutSouth, tmp_path)[0]["south"]
    assert (south.status, south.reason, south.bytes_down) == ("absent", "not connected", 0)


def test_a_site_that_does_not_answer_in_time_is_absent_and_its_bytes_are_counted(tmp_path):
    south = run_on(LateSouth, tmp_path, timeout_s=1.0)[0]["south"]
    assert (south.status, south.reason, south.bytes_up) == ("absent", "no answer", 0)
    assert south.bytes_down > 0


def test_a_site_that_answers_twice_is_refused(tmp_path):
    south = run_on(TwiceSouth, tmp_path)[0]["south"]
    assert (south.status, south.reason) == ("refused", "it sent 2 replies")


def test_a_site_that_connects_later_takes_part_from_then_on(tmp_path):
    rounds = run_on(SouthFromRoundTwo, tmp_path, rounds=2)
    assert [sites["south"].status for sites in rounds] == ["absent", "ok"]


def test_a_site_that_leaves_is_absent_from_then_on(tmp_path):
    rounds = run_on(SouthGone, tmp_path, rounds=2)
    assert [sites["south"].status for sites in rounds] == ["ok", "absent"]


class SouthLateByARound(InProcessGrid):
    """South's answer to the training of round 1 is there when round 2's is asked for."""

    asked = 0
    held = None

    def push_messages(self, messages):
        messages = list(messages)
        self.asked += any(message.metadata.message_type == "train" for message in messages)
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        wanted = set(message_ids)
        if self.held is not None and self.held.metadata.reply_to_message_id in wanted:
            if self.asked == 2:
                late, self.held = self.held, None
                return [late]
            wanted.discard(self.held.metadata.reply_to_message_id)
        replies = list(super().pull_messages(wanted))
        if self.asked == 1 and replies and replies[0].metadata.src_node_id == SOUTH:
            self.held = replies[0]
            return []
        return replies


def test_an_answer_after_the_deadline_is_named_in_the_next_round_and_counted_in_none(tmp_path):
    told = []
    rounds = run_on(SouthLateByARound, tmp_path, rounds=3, timeout_s=0.5, told=told)
    assert [sites["south"].status for sites in rounds] == ["absent", "ok", "ok"]
    assert rounds[0]["south"].reason == "no answer"
    assert [dict(sites["south"].late) for sites in rounds] == [{}, {"train": 1}, {}]
    assert told.count("late") == 1
    # Round 2 is what the sites make of round 1 without south: each weight is that of its tokens.
    assert [rounds[1][name].weight for name in SITES] == [0.125, 0.25, 0.625]
    assert rounds[0]["south"].weight == 0


class SouthAway(InProcessGrid):
    """South is gone in round 2, and there again under another number in round 3."""

    asked = 0

    def get_node_ids(self):
        return [[1, 2, 3], [1, 3], [1, 3, 4]][min(self.asked, 2)]

    def push_messages(self, messages):
        messages = list(messages)
        numbers = [int(message.metadata.group_id or 0) for message in messages]
        self.asked = max(self.asked, *numbers)
        return super().push_messages(messages)


class Desk4(Desk):
    """Node 4 speaks for south."""

    def site(self, context):
        return "south" if context.node_id == 4 else super().site(context)


def test_a_site_that_comes_back_takes_part_again(tmp_path):
    rounds = run_on(SouthAway, tmp_path, rounds=3, desk=Desk4(SITES, sites()))
    assert [sites["south"].status for sites in rounds] == ["ok", "absent", "ok"]


def test_a_round_waits_for_its_quorum_to_come_back(tmp_path):
    class Slow(SouthAway):
        """Gone when round 2 begins, for a while."""

        looked = 0

        def get_node_ids(self):
            self.looked += self.asked
            return [1, 2, 3] if self.looked in (0, *range(4, 1000)) else [1, 3]

    rounds = run_on(Slow, tmp_path, rounds=2, min_sites=3, connect_s=30.0)
    assert [sites["south"].status for sites in rounds] == ["ok", "ok"]


def test_a_quorum_that_stays_away_ends_the_run_which_can_be_resumed(tmp_path):
    with pytest.raises(FederationError, match="round 2: 2 of 3 sites trained, 3 are needed"):
        run_on(SouthGone, tmp_path, rounds=2, min_sites=3)
    a_plan = plan(rounds=2, min_sites=3, connect_s=0.1)
    begun = run_module.run_federation(
        plan(rounds=1, min_sites=3), start(), workers=sites(), folder=tmp_path / "1"
    )
    assert (tmp_path / "round-0001").is_dir()
    assert (tmp_path / "round-0002.failed.json").is_file()
    again = run_module.run_federation(
        a_plan, start(), workers=sites(), folder=tmp_path / "1", resume=True
    )
    assert again.records[0] == begun.records[0]
    whole = run_module.run_federation(a_plan, start(), workers=sites(), folder=tmp_path / "whole")
    assert again.adapter.sha256 == whole.adapter.sha256


def test_too_few_sites_connected_end_the_run(tmp_path):
    with pytest.raises(FederationError, match="south absent"):
        run_on(WithoutSouth, tmp_path, min_sites=3)


def test_two_nodes_of_one_name_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Desk, "site", lambda desk, context: "north")
    with pytest.raises(FederationError, match=r"two nodes.*'north'"):
        run_on(InProcessGrid, tmp_path)


def test_a_node_that_takes_a_name_later_is_not_heard(tmp_path, monkeypatch):
    site = Desk.site
    monkeypatch.setattr(
        Desk, "site", lambda desk, context: site(desk, context).replace("south", "north")
    )
    told = []
    rounds = run_on(SouthFromRoundTwo, tmp_path, rounds=2, told=told)
    assert "name-taken" in told
    assert [sites["south"].status for sites in rounds] == ["absent", "absent"]
    assert [sites["north"].status for sites in rounds] == ["ok", "ok"]


def test_an_app_that_breaks_is_told_without_its_words(tmp_path):
    from flwr.app import Error

    class Broken(InProcessGrid):
        def pull_messages(self, message_ids):
            replies = list(super().pull_messages(message_ids))
            return [
                Message(Error(code=1, reason="Mrs Zyxwvut"), reply_to=flipped(reply))
                if (reply.metadata.src_node_id, reply.metadata.message_type) == (SOUTH, "train")
                else reply
                for reply in replies
            ]

    def flipped(reply):
        """The request again, as far as an error reply reads it."""
        meta = reply.metadata
        meta.__dict__["_src_node_id"], meta.__dict__["_dst_node_id"] = 0, SOUTH
        meta.__dict__["_message_id"] = meta.reply_to_message_id
        return reply

    south = run_on(Broken, tmp_path)[0]["south"]
    assert (south.status, south.reason) == ("failed", "its app ended with Flower error 1")


def test_requests_are_forgotten_when_they_are_answered_or_out_of_date(tmp_path):
    grid = CountedGrid(LateSouth(SequentialSwitch(Desk(SITES, sites())), nodes=3))

    def ask(ttl):
        content = RecordDict({wire.CONFIG: ConfigRecord({"run": "toy", "round": 1})})
        asked = [Message(content, node, "train", ttl=ttl) for node in (1, 2, 3)]
        return [one.metadata.src_node_id for one in grid.send_and_receive(asked, timeout=0.3)]

    assert ask(ttl=3600.0) == [1, 3]
    assert [one.dst_node_id for one in grid.asked.values()] == [SOUTH]
    assert ask(ttl=0.1) == [1, 3]
    assert ask(ttl=3600.0) == [1, 3]
    assert [one.ttl for one in grid.asked.values()] == [3600.0, 3600.0]


def test_a_stopped_run_stops_waiting(tmp_path):
    import threading

    stop = threading.Event()
    stop.set()
    grid = CountedGrid(InProcessGrid(SequentialSwitch(Desk(SITES, sites())), nodes=3), stop=stop)
    strategy = RoundStrategy(
        plan(), start(), Progress(ServerState(start().tensors)), folder=tmp_path
    )
    with pytest.raises(FederationError, match="stopped"):
        strategy.begin(grid)


def test_records_of_one_message_hold_only_what_the_wire_module_names():
    content = RecordDict({wire.CONFIG: ConfigRecord({"site": "x"})})
    with pytest.raises(FederationError, match="metrics"):
        wire.numbers(content, wire.METRICS)
