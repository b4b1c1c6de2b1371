"""What the messages of secure aggregation hold, as Flower records and back.

    keys     attempt                       -> public keys, commitment, signature
    shares   everybody's of these          -> a sealed parcel for every other site
    train    the model, parcels for a site -> its masked row
    agree    whose rows there are          -> signature of that
    unmask   the signatures                -> shares

What is secret or large travels as an array, of which logs and statements have the hash alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from fedmedlora.aggregation.ring import Row
from fedmedlora.canonical import canonical, sha256
from fedmedlora.errors import FederationError
from fedmedlora.federation import wire
from fedmedlora.federation.arrays import array_in
from fedmedlora.federation.flower import Array, ArrayRecord, ConfigRecord, RecordDict
from fedmedlora.federation.secure.coordinator import PARCEL_BYTES
from fedmedlora.federation.secure.keys import SHARE_BYTES
from fedmedlora.federation.secure.roster import Advertisement, Attempt
from fedmedlora.federation.secure.site import Revealed
from fedmedlora.federation.statements import arrays_sha256

_BYTES, _WORDS = np.dtype(np.uint8), np.dtype("<u8")
_SECURE = "secure"
_KEYS = ("site", "channel", "mask", "seed", "signature")


def attempt_of(content: RecordDict) -> Attempt:
    """The attempt that a message is of.

    Raises:
        FederationError: it names none.
    """
    config = wire.settings(content)
    run, number, nonce = (config.get(name) for name in ("run", "round", "nonce"))
    if not (isinstance(run, str) and isinstance(number, int) and isinstance(nonce, str) and nonce):
        raise FederationError("it names no attempt at a round")
    return Attempt(run, number, nonce)


def request(attempt: Attempt, **more: Any) -> RecordDict:
    """A request of one of the small stages."""
    told = {"run": attempt.run, "round": attempt.round, "nonce": attempt.nonce}
    return RecordDict({wire.CONFIG: ConfigRecord({**told, **more})})


def reply(attempt: Attempt, site: str, **more: Any) -> RecordDict:
    """A site's reply to one; its arrays are put in by what makes them."""
    return request(attempt, site=site, status="ok", **more)


def put_keys(content: RecordDict, one: Advertisement, *, bound: Sequence[str]) -> None:
    """Put a site's advertisement into its reply.

    Args:
        content: of the reply.
        one: it.
        bound: the only survivors that the site would unmask in this round; empty if it is free.
    """
    config = content[wire.CONFIG]
    config.update({"channel": one.channel, "mask": one.mask, "seed": one.seed})
    config.update({"keys": one.signature, "bound": list(bound)})


def read_keys(content: RecordDict, site: str) -> tuple[Advertisement, tuple[str, ...]]:
    """The advertisement and the bound survivors in an untrusted reply.

    Raises:
        FederationError: they are not there.
    """
    config = wire.settings(content)
    found = [config.get(name) for name in ("channel", "mask", "seed", "keys")]
    return Advertisement(site, *_hexadecimal(found)), _names(config.get("bound"))


def shares_request(attempt: Attempt, entries: Sequence[Advertisement]) -> RecordDict:
    """A request to share keys with those of a roster."""
    told = {f"{name}s": [getattr(one, name) for one in entries] for name in _KEYS}
    return request(attempt, **told)


def read_entries(content: RecordDict) -> tuple[Advertisement, ...]:
    """The roster's entries in a request; they may come from anybody.

    Raises:
        FederationError: they are not there.
    """
    config = wire.settings(content)
    columns = [config.get(f"{name}s") for name in _KEYS]
    lists = [column if isinstance(column, list) else [] for column in columns]
    if not lists[0] or len({len(column) for column in lists}) != 1:
        raise FederationError("it names no sites and their keys")
    _names(lists[0])
    return tuple(
        Advertisement(str(site), *_hexadecimal(rest)) for site, *rest in zip(*lists, strict=True)
    )


def asked_sha256(content: RecordDict) -> str:
    """SHA-256 (hex) of what a request to train asks for, model included.

    The same in another round, another attempt and for another site.
    """
    config = wire.settings(content)
    names = {field.name for field in fields(wire.Call)} - {"round", "nonce"} | {wire.RESIDUAL}
    told = {name: config[name] for name in names if name in config}
    arrays = {
        name: found
        for name, found in arrays_sha256(content).items()
        if name.split("/")[0] != _SECURE
    }
    return sha256(canonical({"call": told, "arrays": arrays}))


def put_parcels(content: RecordDict, parcels: Mapping[str, bytes]) -> None:
    """Put sealed parcels into a message, by the site that they go to or come from."""
    _put(content, "parcels", parcels)


def read_parcels(content: RecordDict) -> dict[str, bytes]:
    """Sealed parcels of an untrusted message.

    Raises:
        FederationError: they are not there.
    """
    return _read(content, "parcels", size=PARCEL_BYTES)


def put_row(content: RecordDict, row: Row) -> None:
    """Put a masked row into a reply."""
    content[wire.ARRAYS] = wire.adapter_arrays(row.astype(_WORDS, copy=False))


def check_row(content: RecordDict, size: int) -> bytes:
    """The data of the masked row in an untrusted reply, as numpy saves it.

    Args:
        content: of the reply.
        size: m + 1.

    Raises:
        FederationError: it is not exactly one array of so many words.
    """
    arrays = content.array_records
    if list(arrays) != [wire.ARRAYS] or list(arrays[wire.ARRAYS]) != [wire.PACKED]:
        raise FederationError("it does not hold exactly one masked row")
    if content.metric_records:
        raise FederationError("it holds numbers beside its masked row")
    data: bytes = arrays[wire.ARRAYS][wire.PACKED].data
    array_in(data, _WORDS, size)
    return data


def agree_request(attempt: Attempt, survivors: Sequence[str]) -> RecordDict:
    """A request to sign whose rows there are."""
    return request(attempt, survivors=list(survivors))


def read_survivors(content: RecordDict) -> tuple[str, ...]:
    """Whose rows there are, as a request says.

    Raises:
        FederationError: it does not say.
    """
    return _names(wire.settings(content).get("survivors"))


def put_agreed(content: RecordDict, signature: str) -> None:
    """Put a survivor's signature into its reply."""
    content[wire.CONFIG]["agreed"] = signature


def read_agreed(content: RecordDict) -> str:
    """A survivor's signature in an untrusted reply.

    Raises:
        FederationError: it is not there.
    """
    [found] = _hexadecimal([wire.settings(content).get("agreed")])
    return found


def unmask_request(attempt: Attempt, signatures: Sequence[tuple[str, str]]) -> RecordDict:
    """A request for shares."""
    return request(
        attempt,
        signers=[site for site, _ in signatures],
        signatures=[signature for _, signature in signatures],
    )


def read_signatures(content: RecordDict) -> tuple[tuple[str, str], ...]:
    """(survivor, signature) in a request; they may come from anybody.

    Raises:
        FederationError: they are not there.
    """
    config = wire.settings(content)
    signers, signatures = _names(config.get("signers")), config.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != len(signers):
        raise FederationError("it does not hold a signature of every signer")
    return tuple(zip(signers, _hexadecimal(signatures), strict=True))


def put_revealed(content: RecordDict, revealed: Revealed) -> None:
    """Put the shares that a site reveals into its reply."""
    _put(content, "seeds", revealed.seeds)
    _put(content, "masks", revealed.masks)


def read_revealed(content: RecordDict) -> Revealed:
    """The shares in an untrusted reply.

    Raises:
        FederationError: they are not there.
    """
    seeds, masks = (_read(content, name, size=SHARE_BYTES) for name in ("seeds", "masks"))
    return Revealed(seeds, masks)


def _put(content: RecordDict, name: str, parts: Mapping[str, bytes]) -> None:
    """Byte strings of one size by site: the names in the config, the bytes in one array."""
    content[wire.CONFIG][name] = list(parts)
    joined = np.frombuffer(b"".join(parts.values()), _BYTES)
    if _SECURE not in content.array_records:
        content[_SECURE] = ArrayRecord()
    content[_SECURE][name] = Array(joined)


def _read(content: RecordDict, name: str, *, size: int) -> dict[str, bytes]:
    sites = _names(wire.settings(content).get(name))
    arrays = content.array_records.get(_SECURE, {})
    if name not in arrays:
        raise FederationError(f"it lacks its {name}")
    whole = array_in(arrays[name].data, _BYTES, size * len(sites)).tobytes()
    return {site: whole[place * size : (place + 1) * size] for place, site in enumerate(sites)}


def _names(value: object) -> tuple[str, ...]:
    """Names of sites, each once.

    Raises:
        FederationError: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise FederationError("it does not name sites where it should")
    if len(set(value)) < len(value):
        raise FederationError("it names a site twice")
    return tuple(value)


def _hexadecimal(values: Sequence[object]) -> list[str]:
    """Keys, hashes and signatures.

    Raises:
        FederationError: one is something else.
    """
    found = []
    for value in values:
        if not isinstance(value, str) or not value or len(value) % 2 or set(value) - _DIGITS:
            raise FederationError("a key, a hash or a signature in it is none")
        found.append(value)
    return found


_DIGITS = frozenset("0123456789abcdef")
