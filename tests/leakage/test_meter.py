"""The meter on a real run of tiny synthetic sites, and what it says where it cannot measure."""

import json
import re
import shutil

import numpy as np
import pytest
from leakage_toys import study_of

from fedmedlora.cli import run_command
from fedmedlora.errors import ConfigError, RunError
from fedmedlora.evaluation.intervals import Bootstrap
from fedmedlora.federation.sums import write_sums
from fedmedlora.leakage import exposure
from fedmedlora.leakage.bench import LeakageBench, NoteLosses
from fedmedlora.leakage.membership import _records, _side
from fedmedlora.leakage.meter import measure_leakage
from fedmedlora.leakage.records import read_leakage
from fedmedlora.leakage.words import rare_words
from fedmedlora.schema import Document
from fedmedlora.study.data import load_data
from fedmedlora.study.run_folder import RunFolder


def test_every_adapter_is_measured_at_the_sites_that_trained_it(plain):
    found = read_leakage(RunFolder(plain))
    assert set(found.adapters) == {"single-site/icu", "single-site/outpatient", "fed-medlora"}
    places = {(one.method, one.site) for one in found.membership}
    assert places == {
        ("single-site/icu", "icu"),
        ("single-site/outpatient", "outpatient"),
        *(("fed-medlora", site) for site in ("icu", "outpatient", "all")),
    }
    [both] = [
        one
        for one in found.membership
        if (one.method, one.site, one.against, one.score)
        == ("fed-medlora", "outpatient", "held-out", "loss")
    ]
    # Two notes a patient: 6 training notes are 3, 1 and 2 held-out notes one each.
    assert (both.unit, both.members, both.others) == ("patient", 3, 2)
    assert 0 <= both.low <= both.auc <= both.high <= 1
    assert all(0 <= one.tpr_low <= one.tpr <= one.tpr_high <= 1 for one in found.membership)
    # Nobody can be sure of a share among three.
    assert both.tpr_high - both.tpr_low > 0.5
    assert not found.exposure
    assert any("canaries" in sentence for sentence in found.missing)


def test_measuring_twice_writes_the_same_file_and_no_text_of_notes(plain):
    first = (plain / "leakage.json").read_bytes()
    measure_leakage(plain)
    assert (plain / "leakage.json").read_bytes() == first
    words = {
        word
        for line in (plain / "gold" / "icu.jsonl").read_text().splitlines()
        for entity in json.loads(line)["entities"]
        for word in [json.loads(line)["text"][entity["start"] : entity["end"]]]
        if len(word) > 6
    }
    assert words
    assert not any(word in first.decode() for word in words)


def test_planted_secrets_are_ranked_by_kind_and_repetitions(canaries, monkeypatch):
    monkeypatch.setattr(exposure, "CANDIDATES", 15)
    found = measure_leakage(canaries)
    assert [(one.kind, one.repetitions) for one in found.exposure] == [
        ("beside", 1), ("beside", 2), ("inside", 1), ("inside", 2),
    ]  # fmt: skip
    for one in found.exposure:
        assert (one.canaries, one.candidates) == (2, 15)
        assert 0 <= one.low <= one.bits <= one.high <= one.most <= 4


def test_withheld_notes_are_trained_on_by_nobody_and_compared_with(canaries, tmp_path):
    study = study_of(tmp_path, "leakage.withhold=3")
    whole, held = load_data(study_of(tmp_path)), load_data(study)
    for before, site in zip(whole.sites, held.sites, strict=True):
        ids = [one.id for one in before.train]
        assert sorted([one.id for one in (*site.train, *site.withheld)]) == sorted(ids)
        # Two notes a patient: the fourth goes with the third.
        assert len(site.withheld) == 4
        assert not {one.group for one in site.train} & {one.group for one in site.withheld}
    told = json.loads((canaries / "data.json").read_text())["sites"]
    assert {name: site["withheld"] for name, site in told.items()} == {"icu": 2, "outpatient": 2}
    assert {name: site["canaries"] for name, site in told.items()} == {"icu": 4, "outpatient": 4}


def test_the_untrained_losses_are_of_the_very_notes_that_are_measured(plain):
    bench = LeakageBench(RunFolder(plain), ["fed-medlora"])
    [arm] = bench.arms
    site = bench.sites(arm)[0]
    first, second = site.train[:2], site.train[2:4]
    before = [bench.before(arm, site, notes, split="train") for notes in (first, second)]
    for found, notes in zip(before, (first, second), strict=True):
        again = bench.losses(arm, None, site, notes)
        assert found.losses.tolist() == again.losses.tolist()
    assert before[0].losses.tolist() != before[1].losses.tolist()


def test_only_training_notes_hold_canaries(canaries):
    data = load_data(RunFolder(canaries).study())
    numbers = [str(one.secret.number) for site in data.sites for one in site.canaries]
    assert len(set(numbers)) == 8
    scored = "".join(file.read_text() for file in (canaries / "gold").glob("*.jsonl"))
    held = "".join(one.text for site in data.sites for one in (*site.validation, *site.withheld))
    trained = "".join(one.text for site in data.sites for one in site.train)
    assert not any(number in scored + held for number in numbers)
    assert all(number in trained for number in numbers)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("leakage={withhold: 6}", "withhold: 6 of a site's 6 training notes"),
        ("leakage={canaries: 1}", "repetitions: 16 is more than the"),
        ("leakage={repetitions: [4, 4]}", "leakage.repetitions"),
        ("leakage={canary: 2}", "leakage.canary"),
    ],
)
def test_what_a_site_cannot_give_is_refused_before_training(tmp_path, settings, says):
    with pytest.raises(ConfigError, match=says):
        load_data(study_of(tmp_path, settings))


def test_a_run_that_is_not_finished_is_not_measured(plain, tmp_path):
    run = shutil.copytree(plain, tmp_path / "copy")
    shutil.rmtree(run / "answers" / "fed-medlora")
    with pytest.raises(RunError, match="not finished: fed-medlora is missing"):
        measure_leakage(run)
    with pytest.raises(RunError, match="no run folder"):
        measure_leakage(tmp_path)


@pytest.mark.parametrize(
    ("method", "says"), [("fed", "'fed' is no row"), ("dictionary/icu", "no LoRA adapter")]
)
def test_a_row_without_an_adapter_cannot_be_measured(plain, method, says, capsys):
    assert run_command(["leakage", str(plain), "--method", method]) == 2
    assert says in capsys.readouterr().err


def test_rare_words_are_of_one_site_alone_or_of_no_training_note(plain):
    bench = LeakageBench(RunFolder(plain), ["fed-medlora"])
    own, never = rare_words(bench)
    texts = {
        site.name: " ".join(one.text.lower() for one in site.train) for site in bench.data.sites
    }
    assert all(own.values())
    for site, words in own.items():
        [other] = [text for name, text in texts.items() if name != site]
        for word in words:
            assert re.search(rf"(?<![a-z]){word}(?![a-z])", texts[site])
            assert not re.search(rf"(?<![a-z]){word}(?![a-z])", other)
    assert never
    assert not any(re.search(rf"(?<![a-z]){w}(?![a-z])", t) for w in never for t in texts.values())


def test_rare_words_are_told_from_updates_and_from_their_sum(plain):
    found = read_leakage(RunFolder(plain))
    assert {(one.site, one.seen, one.question) for one in found.words} == {
        (site, seen, question)
        for site in ("icu", "outpatient")
        for seen in ("update", "sum")
        for question in ("there", "whose")
    }
    for one in found.words:
        assert 0 <= one.low <= one.auc <= one.high <= 1
        assert 0 <= one.precision <= 1
        assert one.chance == one.members / (one.members + one.others)


def test_without_kept_replies_the_sum_alone_is_attacked(plain, tmp_path):
    run = shutil.copytree(plain, tmp_path / "copy")
    place = run / "federation" / "fed-medlora" / "round-0001"
    shutil.rmtree(place / "replies")
    (place / "SHA256SUMS").unlink()
    write_sums(place)
    found = measure_leakage(run, methods=["fed-medlora"])
    assert {one.seen for one in found.words} == {"sum"}
    assert any("no reply was kept" in sentence for sentence in found.missing)


def test_what_the_server_saw_of_a_round_averages_to_what_it_made_of_it(plain):
    bench = LeakageBench(RunFolder(plain), ["fed-medlora"])
    seen = bench.seen(bench.arms[0], 2)
    told = json.loads((plain / "adapters/fed-medlora/contributions.json").read_text())[1]
    weights = {one["signed"]["site"]: one["weight"] for one in told["contributions"]}
    for name, tensor in seen.after.tensors.items():
        mean = sum(weights[site] * one.tensors[name] for site, one in seen.replies.items())
        assert np.allclose(mean, tensor, atol=1e-6)
    assert bench.seen(bench.arms[0], 1).after.sha256 == seen.before.sha256
    assert seen.after.sha256 == bench.adapter(bench.arms[0]).sha256


def test_units_are_named_for_what_they_are_patients_notes_or_some_of_both():
    notes = [Document(str(n), "a", group=group) for n, group in enumerate(("p", "p", None, None))]
    two, few = NoteLosses(np.array([1.0, 2.0]), np.ones(2)), Bootstrap(resamples=10)
    patients, single = (_side(part, two, two) for part in (notes[:2], notes[2:]))
    found = {
        name: {(one.unit, one.members) for one in _records("fed", "all", "held-out", pairs, few)}
        for name, pairs in (
            ("patients", [(patients, patients)]),
            ("notes", [(single, single)]),
            ("both", [(patients, patients), (single, single)]),
        )
    }
    assert found == {"patients": {("patient", 1)}, "notes": {("note", 2)}, "both": {("unit", 3)}}
