"""A federation of toy sites in one process, end to end."""

import json
import shutil

import numpy as np
import pytest
from federation_toy import (
    MANIFEST,
    PULL,
    SITES,
    A,
    B,
    Poisoned,
    Raising,
    ToySite,
    plan,
    sites,
    start,
)

from fedmedlora.errors import AdapterError, ConfigError, Ended, FederationError, RunError
from fedmedlora.federation.run import run_federation
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.adapter_files import read_adapter
from fedmedlora.model.bfloat import from_bf16, to_bf16


def run(folder, *, workers=None, initial=None, **changes):
    keywords = {
        key: changes.pop(key)
        for key in ("engine", "server_losses", "on_round", "on_event", "resume")
        if key in changes
    }
    return run_federation(
        plan(**changes), initial or start(), workers=workers or sites(), folder=folder, **keywords
    )


def test_one_round_is_the_average_by_training_tokens(tmp_path):
    result = run(tmp_path, rounds=1, wire="fp32")
    # B: 0 -> 0.5, 1, 2.5 at the sites; weights 1/8, 2/8, 5/8: 0.0625 + 0.25 + 1.5625
    assert np.allclose(result.adapter.tensors[B], 1.875, atol=1e-7)
    assert np.allclose(result.adapter.tensors[A], start().tensors[A] + np.float32(0.1), atol=1e-7)
    record = result.records[0]
    assert [site.weight for site in record.sites.values()] == [0.125, 0.25, 0.625]
    assert {site.status for site in record.sites.values()} == {"ok"}


def test_two_rounds_start_the_second_from_the_firsts_average(tmp_path):
    result = run(tmp_path, rounds=2, wire="fp32")
    # round 2: (1.875 + pull) / 2 = 1.4375, 1.9375, 3.4375: .1796875 + .484375 + 2.1484375
    assert np.allclose(result.adapter.tensors[B], 2.8125, atol=1e-6)
    assert [record.round for record in result.records] == [1, 2]


def test_sizes_may_be_examples(tmp_path):
    result = run(tmp_path, rounds=1, size="examples")
    assert [site.weight for site in result.records[0].sites.values()] == [0.125, 0.25, 0.625]


def test_plus_scored_at_the_sites_pools_their_losses_by_tokens(tmp_path):
    result = run(tmp_path, rounds=1, method="fed-medlora+", beta=0, wire="fp32")
    record = result.records[0]
    # Candidates .5, 1, 2.5; pulls 1, 2, 5 by 100, 200, 500 of 800 tokens:
    # .5: (.5*1 + 1.5*2 + 4.5*5)/8 = 3.25; 1: (0 + 1*2 + 4*5)/8 = 2.75;
    # 2.5: (1.5 + .5*2 + 2.5*5)/8 = 1.875
    assert [site.validation_loss for site in record.sites.values()] == pytest.approx(
        [3.25, 2.75, 1.875], abs=1e-6
    )
    raw = np.exp(-np.array([3.25, 2.75, 1.875]))
    weights = [site.weight for site in record.sites.values()]
    assert weights == pytest.approx(raw / raw.sum(), abs=1e-6)
    assert {site.scoring for site in record.sites.values()} == {"ok"}
    assert np.allclose(result.adapter.tensors[B], np.dot(weights, [0.5, 1, 2.5]), atol=1e-6)


def test_plus_scored_at_the_server_uses_the_servers_losses(tmp_path):
    seen = []

    def losses(adapters):
        seen.append([float(one.tensors[B].mean()) for one in adapters])
        return [0.30, 0.35, 0.40]

    result = run(
        tmp_path, rounds=1, method="fed-medlora+", beta=0, validation="server", server_losses=losses
    )
    assert seen == [[0.5, 1.0, 2.5]]
    weights = [site.weight for site in result.records[0].sites.values()]
    assert weights == pytest.approx([0.350132, 0.333056, 0.316812], abs=1e-6)
    assert {site.scoring for site in result.records[0].sites.values()} == {None}


def test_plus_with_beta_one_takes_sizes_into_account(tmp_path):
    result = run(
        tmp_path, rounds=1, method="fed-medlora+", validation="server",
        server_losses=lambda adapters: [7.0] * len(adapters),
    )  # fmt: skip
    weights = [site.weight for site in result.records[0].sites.values()]
    assert weights == pytest.approx([0.125, 0.25, 0.625], abs=1e-12)


def test_the_server_cannot_score_without_a_function(tmp_path):
    with pytest.raises(ConfigError, match="server_losses"):
        run(tmp_path, method="fed-medlora+", validation="server")


@pytest.mark.parametrize("wire", ["bf16", "fp32", "int8", "int4"])
@pytest.mark.parametrize("method", ["fed-medlora", "fed-medlora+"])
def test_same_inputs_give_the_same_adapter_bit_for_bit(tmp_path, wire, method):
    one = run(tmp_path / "1", method=method, wire=wire, rounds=3)
    two = run(tmp_path / "2", method=method, wire=wire, rounds=3)
    assert one.adapter.sha256 == two.adapter.sha256
    assert [r.adapter_sha256 for r in one.records] == [r.adapter_sha256 for r in two.records]


def test_bf16_rounds_what_travels_and_keeps_the_average_in_float32(tmp_path):
    result = run(tmp_path, rounds=1, wire="bf16")
    sent = from_bf16(to_bf16(start().tensors[A]))
    received = from_bf16(to_bf16(sent + np.float32(0.1)))
    assert np.allclose(result.adapter.tensors[A], received, atol=1e-7)


def test_what_a_round_rounds_away_is_kept_at_the_site_and_sent_in_the_next(tmp_path):
    undisturbed = run(tmp_path, wire="int4", rounds=5)
    kept = sorted((tmp_path / "own" / "north" / "rounding" / "AB").iterdir())
    assert [place.name for place in kept] == ["round-0003", "round-0004", "round-0005"]
    assert np.abs(np.load(kept[-1] / "rounding.npy")).max() > 0

    def fifth_again():
        shutil.rmtree(tmp_path / "round-0005")
        return run(tmp_path, wire="int4", rounds=5, resume=True).adapter.sha256

    assert fifth_again() == undisturbed.adapter.sha256
    shutil.rmtree(tmp_path / "own")
    assert fifth_again() != undisturbed.adapter.sha256


def test_sites_do_not_share_memory_with_each_other_or_the_server(tmp_path):
    class Vandal(ToySite):
        def train(self, adapter, order):
            update = super().train(adapter, order)
            for tensor in adapter.tensors.values():
                tensor[:] = 1e6
            return update

    initial = start()
    before = initial.sha256
    wild = run(tmp_path / "1", workers=sites(north=Vandal("north")), initial=initial)
    assert initial.sha256 == before
    assert wild.adapter.sha256 == run(tmp_path / "2").adapter.sha256


def test_bytes_are_those_of_the_serialised_messages(tmp_path):
    result = run(tmp_path, rounds=1, method="fed-medlora+", wire="fp32")
    values = 4 * MANIFEST.size
    overhead = len(MANIFEST.to_json())
    for site in result.records[0].sites.values():
        train, score = site.phases["train"], site.phases["score"]
        assert values + overhead < train[0] < values + overhead + 600
        assert values + overhead < train[1] < values + overhead + 900
        assert 3 * values + overhead < score[0] < 3 * values + overhead + 600
        assert score[1] < 500  # losses only
        assert (site.bytes_down, site.bytes_up) == (train[0] + score[0], train[1] + score[1])


def test_bf16_halves_the_values_that_travel(tmp_path):
    full = run(tmp_path / "1", rounds=1, wire="fp32").records[0].sites["north"]
    half = run(tmp_path / "2", rounds=1, wire="bf16").records[0].sites["north"]
    saved = full.bytes_up - half.bytes_up
    assert abs(saved - 2 * MANIFEST.size) < 8  # the dtype's name and lengths differ too


def test_what_the_sites_report_is_in_the_record(tmp_path):
    site = run(tmp_path, rounds=1).records[0].sites["south"]
    assert (site.examples, site.tokens, site.seconds) == (20, 200, 0.25)
    assert (site.loss_first, site.loss_last) == (1.0, 0.5)
    assert site.counts == {"rows_cut": 3, "share": 0.5}


def test_every_round_has_a_checkpoint_that_opens(tmp_path):
    told = []
    result = run(
        tmp_path, rounds=2, on_round=lambda record, adapter: told.append((record, adapter))
    )
    for record, adapter in told:
        folder = tmp_path / record.checkpoint
        assert read_adapter(folder / "adapter").sha256 == adapter.sha256 == record.adapter_sha256
        assert json.loads((folder / "round.json").read_text())["round"] == record.round
    assert [record for record, _ in told] == list(result.records)


def test_progress_is_told_in_order(tmp_path):
    told = []
    run(tmp_path, rounds=1, on_event=lambda kind, **facts: told.append((kind, facts)))
    kinds = [*["joined"] * 3, "round", *["reply"] * 3, "round-done"]
    assert [kind for kind, _ in told] == kinds
    assert [facts["site"] for kind, facts in told if kind == "reply"] == list(SITES)


# Sites that fail


def test_a_failing_site_ends_the_run_and_the_failed_round_is_on_disk(tmp_path):
    with pytest.raises(FederationError, match=r"2 of 3 sites trained.*south failed"):
        run(tmp_path, workers=sites(south=Raising("south", round=2)))
    failed = json.loads((tmp_path / "round-0002.failed.json").read_text())
    assert failed["status"] == "failed"
    assert failed["sites"]["south"]["status"] == "failed"
    assert failed["sites"]["north"]["status"] == "ok"
    assert (tmp_path / "round-0001" / "round.json").exists()
    assert not (tmp_path / "round-0002").exists()


def test_with_fewer_needed_the_round_goes_on_and_names_who_is_missing(tmp_path):
    result = run(tmp_path, rounds=1, min_sites=2, workers=sites(south=Raising("south")))
    sites_ = result.records[0].sites
    assert sites_["south"].status == "failed"
    assert sites_["south"].weight == 0
    assert sites_["south"].bytes_down > 0
    assert [sites_[name].weight for name in ("north", "west")] == pytest.approx([1 / 6, 5 / 6])


@pytest.mark.parametrize(
    ("error", "code"), [(ValueError, "error"), (MemoryError, "memory"), (OSError, "system")]
)
def test_a_failure_is_a_word_and_a_number_and_its_text_stays_at_the_site(tmp_path, error, code):
    workers = sites(south=Raising("south", error=error))
    result = run(tmp_path, rounds=1, min_sites=1, workers=workers)
    reason = result.records[0].sites["south"].reason
    assert reason.startswith(f"{code} (incident ")
    assert "Zyxwvut" not in json.dumps(result.records[0].to_dict())
    log = (tmp_path / "site-logs" / "south.log").read_text()
    assert "Zyxwvut" in log
    assert reason.split("incident ")[1].split()[0] in log


def test_a_poisoned_adapter_is_refused_by_name(tmp_path):
    result = run(tmp_path, rounds=1, min_sites=2, workers=sites(west=Poisoned("west")))
    west = result.records[0].sites["west"]
    assert west.status == "refused"
    assert "not finite" in west.reason
    assert "lora_B" in west.reason
    with pytest.raises(FederationError, match="west refused"):
        run(tmp_path / "strict", workers=sites(west=Poisoned("west")))


def test_a_candidate_without_a_finite_loss_is_refused(tmp_path):
    result = run(
        tmp_path, rounds=1, method="fed-medlora+", validation="server", min_sites=2, beta=0,
        server_losses=lambda adapters: [1.0, float("nan"), 1.0],
    )  # fmt: skip
    record = result.records[0]
    assert record.sites["south"].status == "refused"
    assert [site.weight for site in record.sites.values()] == [0.5, 0, 0.5]


def test_no_candidate_with_a_finite_loss_ends_the_run(tmp_path):
    with pytest.raises(FederationError, match="0 of 3"):
        run(
            tmp_path, method="fed-medlora+", validation="server", min_sites=1,
            server_losses=lambda adapters: [float("inf")] * 3,
        )  # fmt: skip


def test_a_site_that_cannot_score_is_named(tmp_path):
    class Mute(ToySite):
        def losses(self, adapters):
            raise KeyError("Zyxwvut")

    workers = sites(west=Mute("west"))
    result = run(tmp_path, rounds=1, method="fed-medlora+", min_sites=2, workers=workers)
    west = result.records[0].sites["west"]
    assert (west.status, west.scoring.split(" (")[0]) == ("ok", "failed: error")
    assert west.validation_loss is not None  # the others scored its adapter
    with pytest.raises(FederationError, match="2 of 3 sites scored"):
        run(tmp_path / "strict", method="fed-medlora+", workers=workers)


@pytest.mark.parametrize("end", [KeyboardInterrupt(), Ended(143)])
def test_ctrl_c_or_sigterm_in_a_round_leaves_the_rounds_before_it(tmp_path, end):
    class Interrupted(ToySite):
        def train(self, adapter, order):
            if order.round == 2:
                raise end
            return super().train(adapter, order)

    with pytest.raises(type(end)):
        run(tmp_path, rounds=3, workers=sites(west=Interrupted("west")))
    assert sorted(path.name for path in tmp_path.glob("round-*")) == ["round-0001"]
    assert run(tmp_path, rounds=3, resume=True).adapter.sha256 == (
        run(tmp_path / "other", rounds=3).adapter.sha256
    )


# Resuming


@pytest.mark.parametrize("stop_after", [1, 2])
@pytest.mark.parametrize("method", ["fed-medlora", "fed-medlora+"])
def test_a_resumed_run_ends_with_the_bits_of_an_undisturbed_one(tmp_path, stop_after, method):
    whole = run(tmp_path / "whole", rounds=3, method=method)
    cut = tmp_path / "cut"
    failing = sites(south=Raising("south", round=stop_after + 1))
    with pytest.raises(FederationError):
        run(cut, rounds=3, method=method, workers=failing)
    workers = sites()
    resumed = run(cut, rounds=3, method=method, workers=workers, resume=True)
    assert resumed.adapter.sha256 == whole.adapter.sha256
    assert workers["north"].rounds == list(range(stop_after + 1, 4))
    assert [r.adapter_sha256 for r in resumed.records] == [r.adapter_sha256 for r in whole.records]
    assert not list(cut.glob("*.failed.json"))


def test_resuming_a_finished_run_trains_nothing(tmp_path):
    done = run(tmp_path)
    workers = sites()
    again = run(tmp_path, workers=workers, resume=True)
    assert again.adapter.sha256 == done.adapter.sha256
    assert again.records == done.records
    assert workers["north"].rounds == []


def test_the_last_round_is_told_again_on_resuming(tmp_path):
    def ended(record, adapter):
        if record.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, rounds=3, method="fedex-lora", on_round=ended)
    told = []
    run(tmp_path, rounds=3, method="fedex-lora", resume=True,
        on_round=lambda record, adapter: told.append((record.round, adapter.sha256)))  # fmt: skip
    whole = []
    run(tmp_path / "whole", rounds=3, method="fedex-lora",
        on_round=lambda record, adapter: whole.append((record.round, adapter.sha256)))  # fmt: skip
    assert told == whole[1:]


def test_more_rounds_may_be_asked_for_on_resuming(tmp_path):
    run(tmp_path, rounds=1)
    more = run(tmp_path, rounds=3, resume=True)
    assert more.adapter.sha256 == run(tmp_path / "whole", rounds=3).adapter.sha256


def test_resuming_a_run_that_never_began_begins_it(tmp_path):
    assert len(run(tmp_path / "new", resume=True).records) == 2


def test_a_folder_with_rounds_is_not_overwritten(tmp_path):
    run(tmp_path)
    with pytest.raises(RunError, match="already holds rounds"):
        run(tmp_path)


@pytest.mark.parametrize("change", [{"method": "fed-medlora+"}, {"wire": "fp32"}, {"seed": 3}])
def test_another_plan_is_not_resumed(tmp_path, change):
    run(tmp_path)
    with pytest.raises(RunError, match=next(iter(change))):
        run(tmp_path, resume=True, **change)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"plan": [1], "initial_sha256": "x"}'])
def test_a_broken_plan_file_is_named(tmp_path, content):
    run(tmp_path)
    (tmp_path / "federation.json").write_text(content)
    with pytest.raises(RunError, match=r"federation\.json: cannot be read"):
        run(tmp_path, resume=True)


def test_another_initial_adapter_is_not_resumed(tmp_path):
    run(tmp_path)
    with pytest.raises(RunError, match="initial adapter"):
        run(tmp_path, resume=True, initial=start(1.0))


def test_a_damaged_round_is_set_aside_and_made_again(tmp_path):
    whole = run(tmp_path, rounds=3)
    file = tmp_path / "round-0002" / "adapter" / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    told = []
    again = run(tmp_path, rounds=3, resume=True, on_event=lambda kind, **f: told.append((kind, f)))
    assert told[0] == ("set-aside", {"rounds": ("round-0002.broken", "round-0003.broken")})
    assert again.adapter.sha256 == whole.adapter.sha256


def test_a_full_disk_in_a_checkpoint_leaves_the_last_good_one(tmp_path, monkeypatch):
    from fedmedlora.model import adapter_files

    write = adapter_files.write_bytes

    def full(path, data):
        if "round-0002" in str(path) and path.suffix == ".safetensors":
            write(path, data[:64])
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(adapter_files, "write_bytes", full)
    with pytest.raises(RunError, match="No space left"):
        run(tmp_path, rounds=3)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"federation.json", "declared.json", "round-0001"}
    monkeypatch.undo()
    resumed = run(tmp_path, rounds=3, resume=True)
    assert resumed.adapter.sha256 == run(tmp_path / "whole", rounds=3).adapter.sha256


# What is refused before anything runs


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 0}, {"sites": ()}, {"sites": ("a", "a")}, {"method": "fedprox"}, {"beta": -1},
        {"tau": 0}, {"min_sites": 4}, {"min_sites": 0}, {"wire": "int2"}, {"validation": "both"},
        {"processes": 0}, {"run_id": ""}, {"timeout_s": 0}, {"size": "bytes"},
    ],
)  # fmt: skip
def test_a_plan_out_of_range_is_refused_naming_the_key(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        plan(**change)


def test_an_unknown_engine_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="spark"):
        run(tmp_path, engine="spark")


def test_a_malformed_initial_adapter_is_refused(tmp_path):
    with pytest.raises(AdapterError):
        run(tmp_path, initial=Adapter(MANIFEST, {A: start().tensors[A]}))


def test_one_site_alone_gets_its_own_adapter_back(tmp_path):
    result = run(tmp_path, sites=("west",), rounds=1, wire="fp32")
    assert np.array_equal(
        result.adapter.tensors[B], np.full((4, 2), PULL["west"][0] / 2, np.float32)
    )
