"""Privacy over machines: the promise is part of the shared study, the ledger is the site's own."""

import pytest
from deployment_toys import study_of

from fedmedlora.config_deployment import SiteSettings
from fedmedlora.errors import ConfigError
from fedmedlora.study.shared import read_shared, shared_text, site_study

PRIVACY = {"epsilon": 3, "delta": 0.01, "batch": 2, "ledger": "per-row"}
NOTES = {"synthetic": {"style": "icu", "train": 4, "validation": 1, "test": 1}}


def at_site(tmp_path, *, ledger, **settings):
    file = tmp_path / "study.yaml"
    file.write_text(shared_text(study_of(**settings)), encoding="utf-8")
    told = SiteSettings(name="icu", coordinator="host:1", notes=NOTES, ledger=ledger)
    return site_study(read_shared(file), told, folder=tmp_path)


def test_a_site_trains_with_the_promise_of_the_study_and_its_own_ledger(tmp_path):
    study = at_site(tmp_path, ledger="kept/ledger", privacy=PRIVACY)
    assert (study.privacy.epsilon, study.privacy.delta) == (3, 0.01)
    assert study.privacy.ledger == "kept/ledger"


def test_a_site_without_a_place_for_its_ledger_does_not_take_part(tmp_path):
    with pytest.raises(ConfigError, match="ledger: must be given with epsilon"):
        at_site(tmp_path, ledger=None, privacy=PRIVACY)


def test_no_study_says_where_a_sites_ledger_is(tmp_path):
    entry = {"method": "ffa-lora", "set": {"privacy.ledger": "per-row"}}
    study = at_site(tmp_path, ledger="own", privacy=PRIVACY, methods=[entry])
    assert study.privacy.ledger == "own"
    assert study.methods[0].set == {}
    whole = {"method": "ffa-lora", "set": {"privacy": PRIVACY}}
    with pytest.raises(ConfigError, match="the ledger is the site's to say"):
        at_site(tmp_path, ledger="own", methods=[whole])


def test_a_study_without_a_promise_needs_no_ledger(tmp_path):
    assert at_site(tmp_path, ledger=None).privacy.epsilon is None
