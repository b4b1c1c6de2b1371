"""Privacy over machines: the promise is part of the shared study, the ledger is the site's own."""

from dataclasses import replace

import pytest
import yaml
from deployment_toys import found, request_of, study_of

from fedmedlora.config_deployment import SiteSettings
from fedmedlora.errors import ConfigError
from fedmedlora.federation import wire
from fedmedlora.federation.client import client_app
from fedmedlora.federation.flower import Context, RecordDict
from fedmedlora.federation.plan import Declared
from fedmedlora.model.packing import pack
from fedmedlora.privacy.ledger import open_ledger
from fedmedlora.study.checking import check_site
from fedmedlora.study.hosting import site_desk, site_worker
from fedmedlora.study.shared import read_shared, shared_text, site_study

PRIVACY = {"epsilon": 3, "delta": 0.01, "batch": 2, "ledger": "per-row"}
NOTES = {"synthetic": {"style": "icu", "train": 4, "validation": 1, "test": 1}}


#: What the site lets its notes cost.
BOUNDS = {"largest_epsilon": 3, "largest_delta": 0.01, "smallest_unit": "note"}


def at_site(tmp_path, *, ledger, bounds=None, **settings):
    file = tmp_path / "study.yaml"
    file.write_text(shared_text(study_of(**settings)), encoding="utf-8")
    told = SiteSettings(
        name="icu",
        coordinator="host:1",
        notes=NOTES,
        ledger=ledger,
        **({} if ledger is None else BOUNDS) | (bounds or {}),
    )
    return site_study(read_shared(file), told, folder=tmp_path)


def test_a_site_trains_with_the_promise_of_the_study_and_its_own_ledger(tmp_path):
    study = at_site(tmp_path, ledger="kept/ledger", privacy=PRIVACY)
    assert (study.privacy.epsilon, study.privacy.delta) == (3, 0.01)
    assert study.privacy.ledger == "kept/ledger"


def test_a_site_without_a_place_for_its_ledger_does_not_take_part(tmp_path):
    with pytest.raises(ConfigError, match="ledger: must be given with epsilon"):
        at_site(tmp_path, ledger=None, privacy=PRIVACY)


@pytest.mark.parametrize("own", [{"privacy.ledger": "per-row"}, {"privacy": PRIVACY}])
def test_no_study_says_where_a_sites_ledger_is(tmp_path, own):
    entry = {"method": "ffa-lora", "set": own}
    with pytest.raises(ConfigError, match=r"privacy\.ledger is one for the whole study"):
        at_site(tmp_path, ledger="own", privacy=PRIVACY, methods=[entry])
    entry = {"method": "ffa-lora", "set": {"privacy": {"epsilon": None, "unit": "note"}}}
    with pytest.raises(ConfigError, match="the ledger is the site's to say"):
        at_site(tmp_path, ledger="own", privacy=PRIVACY, methods=[entry])


def test_a_study_without_a_promise_needs_no_ledger(tmp_path):
    assert at_site(tmp_path, ledger=None).privacy.epsilon is None


@pytest.mark.parametrize(
    ("bounds", "privacy", "told"),
    [
        (
            {"largest_epsilon": 2.5},
            PRIVACY,
            "largest_epsilon: .* epsilon 3, more than 2.5",
        ),
        ({}, {**PRIVACY, "delta": 0.02}, "largest_delta: .* delta 0.02, more than 0.01"),
        ({}, {**PRIVACY, "unit": "example"}, "smallest_unit: .* each example, not of each note"),
        ({}, {}, "largest_epsilon: .*promises no privacy"),
    ],
)
def test_a_site_takes_part_in_no_study_that_promises_less_than_it_asks_for(
    tmp_path, bounds, privacy, told
):
    with pytest.raises(ConfigError, match=told):
        at_site(tmp_path, ledger="own", bounds=bounds, privacy=privacy)
    within = {**PRIVACY, "delta": 0.001, "unit": "patient"}
    assert at_site(tmp_path, ledger="own", privacy=within).privacy.epsilon == 3


@pytest.mark.parametrize("missing", BOUNDS)
def test_who_names_a_ledger_says_what_its_notes_may_cost(missing):
    # Else the coordinator's study would: with another delta, unit or epsilon each time.
    told = {name: value for name, value in BOUNDS.items() if name != missing}
    with pytest.raises(ValueError, match=f"{missing} must be given with it"):
        SiteSettings(name="icu", coordinator="host:1", notes=NOTES, ledger="own", **told)


def test_a_site_has_no_ledger_that_forgets(tmp_path):
    with pytest.raises(ConfigError, match="ledger: per-row forgets"):
        at_site(tmp_path, ledger="per-row", privacy=PRIVACY)


# At work ------------------------------------------------------------------------------------------

#: Two notes a site: a promise about one of two, for the arithmetic alone.
TOY = {"epsilon": 3, "delta": 0.3, "batch": 2, "accountant": "rdp", "ledger": "per-row"}


@pytest.fixture
def hospital(tmp_path):
    """Makes the site icu of a new federation; its ledger outlives the federation."""
    pytest.importorskip("opacus")

    def join(folder="first", *, name="icu", **privacy):
        study = study_of(privacy={**TOY, **privacy})
        _, hospitals = found(tmp_path / folder, study)
        file = next(one.settings for one in hospitals if one.name == name)
        bounds = {"largest_epsilon": 3, "largest_delta": 0.9, "smallest_unit": "note"}
        ledger = {"ledger": str(tmp_path / "ledger"), **bounds}
        content = {**yaml.safe_load(file.read_text()), **ledger}
        file.write_text(yaml.safe_dump(content))
        return file

    return join


def spent(tmp_path):
    with open_ledger(tmp_path / "ledger" / "icu.jsonl", site="icu", unit="note") as ledger:
        return sum(one.steps for one in ledger.mechanisms)


def answered(file, number=1):
    """What a site's process, just started, answers to a request to train: status, code, counts."""
    desk = replace(site_desk(file), coordinator="")  # whoever asks
    initial = desk.worker(desk.sites[0])._bench.initial
    call = wire.Call(desk.run, number, initial.manifest.to_json(), "bf16")
    content = wire.request(call, wire.adapter_arrays(pack(initial, "bf16")))
    context = Context(1, 1, {"site": desk.sites[0]}, RecordDict(), {})
    reply = client_app(desk)(request_of(content), context).content
    config = reply[wire.CONFIG]
    return config["status"], config.get("code"), dict(reply.get(wire.COUNTS, {}))


def test_a_site_trains_by_its_own_ledger_and_says_what_it_spent(tmp_path, hospital):
    file = hospital()
    status, _, told = answered(file)
    assert status == "ok"
    assert spent(tmp_path) == 2
    assert 0 < told["privacy/epsilon"] <= 3
    assert (told["privacy/units"], told["privacy/steps"], told["privacy/delta"]) == (2, 2, 0.3)
    # Nothing of rows, tokens or losses, not when it joins either.
    assert site_worker(file, "icu").declared() == Declared(2, 2)
    # Asked the same once more, by a process that was started anew: the same, for nothing.
    assert answered(file) == ("ok", None, {**told, "recalled": 1})
    assert spent(tmp_path) == 2


def test_another_federation_finds_what_the_first_one_spent(tmp_path, hospital):
    first = hospital()
    assert [answered(first, number)[0] for number in (1, 2)] == ["ok", "ok"]
    before = spent(tmp_path)
    second = hospital("second")
    assert answered(second) == ("failed", "privacy", {})
    assert spent(tmp_path) == before == 4
    states = {check.what: check for check in check_site(second)}
    assert states["privacy"].state == "wrong"
    assert "the budget is spent" in states["privacy"].found
    # The first goes on being what it was: its last round can be asked for again.
    assert answered(first, 2)[0] == "ok"


def test_an_edited_ledger_is_refused_by_the_site_and_no_note_is_touched(tmp_path, hospital):
    file = hospital()
    assert answered(file)[0] == "ok"
    ledger = tmp_path / "ledger" / "icu.jsonl"
    ledger.write_text(ledger.read_text().replace('"steps":2', '"steps":1'))
    assert answered(file, 2)[0] == "failed"
    assert "wrong" in {c.state for c in check_site(file) if c.what == "privacy"}


def test_a_hospital_under_another_name_does_not_begin_another_budget(tmp_path, hospital):
    assert answered(hospital())[0] == "ok"
    other = hospital("second", name="outpatient")
    with pytest.raises(ConfigError, match="has what icu spent, and this study calls the site outp"):
        site_worker(other, "outpatient")


@pytest.mark.parametrize(
    ("privacy", "told"),
    [
        ({"delta": 0.6}, "delta: 0.6 is more than 1 / 2"),
        ({"batch": 3}, "batch: 3 units"),
        ({"unit": "patient", "batch": 2}, "batch: 2 units"),
    ],
)
def test_what_a_site_cannot_promise_its_check_says_before_it_joins(hospital, privacy, told):
    found = {check.what: check for check in check_site(hospital(**privacy))}
    assert found["privacy"].state == "wrong"
    assert told in found["privacy"].found


def test_the_check_says_what_is_promised_and_what_is_left(tmp_path, hospital):
    file = hospital()
    assert answered(file)[0] == "ok"
    [told] = [check for check in check_site(file) if check.what == "privacy"]
    assert told.state == "ok"
    assert "epsilon 3 at delta 0.3, unit: note" in told.found
    assert "0.00 is spent" not in told.found
