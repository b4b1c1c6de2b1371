"""A first round kept and taken up again: the same one, whole, or none."""

from types import SimpleNamespace

import pytest
from federation_toy import start

from fedmedlora.errors import RunError
from fedmedlora.federation import first_rounds, site
from fedmedlora.federation.first_rounds import FirstRounds, key_of
from fedmedlora.federation.plan import Order, SiteUpdate
from fedmedlora.federation.site import AdapterSite
from fedmedlora.model.encoding import Row
from fedmedlora.model.training import TrainingSettings

ROWS = [Row("a", (1, 2, 3), 1, (), ())]
SETTINGS = TrainingSettings()
UPDATE = SiteUpdate(start(2.0), 1, 2, 0.5, None, 3.0, {"steps": 4})
KEY = key_of(start(), ROWS, settings=SETTINGS, seed=1)


def test_a_key_tells_apart_all_that_a_training_depends_on():
    others = [
        key_of(start(1.0), ROWS, settings=SETTINGS, seed=1),
        key_of(start(), [Row("a", (1, 2, 4), 1, (), ())], settings=SETTINGS, seed=1),
        key_of(start(), [Row("a", (1, 2, 3), 2, (), ())], settings=SETTINGS, seed=1),
        key_of(start(), [Row("a", (1, 2, 3), 1, (2,), ())], settings=SETTINGS, seed=1),
        key_of(start(), [Row("a", (1, 2, 3), 1, (), (3,))], settings=SETTINGS, seed=1),
        key_of(start(), ROWS, settings=TrainingSettings(batch=5), seed=1),
        key_of(start(), ROWS, settings=SETTINGS, seed=2),
    ]
    assert len({KEY, *others}) == 8
    assert key_of(start(), list(ROWS), settings=TrainingSettings(), seed=1) == KEY


def test_what_was_kept_comes_back_and_says_so(tmp_path):
    kept = FirstRounds(tmp_path / "kept")
    assert kept.recall(KEY, start()) is None
    kept.keep(KEY, UPDATE)
    kept.keep(KEY, UPDATE)
    found = kept.recall(KEY, start())
    assert found.adapter.sha256 == UPDATE.adapter.sha256
    assert found.adapter.manifest == UPDATE.adapter.manifest
    assert (found.examples, found.tokens, found.loss_first, found.loss_last) == (1, 2, 0.5, None)
    assert (found.seconds, found.counts) == (3.0, {"steps": 4, "recalled": 1})
    assert [place.name for place in (tmp_path / "kept").iterdir()] == [KEY]


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: (place / "update.json").write_text("5"),
        lambda place: (place / "update.json").write_text("[" * 100_000),
        lambda place: (place / "update.json").unlink(),
        lambda place: (place / "update.json").write_text(
            (place / "update.json").read_text().replace('"tokens": 2', '"tokens": 9')
        ),
        lambda place: [f.write_bytes(f.read_bytes()[:-4]) for f in place.rglob("*.safetensors")],
    ],
)
def test_what_is_damaged_is_trained_again(tmp_path, damage):
    kept = FirstRounds(tmp_path)
    kept.keep(KEY, UPDATE)
    damage(tmp_path / KEY)
    assert kept.recall(KEY, start()) is None


def test_a_full_disk_costs_nothing_but_time(tmp_path, monkeypatch):
    def full(*arguments, **settings):
        raise RunError("cannot write: No space left on device")

    monkeypatch.setattr(first_rounds, "save_adapter", full)
    kept = FirstRounds(tmp_path / "kept")
    kept.keep(KEY, UPDATE)
    assert kept.recall(KEY, start()) is None


def test_a_site_trains_its_first_round_once_and_tells_its_steps_again(tmp_path, monkeypatch):
    made, told = [], []

    def train(self, adapter, order, seed):
        made.append(order.round)
        return UPDATE

    monkeypatch.setattr(AdapterSite, "_train_anew", train)
    for _ in range(2):
        worker = site.AdapterSite(
            "north",
            SimpleNamespace(manifest=start().manifest),
            train=ROWS,
            validation=(),
            settings=SETTINGS,
            seed=1,
            on_step=lambda *step: told.append(step),
            first_rounds=FirstRounds(tmp_path),
        )
        for number in (1, 2):
            update = worker.train(start(), Order(number))
            assert update.adapter.sha256 == UPDATE.adapter.sha256
    assert made == [1, 2, 2]
    assert told == [("north", 1, 4, 4, None)]
