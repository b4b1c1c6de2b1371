"""Who is asked which site it is, how often, and what is told of who is turned away."""

from types import SimpleNamespace

import pytest
from federation_toy import SITES, plan, sites

from fedmedlora.federation import roster
from fedmedlora.federation.client import Desk
from fedmedlora.federation.counted_grid import CountedGrid
from fedmedlora.federation.grid import InProcessGrid, SequentialSwitch
from fedmedlora.federation.roster import Roster


@pytest.fixture
def clock(monkeypatch):
    """The roster's clock: it stands still but while the roster sleeps."""
    told = SimpleNamespace(now=0.0)

    def sleep(seconds):
        told.now += seconds

    stand_in = SimpleNamespace(monotonic=lambda: told.now, sleep=sleep)
    monkeypatch.setattr(roster, "time", stand_in)
    return told


def turned_away(clock, *, seconds, grid=InProcessGrid):
    """(site, reason, when) of all that nodes of another run are told in so long."""
    told = []

    def on_event(kind, /, **facts):
        assert kind == "turned-away"
        told.append((facts["site"], facts["reason"], clock.now))

    desk = Desk(SITES, sites(), run="another")
    counted = CountedGrid(grid(SequentialSwitch(desk), nodes=3))
    Roster(plan(connect_s=seconds), counted, on_event=on_event).gather()
    return told


def test_a_site_that_refuses_to_join_is_told_with_its_reason(clock):
    reason = "config (incident not-logged in the site's own log)"
    assert turned_away(clock, seconds=0.0) == [(site, reason, 0.0) for site in SITES]


def test_a_node_that_is_turned_away_is_asked_again_later_each_time(clock):
    # After 0, .2, .6, 1.4, 3, 6.2, 12.6, 25.4, 51 and 102.2 s, then every minute: 162.2.
    assert len(turned_away(clock, seconds=200.0)) == 11 * len(SITES)


def test_a_node_that_comes_back_is_asked_at_once(clock):
    class Away(InProcessGrid):
        def get_node_ids(self):
            return [] if 30 < clock.now < 31 else super().get_node_ids()

    times = [when for *_, when in turned_away(clock, seconds=40.0, grid=Away)]
    assert not [when for when in times if 26 < when < 31]
    assert [when for when in times if 31 <= when < 31.3]


def test_a_site_that_another_node_speaks_for_meanwhile_is_there_once(clock):
    here, told = [1, 2, 3], []

    class Changing(InProcessGrid):
        def get_node_ids(self):
            return list(here)

    desk = Desk((*SITES, "north"), sites())  # the fourth node is north's too
    grid = CountedGrid(Changing(SequentialSwitch(desk), nodes=4))
    known = Roster(plan(), grid, on_event=lambda kind, /, **facts: told.append((kind, facts)))
    known.gather()
    assert known.present() == {1: "north", 2: "south", 3: "west"}
    here[:] = [2, 3, 4]
    assert known.present() == {4: "north", 2: "south", 3: "west"}
    here[:] = [1, 2, 3, 4]
    assert known.present() == {4: "north", 2: "south", 3: "west"}
    assert told[-1] == ("name-taken", {"site": "north"})
    assert known.site(1) == "north"  # what it was asked before may still be answered
    here[:], clock.now = [1, 2, 3], clock.now + 1
    assert known.present() == {1: "north", 2: "south", 3: "west"}
