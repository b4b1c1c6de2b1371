"""The adapter: named float32 arrays, the manifest that says what they are, and what is refused.

Whatever comes from a PEFT model, the wire or a saved folder is checked against its manifest here:
PEFT itself accepts missing, renamed, non-finite and base-model tensors without a word. ``lora``
moves adapters in and out of models, ``packing`` has the wire form, ``adapter_files`` the folders.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import AdapterError

#: LoRA's factors of every layer: A, B or both. (``aggregation`` imports nothing of ours, and has
#: the same.)
Part = Literal["A", "B", "AB"]
_FACTOR = re.compile(r"\.lora_([AB])\b")
#: Stands in a manifest where LoRA's names the adapted modules: a whole model travels.
WHOLE_MODEL = ("whole-model",)
SHOWN = 3  # names listed for each kind of fault
LINEAGE = ("backbone", "tokenizer", "scheme", "rank", "alpha", "targets", "tensors", "format")


@dataclass(frozen=True)
class Manifest:
    """What an adapter is: two adapters may be averaged only if their manifests agree.

    Attributes:
        backbone: SHA-256 (hex) of the frozen backbone's weights.
        tokenizer: SHA-256 (hex) of its tokenizer.
        scheme: ``Scheme.fingerprint`` of what it was trained to annotate.
        rank: r >= 1, of every adapted layer.
        alpha: LoRA scale's numerator, > 0; the scale is alpha / rank.
        dropout: in [0, 1).
        targets: names of the adapted modules as PEFT resolved them, sorted.
        tensors: (PEFT name without the adapter's name, shape), sorted by name.
        format: version of this record.

    Raises:
        AdapterError: a field is of the wrong type or out of range.
    """

    backbone: str
    tokenizer: str
    scheme: str
    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    format: int = 1

    def __post_init__(self) -> None:
        if self.format != 1:
            raise AdapterError(f"manifest format {self.format!r} is not 1: another release made it")
        if self.rank < 1 or not self.alpha > 0 or not 0 <= self.dropout < 1:
            raise AdapterError(
                f"manifest has rank {self.rank}, alpha {self.alpha}, dropout {self.dropout}: "
                "rank must be 1 or more, alpha above 0, dropout in [0, 1)"
            )
        names = [name for name, _ in self.tensors]
        if not names or names != sorted(set(names)):
            raise AdapterError("manifest must list at least one tensor, sorted, each once")
        if any(size < 1 for _, shape in self.tensors for size in shape):
            raise AdapterError("manifest lists a tensor with an empty dimension")

    @property
    def size(self) -> int:
        """Number of values in all tensors together."""
        return sum(math.prod(shape) for _, shape in self.tensors)

    def to_json(self) -> str:
        """The manifest as one line of JSON with sorted keys: equal manifests, equal text."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """The manifest that ``to_json`` wrote.

        Raises:
            AdapterError: not JSON, a field missing, unknown, of the wrong type or out of range.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise AdapterError("manifest is not JSON") from error
        names = {field.name for field in fields(cls)}
        if not isinstance(content, dict) or set(content) != names:
            found = set(content) if isinstance(content, dict) else set()
            raise AdapterError(
                f"manifest lacks {sorted(names - found)} and has {len(found - names)} unknown keys"
            )
        kinds: dict[str, type | tuple[type, ...]] = {
            "backbone": str, "tokenizer": str, "scheme": str, "rank": int, "format": int,
            "alpha": (int, float), "dropout": (int, float), "targets": list, "tensors": list,
        }  # fmt: skip
        for name, kind in kinds.items():
            if not isinstance(content[name], kind) or isinstance(content[name], bool):
                raise AdapterError(f"manifest key {name!r} is a {type(content[name]).__name__}")
        try:
            tensors = tuple(
                (str(name), tuple(_dimension(size) for size in shape))
                for name, shape in content["tensors"]
            )
        except (TypeError, ValueError) as error:
            raise AdapterError("manifest key 'tensors' is no list of [name, [sizes]]") from error
        return cls(
            **{name: content[name] for name in ("backbone", "tokenizer", "scheme", "format")},
            rank=content["rank"],
            alpha=float(content["alpha"]),
            dropout=float(content["dropout"]),
            targets=tuple(str(target) for target in content["targets"]),
            tensors=tensors,
        )


@dataclass(frozen=True, eq=False)  # arrays have no truth value: compare ``sha256``
class Adapter:
    """LoRA's A and B of every adapted layer.

    Attributes:
        manifest: what they are.
        tensors: PEFT name without the adapter's name -> float32 array, in manifest order.
    """

    manifest: Manifest
    tensors: dict[str, NDArray[np.float32]]

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of names, shapes and values: equal adapters, bit for bit, agree."""
        return sha256_of(self.tensors)


def factor_of(name: str) -> str:
    """Which factor a tensor is: "A" or "B"; "" if it is none of LoRA's."""
    found = _FACTOR.search(name)
    return found[1] if found else ""


def partner_of(name: str) -> str:
    """The name of the B that goes with an A."""
    return _FACTOR.sub(".lora_B", name)


def sha256_of(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    """SHA-256 (hex) of named arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.shape};".encode())
        digest.update(np.ascontiguousarray(tensor, dtype="<f4").tobytes())
    return digest.hexdigest()


def check_adapter(tensors: Mapping[str, NDArray[Any]], manifest: Manifest) -> None:
    """Refuse tensors that are not exactly what the manifest lists.

    Raises:
        AdapterError: tensors are missing, extra, renamed, misshapen, not float32, not finite, or
            the base model's; the message names the first few of each kind.
    """
    wanted = dict(manifest.tensors)
    missing = [name for name in wanted if name not in tensors]
    unknown = [name for name in tensors if name not in wanted]
    renamed = {_plain(name) for name in missing} & {_plain(name) for name in unknown}
    faults: dict[str, list[str]] = {
        "missing": [name for name in missing if _plain(name) not in renamed],
        "renamed": [name for name in unknown if _plain(name) in renamed],
        "not LoRA's (of the base model?)": [],
        "extra": [],
        "misshapen": [],
        "not float32": [],
        "not finite": [],
    }
    for name in unknown:
        if _plain(name) not in renamed:
            faults["extra" if ".lora_" in name else "not LoRA's (of the base model?)"].append(name)
    for name, shape in wanted.items():
        if name not in tensors:
            continue
        tensor = tensors[name]
        if not isinstance(tensor, np.ndarray) or tensor.dtype != np.float32:
            found = getattr(tensor, "dtype", type(tensor).__name__)
            faults["not float32"].append(f"{name} ({found})")
        elif tensor.shape != shape:
            faults["misshapen"].append(f"{name} ({tensor.shape} instead of {shape})")
        elif not np.isfinite(tensor).all():
            bad = tensor.size - int(np.isfinite(tensor).sum())
            faults["not finite"].append(f"{name} ({bad} of {tensor.size} values)")
    _refuse(faults)


def check_same_lineage(manifest: Manifest, expected: Manifest) -> None:
    """Refuse an adapter made for another backbone, tokenizer, scheme, rank, alpha or targets.

    Raises:
        AdapterError: which of them differ, and both values.
    """
    different = [
        name for name in LINEAGE if getattr(manifest, name) != getattr(expected, name)
    ]  # dropout acts in training only: it does not keep two adapters apart
    if not different:
        return
    told = [
        f"{name} ({_short(getattr(manifest, name))} instead of {_short(getattr(expected, name))})"
        for name in different
    ]
    raise AdapterError(f"the adapter was made for another {'; another '.join(told)}")


def _plain(name: str) -> str:
    """A tensor's name without the prefixes and the adapter name that wrappers put in."""
    bare = re.sub(r"^(?:base_model\.|module\.|_orig_mod\.|model\.)+", "", name)
    return re.sub(r"(lora_[AB])\.[^.]+\.weight$", r"\1.weight", bare)


def _dimension(size: object) -> int:
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError
    return size


def _short(value: object) -> str:
    text = f"{len(value)} of them" if isinstance(value, tuple) and len(value) > 12 else str(value)
    return text if len(text) <= 60 else f"{text[:12]}..."


def _refuse(faults: Mapping[str, Sequence[str]]) -> None:
    told = []
    for kind, names in faults.items():
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            told.append(f"{len(names)} {kind}: {', '.join(names[:SHOWN])}{more}")
    if told:
        raise AdapterError(f"adapter refused: {'; '.join(told)}")
