"""Replies as no honest site sends them: changed on their way, or made by a site with its key."""

import json
import math

import numpy as np
from federation_toy import MANIFEST, SITES, plan, sites, start

from fedmedlora.federation import run as run_module
from fedmedlora.federation import wire
from fedmedlora.federation.flower import (
    Array,
    ArrayRecord,
    MetricRecord,
    from_bytes,
    to_bytes,
)
from fedmedlora.federation.grid import InProcessGrid
from fedmedlora.federation.signing import make_key
from fedmedlora.federation.statements import SIGNATURE, request_sha256, sign_reply

SOUTH = 2  # its node


def keys_in(folder):
    """site -> private key's file, and what a plan has of them."""
    keys = {site: folder / f"{site}.key" for site in SITES}
    return keys, tuple((site, make_key(path)) for site, path in keys.items())


def run_with(monkeypatch, folder, keys, replies_of, **changes):
    """A federation in which ``replies_of(reply, request, round)`` stand for south's reply."""

    class Tampered(InProcessGrid):
        round = 0

        def push_messages(self, messages):
            messages = list(messages)
            for message in messages:
                if message.metadata.message_type == "train":
                    self.round += message.metadata.dst_node_id == 1  # who is asked first
                    if message.metadata.dst_node_id == SOUTH:
                        self.asked = message.content
            return super().push_messages(messages)

        def pull_messages(self, message_ids):
            for reply in super().pull_messages(message_ids):
                if reply.metadata.message_type != "train":
                    yield reply
                elif reply.metadata.src_node_id == SOUTH:
                    yield from replies_of(copied(reply), self.asked, self.round)
                else:
                    replies_of(copied(reply), None, self.round)  # for those who listen
                    yield reply

    monkeypatch.setattr(run_module, "InProcessGrid", Tampered)
    private, public = keys
    return run_module.run_federation(
        plan(**{"min_sites": 2, "public_keys": public, **changes}), start(), workers=sites(),
        folder=folder, keys=private,
    )  # fmt: skip


def copied(reply):
    return from_bytes(to_bytes(reply))


def as_south(reply, content):
    """South's reply with another content."""
    fresh = copied(reply)
    fresh.content = content
    return fresh


def config(**values):
    return lambda content, rng: content[wire.CONFIG].update(values)


def without(record, key=None):
    def change(content, rng):
        del (content if key is None else content[record])[record if key is None else key]

    return change


def metric(**values):
    return lambda content, rng: content[wire.METRICS].update(values)


def counts(make):
    return lambda content, rng: content.update({wire.COUNTS: MetricRecord(make(rng))})


def manifest(**values):
    def change(content, rng):
        told = json.loads(content[wire.CONFIG]["manifest"])
        content[wire.CONFIG]["manifest"] = json.dumps({**told, **values}, sort_keys=True)

    return change


def array(make):
    """Another packed array: ``make(values as uint16, rng)`` gives an array or an ``Array``."""

    def change(content, rng):
        made = make(content[wire.ARRAYS][wire.PACKED].numpy(), rng)
        made = made if isinstance(made, Array) else Array(made)
        content[wire.ARRAYS] = ArrayRecord({wire.PACKED: made})

    return change


def bits(number):
    """A float32 as bfloat16."""
    return np.uint16(np.float32(number).view(np.uint32) >> 16)


def with_value(number):
    def make(values, rng):
        values = values.copy()
        values[rng.integers(values.size)] = bits(number)
        return values

    return make


def renamed(content, rng):
    content[wire.ARRAYS] = ArrayRecord({"embed_tokens": content[wire.ARRAYS][wire.PACKED]})


def base_tensor(content, rng):
    tensor = Array(np.zeros((4, 4), np.float32))
    content[wire.ARRAYS]["base_model.model.embed_tokens.weight"] = tensor


def second_record(content, rng):
    content["base"] = ArrayRecord({"w": Array(np.zeros(3, np.float32))})


def raw(change):
    """Another data, under the same claims."""

    def make(values, rng):
        return Array("uint16", (MANIFEST.size,), "numpy.ndarray", change(Array(values).data, rng))

    return make


TENSORS = [[name, list(shape)] for name, shape in MANIFEST.tensors]

#: What a site with its own key may send: signed anew after the change.
SIGNED = {
    "too short": array(lambda v, rng: v[: -int(rng.integers(1, v.size))]),
    "too long": array(lambda v, rng: np.resize(v, v.size + int(rng.integers(1, 99)))),
    "two-dimensional": array(lambda v, rng: v[None]),
    "of another type": array(
        lambda v, rng: v.astype(rng.choice(["float32", "float64", "int8", "int64", "uint8", "<U2"]))
    ),
    "big-endian": array(lambda v, rng: raw(lambda d, rng: Array(v.astype(">u2")).data)(v, rng)),
    "not a number": array(with_value(math.nan)),
    "infinite": array(with_value(math.inf)),
    "infinite below": array(with_value(-math.inf)),
    "pickled": array(lambda v, rng: Array("uint16", v.shape, "pickle", Array(v).data)),
    "cut": array(raw(lambda d, rng: d[: int(rng.integers(len(d)))])),
    "garbage": array(raw(lambda d, rng: rng.bytes(len(d)))),
    "a broken header": array(raw(lambda d, rng: d[:6] + rng.bytes(20) + d[26:])),
    "an open bracket in the header": array(raw(lambda d, rng: d.replace(b"}", b"(", 1))),
    "a header of a petabyte": array(
        raw(lambda d, rng: d.replace(b"(14,), }" + b" " * 13, b"(999999999999999,), }"))
    ),
    "far more data": array(raw(lambda d, rng: d + rng.bytes(9000))),
    "no adapter": without(wire.ARRAYS),
    "renamed": renamed,
    "a tensor of the base model": base_tensor,
    "another record of arrays": second_record,
    "no config": without(wire.CONFIG),
    "no metrics": without(wire.METRICS),
    "no counts": without(wire.COUNTS),
    "another rank": manifest(rank=4),
    "another scale": manifest(alpha=16.0),
    "another backbone": manifest(backbone="c" * 64),
    "another tokenizer": manifest(tokenizer="c" * 64),
    "another scheme": manifest(scheme="c" * 64),
    "other shapes": manifest(tensors=[[n, s[::-1]] for n, s in TENSORS]),
    "other tensors": manifest(tensors=TENSORS[:1]),
    "base tensors in the manifest": manifest(tensors=[*TENSORS, ["model.norm.weight", [4]]]),
    "another format": manifest(format=2),
    "no manifest": without(wire.CONFIG, "manifest"),
    "a manifest that is none": config(manifest="[]"),
    "another round": lambda c, rng: config(round=int(rng.integers(1000, 2000)))(c, rng),
    "no round": without(wire.CONFIG, "round"),
    "another run": config(run="other"),
    "another site": config(site="north"),
    "an unknown site": config(site="east"),
    "no site": without(wire.CONFIG, "site"),
    "no examples": without(wire.METRICS, "examples"),
    "examples below one": lambda c, rng: metric(examples=-int(rng.integers(9)))(c, rng),
    "too many examples": metric(examples=2**60),
    "half an example": metric(examples=0.5),
    "tokens below one": lambda c, rng: metric(tokens=-int(rng.integers(9)))(c, rng),
    "tokens not a number": metric(tokens=math.nan),
    "a list of tokens": metric(tokens=[1, 2]),
    "text for a count": counts(lambda rng: {"Mrs Zyxwvut, 63": 1}),
    "a count not a number": counts(lambda rng: {"steps": math.nan}),
    "a list of counts": counts(lambda rng: {"steps": [1, 2]}),
    "too many counts": counts(lambda rng: {f"c{i}": i for i in range(1000)}),
}  # fmt: skip


def flipped(content, rng):
    signature = bytearray.fromhex(content[wire.CONFIG][SIGNATURE])
    signature[rng.integers(64)] ^= 1 << int(rng.integers(8))
    content[wire.CONFIG][SIGNATURE] = signature.hex()


#: What may happen to an honest reply on its way, or be made without the site's key.
UNSIGNED = {
    "a flipped bit of the signature": flipped,
    "no signature": without(wire.CONFIG, SIGNATURE),
    "an empty signature": config(**{SIGNATURE: ""}),
    "text for a signature": config(**{SIGNATURE: "Mrs Zyxwvut"}),
    "more examples": lambda c, rng: metric(examples=int(rng.integers(21, 99)))(c, rng),
    "more tokens": lambda c, rng: metric(tokens=int(rng.integers(201, 999)))(c, rng),
    "a better loss": metric(loss_last=0.01),
    "another count": counts(lambda rng: {"rows_cut": int(rng.integers(4, 99)), "share": 0.5}),
    "another value": array(with_value(3.0)),
    "opposite values": array(lambda v, rng: v ^ np.uint16(0x8000)),
    "a flipped bit of a value": array(
        lambda v, rng: v ^ np.uint16(1) * (np.arange(v.size) == rng.integers(v.size))
    ),
    "a head": config(head="0123456789ab:1:" + "f" * 64),
    "a word more": config(more="word"),
    "said to have failed": config(status="failed", code="memory", incident="1"),
}


def south_forged(name, reply, request, north, keys, rng):
    """South's replies of a kind; a list, for it may send several."""
    content = reply.content
    private, _ = keys
    if name in SIGNED:
        SIGNED[name](content, rng)
        if wire.CONFIG in content:
            content[wire.CONFIG].pop(SIGNATURE, None)
            digest = request_sha256(request)
            sign_reply(content, private["south"], phase="train", request=digest)
    elif name in UNSIGNED:
        UNSIGNED[name](content, rng)
    elif name == "two replies":
        return [reply, copied(reply)]
    elif name == "signed by another site":
        del content[wire.CONFIG][SIGNATURE]
        sign_reply(content, private["north"], phase="train", request=request_sha256(request))
    elif name == "signed to another request":
        del content[wire.CONFIG][SIGNATURE]
        sign_reply(content, private["south"], phase="train", request="0" * 64)
    elif name == "signed in another phase":
        del content[wire.CONFIG][SIGNATURE]
        sign_reply(content, private["south"], phase="score", request=request_sha256(request))
    elif name == "north's reply":
        content = north
    elif name == "north's reply under its name":
        content = north
        content[wire.CONFIG]["site"] = "south"
    elif name == "north's signature":
        content[wire.CONFIG][SIGNATURE] = north[wire.CONFIG][SIGNATURE]
    return [as_south(reply, content)]


OTHER = (
    "two replies", "signed by another site", "signed to another request", "signed in another phase",
    "north's reply", "north's reply under its name", "north's signature",
)  # fmt: skip
KINDS = (*SIGNED, *UNSIGNED, *OTHER)
