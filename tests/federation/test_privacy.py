"""No byte of a reply holds what an exception at a site said."""

import pytest
from federation_toy import ToySite, plan, sites, start

from fedmedlora.errors import FederationError
from fedmedlora.federation import run as run_module
from fedmedlora.federation.grid import SequentialSwitch

NAME = "Zyxwvut"


class Leaky(ToySite):
    def train(self, adapter, order):
        try:
            raise KeyError(f"patient {NAME}")
        except KeyError as error:
            raise type(f"{NAME}Error", (ValueError,), {})(f"note of {NAME}") from error


class LeakyScorer(ToySite):
    def losses(self, adapters):
        raise UnicodeDecodeError("utf-8", NAME.encode(), 0, 1, NAME)


class LeakyCounts(ToySite):
    def train(self, adapter, order):
        update = super().train(adapter, order)
        update.counts[f"Mrs {NAME}"] = 1
        return update


class LeakySizes(ToySite):
    def train(self, adapter, order):
        update = super().train(adapter, order)
        return type(update)(**{**update.__dict__, "examples": f"{NAME}"})


def factory(name):
    if name == "south":
        raise OSError(2, f"No such file: /notes/{NAME}.txt")
    return ToySite(name)


@pytest.mark.parametrize(
    "workers",
    [
        sites(south=Leaky("south")),
        sites(south=LeakyScorer("south")),
        sites(south=LeakyCounts("south")),
        sites(south=LeakySizes("south")),
        factory,
    ],
    ids=["training", "scoring", "counts", "sizes", "setting up"],
)
@pytest.mark.parametrize("min_sites", [1, 3])
def test_a_name_in_an_exception_is_in_no_reply_record_or_error(
    monkeypatch, tmp_path, capfd, caplog, workers, min_sites
):
    replies = []

    class Tapped(SequentialSwitch):
        def receive(self):
            replies.append(super().receive())
            return replies[-1]

    monkeypatch.setattr(run_module, "SequentialSwitch", Tapped)
    told = []
    try:
        run_module.run_federation(
            plan(rounds=1, method="fed-medlora+", min_sites=min_sites), start(), workers=workers,
            folder=tmp_path, on_event=lambda kind, **facts: told.append(repr(facts)),
        )  # fmt: skip
    except FederationError as error:
        told.append(repr(error) + repr(error.__cause__) + repr(error.__context__))
    assert len(replies) >= 6
    assert not any(NAME.encode() in reply for reply in replies)
    assert not any(NAME in text for text in told)
    assert NAME not in caplog.text + "".join(capfd.readouterr())
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.parent.name != "site-logs":
            assert NAME.encode() not in path.read_bytes()
    assert NAME in (tmp_path / "site-logs" / "south.log").read_text() or workers is not factory


def test_the_sites_log_is_readable_by_its_owner_only(tmp_path):
    run_module.run_federation(
        plan(rounds=1, min_sites=1), start(), workers=sites(south=Leaky("south")), folder=tmp_path
    )
    assert (tmp_path / "site-logs" / "south.log").stat().st_mode & 0o077 == 0
