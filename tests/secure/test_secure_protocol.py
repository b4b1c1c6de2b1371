"""The protocol by itself: the sum is right, whoever falls silent; what is off is refused."""

from dataclasses import replace

import numpy as np
import pytest
from secure_toys import (
    ASKED,
    KEYS,
    NAMES,
    STAGES,
    Attempted,
    plain_mean,
    relative,
    terms_of,
    updates_of,
)

from fedmedlora.errors import ConfigError, FederationError
from fedmedlora.federation.secure import keys
from fedmedlora.federation.secure import site as steps
from fedmedlora.federation.secure.coordinator import SecureSum
from fedmedlora.federation.secure.masks import add_mask, take_mask
from fedmedlora.federation.secure.options import SecureOptions
from fedmedlora.federation.secure.roster import Attempt, Survivors


@pytest.mark.parametrize("count", range(3, 9))
def test_the_mean_of_three_to_eight_sites_is_the_plain_one(count):
    inputs = updates_of(count)
    mean = Attempted(terms_of(count), inputs).run()
    assert relative(mean.update, plain_mean(inputs, NAMES[:count])) <= 1e-5
    assert mean.weight == pytest.approx(sum(w for _, w in inputs.values()), rel=1e-12)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 8])
def test_sites_that_fall_silent_at_any_stage_do_not_stop_the_others(count, stage):
    threshold = count // 2 + 1
    lost = NAMES[: count - threshold]
    inputs = updates_of(count)
    mean = Attempted(terms_of(count, threshold=threshold), inputs).run({stage: lost})
    # Who has sent its row counts, whatever becomes of it afterwards.
    counted = NAMES[count - threshold : count] if stage in ("shares", "rows") else NAMES[:count]
    assert relative(mean.update, plain_mean(inputs, counted)) <= 1e-5


def test_one_site_lost_at_every_stage_leaves_the_sum_of_those_that_sent_rows():
    inputs = updates_of(8)
    lost = {stage: [name] for stage, name in zip(STAGES, ("birch", "elm", "ash"), strict=False)}
    mean = Attempted(terms_of(8, threshold=5), inputs).run(lost)
    counted = [name for name in NAMES if name not in ("birch", "elm")]
    assert relative(mean.update, plain_mean(inputs, counted)) <= 1e-5


def test_a_site_lost_before_the_keys_takes_no_part():
    inputs = updates_of(4)
    one = Attempted(terms_of(4), inputs, silent={"cedar"})
    mean = one.run()
    assert relative(mean.update, plain_mean(inputs, ("ash", "birch", "dogwood"))) <= 1e-5


@pytest.mark.parametrize("stage", STAGES)
def test_below_the_threshold_the_attempt_fails_at_every_stage(stage):
    one = Attempted(terms_of(5, threshold=4), updates_of(5))
    with pytest.raises(FederationError, match=r"\b3\b.*4 are needed"):
        one.run({stage: NAMES[:2]})


def known_masks_removed(one, name):
    """A site's row without every mask that the coordinator could remove: those of joined shares."""
    row, total = one.rows[name].copy(), one.sum
    for site in total.roster.sites:
        given = [r.seeds[site] for r in total._revealed.values() if site in r.seeds]
        try:
            seed = keys.join(given)
        except (FederationError, IndexError):
            continue
        if site == name:
            take_mask(row, keys.derived_key(seed, total.roster.own(name)))
    return row


def looks_uniform(row):
    """Whether the bits of a row are as even as random ones are (six standard deviations)."""
    bits = np.unpackbits(row.view(np.uint8))
    return abs(float(bits.mean()) - 0.5) < 6 * 0.5 / np.sqrt(bits.size)


@pytest.mark.parametrize("stage", ["agreement", "unmasking"])
def test_below_the_threshold_what_the_coordinator_has_reveals_no_row(stage):
    inputs = {name: (np.zeros(5000, np.float32), 1.0) for name in NAMES[:5]}
    one = Attempted(terms_of(5, threshold=4), inputs)
    with pytest.raises(FederationError):
        one.run({stage: NAMES[:2]})
    assert len(one.rows) == 5
    for name, row in one.rows.items():
        assert looks_uniform(row)
        assert not looks_uniform(one.row(name))  # all zeros but the weight: the check can fail
        assert looks_uniform(known_masks_removed(one, name))
    with pytest.raises(FederationError):
        one.sum.unmask()
    with pytest.raises(FederationError, match="masks are left"):
        one.terms.ring.decode(sum(one.rows.values()), summands=5)


def test_weights_that_are_all_cut_fail_instead_of_counting_alike():
    inputs = updates_of(3)
    most = min(weight for _, weight in inputs.values())
    with pytest.raises(FederationError, match="the mean would be unweighted"):
        Attempted(terms_of(3, largest_weight=most * 0.5), inputs).run()
    mean = Attempted(terms_of(3, largest_weight=most * 1.5), inputs).run()
    assert most * 3 < mean.weight < most * 4.5


def test_equal_inputs_give_other_rows_in_every_attempt():
    rows = []
    for nonce in ("first", "second"):
        one = Attempted(terms_of(3), updates_of(3), nonce=nonce)
        one.run()
        rows.append(one.rows["ash"])
    assert not np.any(rows[0] == rows[1])


def test_the_row_of_a_site_that_was_given_up_too_early_stays_masked():
    one = Attempted(terms_of(4, threshold=3), updates_of(4))
    one.keys(), one.shares()
    one.lose("dogwood")
    one.send_rows()
    one.agree(), one.reveal(), one.sum.unmask()
    # Its row comes late: its masks with the others are known by now, its own is not.
    state = steps.receive(
        one.states["dogwood"], "dogwood", one.sum.parcels_for("dogwood"), asked=ASKED
    )
    late = one.row("dogwood")
    steps.mask(state, "dogwood", late)
    given = list(one.sum._revealed.values())
    assert all("dogwood" not in revealed.seeds for revealed in given)
    key = keys.join([revealed.masks["dogwood"] for revealed in given])
    for site in ("ash", "birch", "cedar"):
        roster = one.sum.roster
        public = bytes.fromhex(roster.of(site).mask)
        add_mask(late, keys.agreed_key(key, public, roster.pair(site, "dogwood", ASKED)))
    assert looks_uniform(late)
    take_mask(late, keys.derived_key(state.seed, one.sum.roster.own("dogwood")))
    assert np.array_equal(late, one.row("dogwood"))  # so that mask was all that was left
    with pytest.raises(FederationError, match="no row of site 'dogwood'"):
        one.sum.add("dogwood", late)


# Who is asked for what


@pytest.mark.parametrize("victim", ["ash", "cedar"])
def test_no_sum_comes_of_sites_that_were_asked_to_train_different_things(victim):
    # The others were sent a model whose updates are zero: the sum would be the victim's update.
    inputs = {name: (np.zeros(5000, np.float32), 1.0) for name in NAMES[:4]}
    one = Attempted(terms_of(4, threshold=3), inputs, asked={victim: "b" * 64})
    one.keys(), one.shares(), one.send_rows()
    told = one.sum.survivors.sites
    signed = {}
    for name in told:
        one.states[name], signed[name] = steps.agree(one.states[name], name, told, KEYS[name])
    with pytest.raises(FederationError, match="asked to train something else"):
        one.sum.admit_signature(victim, signed[victim])
    # The coordinator is in it, and has the signatures and the shares of all others.
    for name in told:
        if name != victim:
            one.sum.admit_signature(name, signed[name])
    one.lose(victim)
    one.reveal()
    with pytest.raises(FederationError, match="masks are left"):
        one.sum.unmask()
    # What was left of it: every own mask is removed from the sum of the rows, and yet.
    left = sum(one.rows.values())
    for site in told:
        seed = keys.join(
            [one.sum._revealed[giver].seeds[site] for giver in told if giver != victim]
        )
        take_mask(left, keys.derived_key(seed, one.sum.roster.own(site)))
    assert looks_uniform(left)
    assert not looks_uniform(sum(one.row(name) for name in told))  # as it would have been


def test_a_request_to_train_that_comes_again_changes_nothing_until_the_row_is_masked():
    one = before("rows")
    parcels = one.sum.parcels_for("ash")
    state = steps.receive(one.states["ash"], "ash", parcels, asked=ASKED)
    assert steps.receive(state, "ash", parcels, asked=ASKED) == state
    less = {name: parcel for name, parcel in parcels.items() if name != "birch"}
    for other, asked in ((parcels, "b" * 64), (less, ASKED)):
        with pytest.raises(FederationError, match="something else in the same attempt"):
            steps.receive(state, "ash", other, asked=asked)
    masked = steps.mask(state, "ash", one.row("ash"))
    with pytest.raises(FederationError, match="second time"):
        steps.receive(masked, "ash", parcels, asked=ASKED)


def test_a_site_that_sent_its_row_has_no_secrets_of_its_own_left():
    state = before("agreement").states["ash"]
    assert (state.channel, state.mask, state.seed) == (b"", b"", b"")
    assert set(state.held) == set(NAMES[:4])


# What a site refuses


def before(stage, *, count=4, threshold=3, silent=()):
    """An attempt up to a stage."""
    one = Attempted(terms_of(count, threshold=threshold), updates_of(count))
    one.keys()
    for name, step in zip(STAGES, (one.shares, one.send_rows, one.agree, one.reveal), strict=True):
        if name == stage:
            return one
        if name == "rows":
            one.lose(*silent)
        step()
    raise ValueError(stage)


def test_keys_that_were_exchanged_on_the_way_are_found_by_every_site():
    one = before("shares")
    ash, birch, *rest = one.sum.roster.entries
    for name in ("channel", "mask", "seed"):
        exchanged = replace(birch, **{name: keys.public_half(keys.new_key()).hex()})
        for site in ("ash", "cedar", "dogwood"):
            with pytest.raises(FederationError, match="'birch' are not signed"):
                steps.share(one.terms, one.states[site], site, (ash, exchanged, *rest))


def test_keys_that_the_coordinator_signs_itself_are_found():
    one = before("shares")
    ash, birch, *rest = one.sum.roster.entries
    forged = replace(birch, channel=keys.public_half(keys.new_key()).hex())
    for key in (KEYS["ash"], KEYS["elm"]):
        signed = forged.signed(one.terms, one.attempt, key)
        with pytest.raises(FederationError, match="'birch' are not signed"):
            steps.share(one.terms, one.states["ash"], "ash", (ash, signed, *rest))


@pytest.mark.parametrize("changes", [{"nonce": "another"}, {"round": 2}, {"run": "other"}], ids=str)
def test_keys_of_another_attempt_round_or_run_are_found(changes):
    one = before("shares")
    ash, _, *rest = one.sum.roster.entries
    earlier = replace(one.attempt, **changes)
    terms = replace(one.terms, run=earlier.run)
    _, old = steps.advertise(terms, earlier, "birch", KEYS["birch"])
    with pytest.raises(FederationError, match="'birch' are not signed"):
        steps.share(one.terms, one.states["ash"], "ash", (ash, old, *rest))


@pytest.mark.parametrize(
    "changes",
    [{"threshold": 4}, {"largest_norm": 1e6}, {"largest_weight": 1e9}, {"method": "fed-medlora+"}],
    ids=str,
)
def test_a_site_that_was_told_other_terms_is_found(changes):
    one = before("shares")
    ash, _, *rest = one.sum.roster.entries
    _, other = steps.advertise(replace(one.terms, **changes), one.attempt, "birch", KEYS["birch"])
    with pytest.raises(FederationError, match="it holds other terms"):
        steps.share(one.terms, one.states["ash"], "ash", (ash, other, *rest))
    with pytest.raises(FederationError, match="it holds other terms"):
        one.sum.admit_keys("birch", other)


def test_a_roster_without_the_own_keys_or_with_a_site_twice_is_refused():
    one = before("shares")
    ash, birch, cedar, dogwood = one.sum.roster.entries
    state = one.states["ash"]
    _, again = steps.advertise(one.terms, one.attempt, "ash", KEYS["ash"])
    for entries, told in (
        ((birch, cedar, dogwood), "takes no part"),
        ((again, birch, cedar, dogwood), "other keys of this site"),
        ((ash, birch, birch, cedar), "named twice"),
        ((birch, ash, cedar), "order"),
        ((ash, birch), "2 sites have advertised keys, 3 are needed"),
        ((ash, birch, replace(cedar, site="rowan")), "'rowan' is no site"),
    ):
        with pytest.raises(FederationError, match=told):
            steps.share(one.terms, state, "ash", entries)


def test_a_key_that_two_sites_advertise_is_refused():
    one = before("shares")
    ash, birch, *rest = one.sum.roster.entries
    copied = replace(birch, mask=ash.mask).signed(one.terms, one.attempt, KEYS["birch"])
    with pytest.raises(FederationError, match="the same key"):
        steps.share(one.terms, one.states["ash"], "ash", (ash, copied, *rest))


def test_a_parcel_that_was_changed_or_is_for_another_site_is_refused():
    one = before("rows")
    parcels = one.sum.parcels_for("ash")
    changed = bytearray(parcels["birch"])
    changed[20] ^= 1
    for wrong in (
        {**parcels, "birch": bytes(changed)},
        {**parcels, "birch": one.sum.parcels_for("cedar")["birch"]},
        {**parcels, "birch": parcels["cedar"]},
    ):
        with pytest.raises(FederationError, match="cannot be opened"):
            steps.receive(one.states["ash"], "ash", wrong, asked=ASKED)


def test_a_parcel_of_an_earlier_attempt_is_refused():
    earlier, now = before("rows"), before("rows")
    parcels = {**now.sum.parcels_for("ash"), "birch": earlier.sum.parcels_for("ash")["birch"]}
    with pytest.raises(FederationError, match="cannot be opened"):
        steps.receive(now.states["ash"], "ash", parcels, asked=ASKED)


def test_fewer_parcels_than_the_threshold_are_refused():
    one = before("rows")
    parcels = one.sum.parcels_for("ash")
    with pytest.raises(FederationError, match="2 sites have shared their keys, 3 are needed"):
        steps.receive(one.states["ash"], "ash", {"birch": parcels["birch"]}, asked=ASKED)


@pytest.mark.parametrize(
    ("survivors", "told"),
    [
        (("ash", "birch"), "2 sites are left, 3 are needed"),
        (("birch", "cedar", "dogwood"), "not among the survivors"),
        (("ash", "birch", "cedar", "elm"), "is no site"),
        (("ash", "birch", "birch", "cedar"), "is none"),
        (("cedar", "ash", "birch"), "is none"),
    ],
)
def test_a_list_of_survivors_that_cannot_be_is_not_signed(survivors, told):
    one = before("agreement")
    with pytest.raises(FederationError, match=told):
        steps.agree(one.states["ash"], "ash", survivors, KEYS["ash"])


def test_a_site_that_shared_nothing_is_no_survivor():
    one = Attempted(terms_of(5, threshold=3), updates_of(5))
    one.keys()
    one.lose("elm")
    one.shares(), one.send_rows()
    with pytest.raises(FederationError, match="is none"):
        steps.agree(one.states["ash"], "ash", NAMES[:5], KEYS["ash"])


def test_two_lists_of_survivors_never_both_open():
    # An active coordinator tells two sites that all survive, the others that "elm" does not, to
    # get both kinds of share of "elm".
    one = before("agreement", count=5, threshold=4)
    everybody, without = NAMES[:5], NAMES[:4]
    signed = {"all": {}, "less": {}}
    for name in NAMES[:5]:
        told = everybody if name in ("elm", "dogwood") else without
        one.states[name], signature = steps.agree(one.states[name], name, told, KEYS[name])
        signed["all" if told is everybody else "less"][name] = signature
    for name in NAMES[:5]:
        for signatures in (signed["all"], signed["less"]):
            with pytest.raises(FederationError):
                steps.unmask(one.states[name], tuple(signatures.items()))
        every = tuple({**signed["all"], **signed["less"]}.items())
        with pytest.raises(FederationError, match="another list"):
            steps.unmask(one.states[name], every)


def test_signatures_of_one_site_many_times_or_of_strangers_do_not_count():
    one = before("unmasking")
    signatures = one.sum.signatures
    state = one.states["ash"]
    with pytest.raises(FederationError, match="1 sites have signed"):
        steps.unmask(state, [signatures[0]] * 4)
    told = one.sum.survivors
    with pytest.raises(FederationError, match="another list"):
        steps.unmask(state, [*signatures[:2], ("elm", told.signed(KEYS["elm"]))])
    with pytest.raises(FederationError, match="another list"):
        steps.unmask(state, [*signatures[:2], ("cedar", told.signed(KEYS["birch"]))])
    with pytest.raises(FederationError, match="another list"):
        steps.unmask(state, [*signatures[:2], ("cedar", "")])


def test_a_site_never_gives_both_kinds_of_share_of_one_peer():
    one = before("unmasking", silent=["dogwood"])
    state, revealed = steps.unmask(one.states["ash"], one.sum.signatures)
    assert set(revealed.seeds) == {"ash", "birch", "cedar"}
    assert set(revealed.masks) == {"dogwood"}
    # Not by asking again, from any state that it has left: nothing is left to give.
    with pytest.raises(FederationError, match="second time"):
        steps.unmask(state, one.sum.signatures)
    with pytest.raises(FederationError, match="second time"):
        steps.agree(state, "ash", ("ash", "birch", "cedar"), KEYS["ash"])
    assert (state.channel, state.mask, state.seed, state.held) == (b"", b"", b"", {})


def test_every_step_is_taken_once_and_in_its_order():
    one = before("unmasking")
    done, _ = steps.unmask(one.states["ash"], one.sum.signatures)
    entries, parcels = one.sum.roster.entries, one.sum.parcels_for("ash")
    row = np.zeros(3, np.uint64)
    states = [done, one.states["ash"], before("agreement").states["ash"]]
    states += [before("rows").states["ash"], before("shares").states["ash"]]
    takes = {
        "advertised": lambda s: steps.share(one.terms, s, "ash", entries),
        "shared": lambda s: steps.receive(s, "ash", parcels, asked=ASKED),
        "training": lambda s: steps.mask(s, "ash", row),
        "masked": lambda s: steps.agree(s, "ash", one.sum.survivors.sites, KEYS["ash"]),
        "agreed": lambda s: steps.unmask(s, one.sum.signatures),
    }
    assert [state.stage for state in states] == ["done", "agreed", "masked", "shared", "advertised"]
    for state in states:
        for stage, take in takes.items():
            if stage != state.stage:
                with pytest.raises(FederationError, match="out of order, or a second time"):
                    take(state)
    assert not row.any()


def test_a_site_takes_part_in_its_own_run_alone():
    with pytest.raises(FederationError, match="another run"):
        steps.advertise(terms_of(3), Attempt("other", 1, "n"), "ash", KEYS["ash"])


def test_no_secret_is_in_what_a_state_prints():
    one = before("rows")
    state = one.states["ash"]
    shown = repr(state)
    for secret in (state.channel, state.mask, state.seed, state.held["ash"].seed):
        assert secret.hex() not in shown
        assert repr(secret) not in shown


# What the coordinator refuses


def test_parcels_for_some_sites_alone_or_of_another_size_are_refused():
    one = before("shares")
    _, parcels = steps.share(one.terms, one.states["ash"], "ash", one.sum.roster.entries)
    for wrong in (
        {name: parcel for name, parcel in parcels.items() if name != "cedar"},
        {**parcels, "ash": parcels["cedar"]},
        {**parcels, "cedar": parcels["cedar"] + b"x"},
        {**parcels, "cedar": parcels["cedar"].hex()},
    ):
        with pytest.raises(FederationError, match=r"it has not sealed|not the size"):
            one.sum.admit_parcels("ash", wrong)


def test_keys_in_another_sites_name_are_refused():
    one = before("shares")
    fresh = SecureSum(one.terms, one.attempt)
    with pytest.raises(FederationError, match="another site"):
        fresh.admit_keys("ash", one.sum.roster.of("birch"))


def test_shares_of_others_or_of_another_number_are_refused():
    one = before("unmasking", silent=["dogwood"])
    _, revealed = steps.unmask(one.states["ash"], one.sum.signatures)
    _, of_birch = steps.unmask(one.states["birch"], one.sum.signatures)
    less = {name: share for name, share in revealed.seeds.items() if name != "birch"}
    for wrong in (
        replace(revealed, seeds=less),
        replace(revealed, masks={}),
        replace(revealed, seeds={**revealed.seeds, "dogwood": revealed.masks["dogwood"]}),
        of_birch,
        replace(revealed, masks={"dogwood": b""}),
    ):
        with pytest.raises(FederationError, match="it has revealed"):
            one.sum.admit_shares("ash", wrong)


@pytest.mark.parametrize(("kind", "told"), [("seeds", "another seed"), ("masks", "another key")])
def test_a_wrong_share_is_found_before_the_sum_is_used(kind, told):
    one = before("unmasking", silent=["dogwood"])
    one.reveal()
    given = one.sum._revealed["ash"]
    name = next(iter(getattr(given, kind)))
    wrong = bytearray(getattr(given, kind)[name])
    wrong[10] ^= 1
    changed = replace(given, **{kind: {**getattr(given, kind), name: bytes(wrong)}})
    one.sum._revealed["ash"] = changed
    with pytest.raises(FederationError, match=f"site {name!r} give {told}|do not fit"):
        one.sum.unmask()


def test_a_row_counts_once_and_of_those_alone_who_shared_keys():
    one = before("agreement")
    for name in ("ash", "elm"):
        with pytest.raises(FederationError, match=f"no row of site '{name}'"):
            one.sum.add(name, np.zeros(201, np.uint64))


# Thresholds


@pytest.mark.parametrize(
    ("sites", "threshold"), [(3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (8, 6), (50, 34)]
)
def test_the_threshold_is_more_than_two_thirds_by_default(sites, threshold):
    assert SecureOptions().threshold_of(sites) == threshold


@pytest.mark.parametrize(("sites", "threshold"), [(4, 2), (5, 2), (3, 4), (8, 4), (3, 0), (3, -1)])
def test_half_of_the_sites_or_more_than_all_are_no_threshold(sites, threshold):
    with pytest.raises(ConfigError, match=r"threshold: .* more than half"):
        SecureOptions(threshold).threshold_of(sites)


@pytest.mark.parametrize(
    ("count", "threshold", "told"), [(3, 3, "0 of 3"), (3, 2, "1 of 3"), (5, 4, "1 of 5")]
)
def test_who_lacks_a_site_is_told_how_many_may_fall_silent(count, threshold, told):
    one = Attempted(terms_of(count, threshold=threshold), updates_of(count))
    with pytest.raises(FederationError, match=rf"threshold {told} may fall silent"):
        one.run({"rows": NAMES[: count - threshold + 1]})


@pytest.mark.parametrize("sites", [1, 2])
def test_two_sites_are_too_few(sites):
    with pytest.raises(ConfigError, match="too few"):
        SecureOptions(sites).threshold_of(sites)


def test_terms_with_one_key_for_two_sites_or_without_keys_are_refused():
    terms = terms_of(3)
    (ash, key), birch, cedar = terms.public_keys
    for wrong in ((("birch", key), (ash, key), cedar), ((ash, ""), birch, cedar)):
        with pytest.raises(ConfigError, match="public key of every site"):
            replace(terms, public_keys=wrong)


def test_survivors_are_a_part_of_those_that_shared():
    one = before("agreement")
    with pytest.raises(FederationError, match="is none: sites"):
        Survivors(one.sum.roster, ("ash", "birch", "cedar"), NAMES[:4], ASKED)
