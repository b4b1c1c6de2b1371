"""Secure aggregation through strategy and clients: the plain adapter, and nobody's update."""

import json
import re

import numpy as np
import pytest
from rounds_toys import (
    NAMES,
    TOKENS,
    Trainee,
    keys_in,
    masked_plan,
    off,
    run_masked,
    run_plain,
    start,
    trainee,
)

from fedmedlora.aggregation.outliers import ScreeningOptions
from fedmedlora.aggregation.robust import RobustOptions
from fedmedlora.errors import ConfigError, FederationError
from fedmedlora.federation import run as run_module
from fedmedlora.federation.flower import Array, ArrayRecord, from_bytes, to_bytes
from fedmedlora.federation.grid import SequentialSwitch
from fedmedlora.federation.plan import FederationPlan
from fedmedlora.federation.run import run_federation
from fedmedlora.federation.secure.answering import SecureSite
from fedmedlora.federation.secure.coordinator import SecureSum
from fedmedlora.federation.secure.keys import new_key, public_half
from fedmedlora.federation.secure.options import SecureOptions
from fedmedlora.federation.server_model import ServerModel

STAGES = ("keys", "shares", "train", "agree", "unmask")


@pytest.mark.parametrize("count", range(3, 9))
def test_three_to_eight_sites_end_with_the_plain_adapter(tmp_path, count):
    masked, plain = run_masked(tmp_path, count), run_plain(tmp_path, count)
    assert off(masked.adapter, plain.adapter) <= 1e-5
    record = masked.records[-1]
    assert record.secure["weight"] == pytest.approx(sum(TOKENS[n] for n in NAMES[:count]))
    assert record.secure["error"] <= 1e-5
    assert record.secure["answered"] == {stage: list(NAMES[:count]) for stage in STAGES}


@pytest.mark.parametrize("method", ["ffa-lora", "rolora", "fedavgm", "fedadam"])
def test_methods_that_need_the_average_alone_end_with_the_plain_adapter(tmp_path, method):
    settings = {"method": method, "rounds": 3}
    masked, plain = run_masked(tmp_path, 3, **settings), run_plain(tmp_path, 3, **settings)
    assert off(masked.adapter, plain.adapter) <= 1e-5


def test_sites_weigh_themselves_by_size_and_own_loss(tmp_path):
    settings = {"method": "fed-medlora+", "beta": 0.5, "tau": 0.25, "rounds": 1}
    sites = {name: Trainee(name) for name in NAMES[:3]}
    masked = run_masked(tmp_path, 3, workers=sites, **settings)
    weights = [TOKENS[n] ** 0.5 * np.exp(-(0.2 + 0.1 * k) / 0.25) for k, n in enumerate(NAMES[:3])]
    assert masked.records[0].secure["weight"] == pytest.approx(sum(weights), rel=1e-9)
    updates = [Trainee(n).train(start(), Order).adapter.tensors for n in NAMES[:3]]
    for name, tensor in masked.adapter.tensors.items():
        wanted = sum(w * u[name] for w, u in zip(weights, updates, strict=True)) / sum(weights)
        assert tensor == pytest.approx(wanted, abs=1e-6)
    # Each has scored one adapter: its own.
    assert [site.scored for site in sites.values()] == [[1], [1], [1]]


class Order:
    round, trains, returns = 1, "AB", "AB"


def test_worker_processes_give_the_bits_of_one_process(tmp_path):
    keys = keys_in(tmp_path / "keys", 3)
    alone = run_masked(tmp_path / "1", 3, keys=keys)
    spread = run_masked(tmp_path / "2", 3, keys=keys, processes=2, workers=trainee)
    assert spread.adapter.sha256 == alone.adapter.sha256


# Who falls silent


@pytest.fixture
def silent(monkeypatch):
    """Sites that fail at a stage of a round: {(stage, round): names}."""
    plan, answer, train = {}, SecureSite.answer, Trainee.train

    def answering(self, content, phase):
        if self.site in plan.get((phase, content["config"]["round"]), ()):
            raise OSError("gone")
        return answer(self, content, phase)

    def training(self, adapter, order):
        if self.name in plan.get(("train", order.round), ()):
            raise OSError("gone")
        return train(self, adapter, order)

    monkeypatch.setattr(SecureSite, "answer", answering)
    monkeypatch.setattr(Trainee, "train", training)
    return plan


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("count", [3, 5, 8])
def test_a_site_that_falls_silent_at_any_stage_is_left_out_or_counted(
    tmp_path, silent, stage, count
):
    silent[stage, 1] = ["birch"]
    few = {"secure": SecureOptions(count // 2 + 1), "min_sites": count - 1, "rounds": 1}
    masked = run_masked(tmp_path, count, **few)
    silent.clear()
    counted = stage in ("agree", "unmask")
    if not counted:
        silent["train", 1] = ["birch"]
    plain = run_plain(tmp_path, count, min_sites=count - 1, rounds=1)
    assert off(masked.adapter, plain.adapter) <= 1e-5
    site = masked.records[0].sites["birch"]
    assert (site.status == "ok") is counted
    assert site.secure[stage].startswith("failed: system (incident ")
    assert masked.records[0].sites["ash"].secure == dict.fromkeys(STAGES, "ok")


@pytest.mark.parametrize("stage", STAGES)
def test_below_the_threshold_the_round_fails_and_names_who_is_missing(tmp_path, silent, stage):
    silent[stage, 2] = ["ash", "cedar"]
    told = r"round 2: .*3 are needed.*: ash failed.*; cedar failed"
    with pytest.raises(FederationError, match=told):
        run_masked(tmp_path, 4, min_sites=3)
    folder = tmp_path / "run"
    assert (folder / "round-0001").is_dir()
    assert not (folder / "round-0002").exists()
    failed = json.loads((folder / "round-0002.failed.json").read_text())
    assert failed["status"] == "failed"
    assert not list(folder.rglob("*.npy"))  # no row is left on the coordinator's disk


@pytest.mark.parametrize("stage", STAGES)
def test_a_failed_round_is_made_again_when_the_sites_are_back(tmp_path, silent, stage):
    keys = keys_in(tmp_path / "keys", 4)
    silent[stage, 2] = ["ash", "cedar"]
    with pytest.raises(FederationError):
        run_masked(tmp_path, 4, keys=keys, min_sites=3)
    silent.clear()
    masked = run_masked(tmp_path, 4, keys=keys, min_sites=3, resume=True)
    assert off(masked.adapter, run_plain(tmp_path, 4).adapter) <= 1e-5


def test_a_round_that_was_unmasked_is_not_unmasked_of_other_sites(tmp_path, silent, monkeypatch):
    # The first attempt lacks "ash", is unmasked, and its checkpoint gets lost.
    keys = keys_in(tmp_path / "keys", 4)
    silent["train", 1] = ["ash"]
    run_masked(tmp_path, 4, keys=keys, min_sites=3, rounds=1)
    silent.clear()
    (tmp_path / "run" / "round-0001").rename(tmp_path / "lost")
    masked = run_masked(tmp_path, 4, keys=keys, min_sites=3, rounds=1, resume=True)
    site = masked.records[0].sites["ash"]
    assert site.status == "absent"
    assert "unmasked without it in an earlier attempt" in site.reason
    silent["train", 1] = ["ash"]
    plain = run_plain(tmp_path, 4, min_sites=3, rounds=1)
    assert off(masked.adapter, plain.adapter) <= 1e-5


def test_a_site_refuses_the_difference_of_two_sums_of_one_round(tmp_path, silent, monkeypatch):
    # A coordinator that would not leave "ash" out gets nothing.
    keys = keys_in(tmp_path / "keys", 4)
    silent["train", 1] = ["ash"]
    run_masked(tmp_path, 4, keys=keys, min_sites=3, rounds=1)
    silent.clear()
    (tmp_path / "run" / "round-0001").rename(tmp_path / "lost")
    monkeypatch.setattr(
        "fedmedlora.federation.secure.exchange.SecureRound._keep_to", lambda self, bounds: None
    )
    with pytest.raises(FederationError, match=r"1 sites have signed.* birch failed: protocol"):
        run_masked(tmp_path, 4, keys=keys, min_sites=3, rounds=1, resume=True)
    log = (tmp_path / "run/site-logs/birch.log").read_text()
    assert "would be one site's own update" in log


# What crosses, and what stays


@pytest.fixture
def crossed(monkeypatch):
    """Every message that crosses: (node, True if it goes to the site, message)."""
    found = []

    class Tapped(SequentialSwitch):
        def send(self, node, data):
            found.append((node, True, from_bytes(data)))
            super().send(node, data)

        def receive(self):
            data = super().receive()
            message = from_bytes(data)
            found.append((message.metadata.src_node_id, False, message))
            return data

    monkeypatch.setattr(run_module, "SequentialSwitch", Tapped)
    return found


def test_what_leaves_a_site_has_no_size_no_loss_and_no_number_of_its_own(tmp_path, crossed):
    run_masked(tmp_path, 3, method="fed-medlora+", rounds=1)
    replies = [message.content for _, down, message in crossed if not down]
    assert len(replies) == 3 * 6
    for content in replies:
        assert not content.metric_records
        values = [v for v in content.config_records["config"].values() if not isinstance(v, str)]
        assert not [v for v in values if isinstance(v, float)]
        assert {v for v in values if isinstance(v, int)} <= {0, 1}  # the round; 0 when it joins
    record = json.loads((tmp_path / "run/round-0001/round.json").read_text())
    for site in record["sites"].values():
        assert (site["examples"], site["tokens"], site["weight"]) == (0, 0, None)
        assert (site["loss_first"], site["validation_loss"], site["declared"]) == (None, None, {})
    contributions = (tmp_path / "run/round-0001/contributions.json").read_text()
    assert '"weight": null' in contributions


def rows_of(crossed):
    return {
        node: content["adapter"]["packed"].numpy()
        for node, down, message in crossed
        if not down and "adapter" in (content := message.content).array_records
    }


def test_masked_rows_are_uniform_and_equal_to_none_of_another_run(tmp_path, crossed):
    class Still(Trainee):
        def train(self, adapter, order):
            update = super().train(adapter, order)
            update.adapter.tensors.update({n: t.copy() for n, t in adapter.tensors.items()})
            return update

    workers = {name: Still(name) for name in NAMES[:3]}
    first = run_masked(tmp_path / "1", 3, workers=workers, rounds=1)
    rows = rows_of(crossed)
    crossed.clear()
    again = run_masked(tmp_path / "2", 3, workers=workers, rounds=1)
    assert first.adapter.sha256 == again.adapter.sha256 == start().sha256
    assert len(rows) == 3
    for node, row in rows_of(crossed).items():
        assert row.dtype == np.uint64
        assert not np.any(row == rows[node])
        assert np.all(row != 0)  # as its updates are


def test_no_secret_of_an_attempt_is_left_and_what_is_kept_is_the_owners_alone(tmp_path):
    run_masked(tmp_path, 3)
    for name in NAMES[:3]:
        own = tmp_path / "run" / "own" / name / "secure"
        assert own.stat().st_mode & 0o777 == 0o700
        assert sorted(path.name for path in own.iterdir()) == ["ledger.json", "lock"]
        assert (own / "lock").read_bytes() == b""
        assert (own / "ledger.json").stat().st_mode & 0o777 == 0o600
        ledger = json.loads((own / "ledger.json").read_text())
        assert ledger["unmasked"] == {f"toy/{n}": list(NAMES[:3]) for n in (1, 2)}
        assert ledger["parts"]["toy/1"]["weight"] == TOKENS[name]
        assert ledger["parts"]["toy/1"]["norm_cut"] is False


def test_secrets_between_messages_are_the_owners_alone(tmp_path, silent):
    silent["train", 1] = NAMES[:3]
    with pytest.raises(FederationError):
        run_masked(tmp_path, 3)
    for name in NAMES[:3]:
        path = tmp_path / "run" / "own" / name / "secure" / "attempt.json"
        assert path.stat().st_mode & 0o777 == 0o600
        secret = json.loads(path.read_text())["channel"]
        assert re.fullmatch("[0-9a-f]{64}", secret)
        for other in (tmp_path / "run").rglob("*"):
            if other.is_file() and other != path:
                assert secret.encode() not in other.read_bytes()
                assert bytes.fromhex(secret) not in other.read_bytes()


def test_what_is_cut_is_noted_for_the_site_alone(tmp_path):
    bounds = SecureOptions(largest_norm=0.01, largest_weight=150.0)
    result = run_masked(tmp_path, 3, secure=bounds, rounds=1)
    assert result.records[0].secure["weight"] == pytest.approx(100 + 150 + 150)
    moved = sum(
        float(np.sum((result.adapter.tensors[n] - t).astype(np.float64) ** 2))
        for n, t in start().tensors.items()
    )
    assert moved**0.5 <= 0.01
    for name, cut in (("ash", False), ("birch", True)):
        ledger = json.loads((tmp_path / f"run/own/{name}/secure/ledger.json").read_text())
        assert ledger["parts"]["toy/1"]["norm_cut"] is True
        assert ledger["parts"]["toy/1"]["weight_cut"] is cut


# Who stands in between


def changing(monkeypatch, change):
    """Every request passes ``change(site, phase, content)`` before its site gets it."""

    class Between(SequentialSwitch):
        def send(self, node, data):
            message = from_bytes(data)
            kind = message.metadata.message_type.removeprefix("query.")
            change(NAMES[node - 1], kind, message.content)
            super().send(node, to_bytes(message))

    monkeypatch.setattr(run_module, "SequentialSwitch", Between)


def logs_of(folder):
    return {p.stem: p.read_text() for p in (folder / "run/site-logs").glob("*.log")}


def test_a_coordinator_that_swaps_a_key_is_found_by_every_other_site(tmp_path, monkeypatch):
    def swapped(site, kind, content):
        if kind == "shares" and site != "ash":
            config = dict(content["config"])
            config["channels"] = [public_half(new_key()).hex(), *config["channels"][1:]]
            content["config"].update(config)

    changing(monkeypatch, swapped)
    with pytest.raises(FederationError, match="1 sites have shared their keys, 3 are needed"):
        run_masked(tmp_path, 3)
    logs = logs_of(tmp_path)
    assert set(logs) == {"birch", "cedar"}
    assert all("the keys of site 'ash' are not signed by it" in log for log in logs.values())


def zeros(array):
    return Array(np.zeros_like(array.numpy()))


@pytest.mark.parametrize(
    ("attack", "told"),
    [("model", "asked to train something else"), ("order", "failed: protocol")],
)
@pytest.mark.parametrize("victim", ["ash", "dogwood"])
def test_a_coordinator_that_asks_one_site_alone_for_an_update_gets_none(
    tmp_path, monkeypatch, attack, told, victim
):
    honest = ServerModel.requests

    def lonely(self, calls):
        for site, content in honest(self, calls):
            if site != victim and attack == "model":
                packed = content["adapter"]["packed"]
                content["adapter"] = ArrayRecord({"packed": zeros(packed)})
            elif site != victim:
                content["config"].update({"trains": "A", "returns": "B"})
            yield site, content

    monkeypatch.setattr(ServerModel, "requests", lonely)
    monkeypatch.setattr(SecureSum, "ask", lambda self, asked: setattr(self, "_asked", asked))
    with pytest.raises(FederationError, match=told):
        run_masked(tmp_path, 4, min_sites=3, rounds=1)
    assert not (tmp_path / "run" / "round-0001").exists()


@pytest.mark.parametrize(
    "changes",
    [{"trains": "A"}, {"returns": "B"}, {"initial": "0" * 64}],
    ids=str,
)
def test_a_site_trains_what_its_method_says_and_nothing_else(tmp_path, monkeypatch, changes):
    def changed(site, kind, content):
        if kind == "train":
            content["config"].update(changes)

    changing(monkeypatch, changed)
    with pytest.raises(FederationError, match="0 of 3 sites trained"):
        run_masked(tmp_path, 3)
    logs = logs_of(tmp_path)
    assert len(logs) == 3
    assert all("fed-medlora" in log and "FederationError" in log for log in logs.values())


def test_a_request_that_is_repeated_is_answered_once(tmp_path, monkeypatch):
    kept = {}

    class Repeating(SequentialSwitch):
        """Gives every request twice; the coordinator gets the second answer."""

        def receive(self):
            self._waiting.insert(0, self._waiting[0])
            first = from_bytes(super().receive())
            second = super().receive()
            kind = first.metadata.message_type
            kept.setdefault(kind, []).append(dict(from_bytes(second).content["config"]))
            return second

    monkeypatch.setattr(run_module, "SequentialSwitch", Repeating)
    with pytest.raises(FederationError, match="0 sites have advertised keys"):
        run_masked(tmp_path, 3)
    assert [one["status"] for one in kept["query.keys"]] == ["failed"] * 3
    assert [one["code"] for one in kept["query.keys"]] == ["protocol"] * 3
    assert all("it is replayed" in log for log in logs_of(tmp_path).values())


@pytest.mark.parametrize("kind", ["shares", "train", "agree", "unmask"])
def test_a_step_that_is_asked_for_twice_is_refused(tmp_path, monkeypatch, kind):
    twice = []

    class Repeating(SequentialSwitch):
        def receive(self):
            waiting = self._waiting[0]
            reply = super().receive()
            if from_bytes(reply).metadata.message_type.removeprefix("query.") == kind:
                self._waiting.insert(0, waiting)
                twice.append(dict(from_bytes(super().receive()).content["config"]))
            return reply

    monkeypatch.setattr(run_module, "SequentialSwitch", Repeating)
    run_masked(tmp_path, 3, rounds=1)  # the first answer counts, and the run goes on
    assert [one["code"] for one in twice] == ["protocol"] * 3


def test_requests_of_an_earlier_round_are_refused(tmp_path, monkeypatch):
    kept, told = {}, []

    class Replaying(SequentialSwitch):
        def send(self, node, data):
            message = from_bytes(data)
            kind, number = message.metadata.message_type, message.content["config"].get("round")
            if number == 1:
                kept[node, kind] = data
            if number == 2 and kind != "train":
                super().send(node, kept[node, kind])
                told.append(dict(from_bytes(super().receive()).content["config"]))
            super().send(node, data)

    monkeypatch.setattr(run_module, "SequentialSwitch", Replaying)
    result = run_masked(tmp_path, 3)
    assert len(result.records) == 2
    assert len(told) == 4 * 3
    assert {one["code"] for one in told} == {"protocol"}


@pytest.mark.parametrize("kind", ["train", "score"])
def test_a_site_under_secure_aggregation_answers_no_plain_request(tmp_path, kind, monkeypatch):
    keys = keys_in(tmp_path / "keys", 3)
    terms = masked_plan(3, keys[1]).terms
    plain = run_module.Desk

    def secured(*arguments, **settings):
        return plain(*arguments, **{**settings, "secure": terms})

    monkeypatch.setattr(run_module, "Desk", secured)
    method = "fed-medlora+" if kind == "score" else "fed-medlora"
    plan = FederationPlan("toy", NAMES[:3], 1, wire="fp32", method=method, public_keys=keys[1])
    with pytest.raises(FederationError, match="0 of 3 sites trained"):
        run_federation(
            plan, start(), workers={n: Trainee(n) for n in NAMES[:3]}, folder=tmp_path / "run",
            keys=keys[0],
        )  # fmt: skip


# Plans that cannot be


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "fedex-lora"}, "method 'fedex-lora'"),
        ({"method": "flexlora"}, "method 'flexlora'"),
        ({"method": "fed-medlora+", "validation": "server"}, "validation 'server'"),
        ({"wire": "bf16"}, "wire 'bf16'"),
        ({"wire": "int8"}, "wire 'int8'"),
        ({"screening": None}, "screening"),
        ({"robust": "median"}, "robust"),
        ({"min_sites": 2}, "min_sites is 2"),
        ({"secure": SecureOptions(2)}, "threshold"),
        ({"secure": SecureOptions(largest_norm=0.0)}, "largest_norm"),
    ],
)
def test_what_needs_single_updates_cannot_be_in_a_plan(tmp_path, changes, told):
    if "screening" in changes:
        changes = {"screening": ScreeningOptions()}
    if "robust" in changes:
        changes = {"robust": RobustOptions("median")}
    with pytest.raises(ConfigError, match=told):
        masked_plan(4, keys_in(tmp_path, 4)[1], **changes).terms  # noqa: B018


def test_secure_aggregation_without_keys_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="public key of every site"):
        run_federation(
            masked_plan(3, ()), start(), workers={n: Trainee(n) for n in NAMES[:3]},
            folder=tmp_path,
        )  # fmt: skip
