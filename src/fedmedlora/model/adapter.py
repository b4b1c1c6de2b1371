"""The adapter: PEFT's tensors, their wire form, their manifest, and the check that refuses others.

Enters: a PEFT model, arrays off the wire, or a saved folder. Leaves: an ``Adapter`` (named
float32 arrays with the manifest that says what they are), one packed array, or a folder that
``PeftModel.from_pretrained`` opens. Only this module knows PEFT's names. PEFT itself accepts
missing, renamed, non-finite and base-model tensors without a word, so it gets nothing unchecked.

torch, peft and safetensors are imported inside functions: moving adapters needs numpy alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import AdapterError, RunError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Wire = Literal["bf16", "fp32"]
Tensors = Mapping[str, NDArray[np.float32]]

WIRE_TYPES: dict[Wire, type[np.generic]] = {"bf16": np.uint16, "fp32": np.float32}
MANIFEST_FILE = "fedmedlora.json"
TENSORS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
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
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name}:{tensor.shape};".encode())
            digest.update(np.ascontiguousarray(tensor, dtype="<f4").tobytes())
        return digest.hexdigest()


def new_adapter_model(
    base_model: PreTrainedModel,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Sequence[str],
    seed: int,
) -> PeftModel:
    """Put a fresh LoRA adapter on a causal LM: A random from ``seed``, B zero.

    ``base_model`` is changed in place, as PEFT does. The global random state is left as it was.

    Args:
        base_model: the frozen backbone.
        rank: r >= 1.
        alpha: > 0; the scale is alpha / r.
        dropout: in [0, 1).
        targets: module names, or ``"all-linear"`` (alone) for every linear layer but the head.
        seed: of A.

    Raises:
        AdapterError: PEFT finds no such module, or refuses the setting.
    """
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    wanted = [targets] if isinstance(targets, str) else list(targets)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear" if wanted == ["all-linear"] else wanted,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return get_peft_model(base_model, config)
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise AdapterError(
                f"cannot adapt modules {', '.join(wanted)} with rank {rank}: {error}"
            ) from error


def manifest_of(model: PeftModel, *, backbone: str, tokenizer: str, scheme: str) -> Manifest:
    """The manifest of a PEFT model's default adapter, given the fingerprints of its surroundings.

    Raises:
        AdapterError: the adapter is not plain LoRA with one rank for all layers.
    """
    config = model.peft_config["default"]
    if config.peft_type != "LORA" or config.rank_pattern or config.alpha_pattern or config.use_dora:
        raise AdapterError("only plain LoRA with one rank and alpha for all layers can travel")
    found = config.target_modules
    targets = (found,) if isinstance(found, str) else tuple(sorted(found))
    shapes = {name: tuple(value.shape) for name, value in _lora_state(model).items()}
    return Manifest(
        backbone=backbone,
        tokenizer=tokenizer,
        scheme=scheme,
        rank=int(config.r),
        alpha=float(config.lora_alpha),
        dropout=float(config.lora_dropout),
        targets=targets,
        tensors=tuple(sorted(shapes.items())),
    )


def adapter_of(model: PeftModel, manifest: Manifest) -> Adapter:
    """Copy the default adapter out of a PEFT model, as float32 arrays.

    Raises:
        AdapterError: it is not what ``manifest`` says, or holds non-finite values.
    """
    state = {n: t.detach().float().cpu().numpy().copy() for n, t in _lora_state(model).items()}
    check_adapter(state, manifest)
    return Adapter(manifest, {name: state[name] for name, _ in manifest.tensors})


def load_adapter(model: PeftModel, adapter: Adapter) -> None:
    """Write an adapter into a PEFT model's default adapter, in place, after checking it.

    Raises:
        AdapterError: the tensors break their manifest, or the model has other tensors.
    """
    import torch
    from peft import set_peft_model_state_dict

    check_adapter(adapter.tensors, adapter.manifest)
    here = {name: tuple(value.shape) for name, value in _lora_state(model).items()}
    if tuple(sorted(here.items())) != adapter.manifest.tensors:
        raise AdapterError(
            "the model's own adapter has other tensors or shapes than this one: make it with the "
            f"manifest's rank {adapter.manifest.rank} and targets "
            f"{', '.join(adapter.manifest.targets)}"
        )
    # A copy: from_numpy would share memory with an adapter that others hold.
    state = {name: torch.from_numpy(tensor.copy()) for name, tensor in adapter.tensors.items()}
    set_peft_model_state_dict(model, state)


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


def pack(adapter: Adapter, dtype: Wire) -> NDArray[Any]:
    """An adapter as ONE array: its tensors in manifest order, flattened, one after another.

    One array because the number of arrays, not their size, is what slows the transport.

    Returns:
        1-D, ``adapter.manifest.size`` values: uint16 (the bits of bfloat16) or float32.

    Raises:
        AdapterError: names, shapes or types break the manifest. Values are not looked at: NaN
            stays NaN, and whoever receives it refuses it.
    """
    tensors = adapter.tensors
    wanted = dict(adapter.manifest.tensors)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != wanted or any(tensor.dtype != np.float32 for tensor in tensors.values()):
        check_adapter(tensors, adapter.manifest)
    flat = np.concatenate([tensors[name].reshape(-1) for name in wanted])
    return to_bf16(flat) if dtype == "bf16" else flat


def unpack(array: NDArray[Any], manifest: Manifest, dtype: Wire) -> Adapter:
    """The adapter that ``pack`` flattened. Values are not looked at: ``check_adapter`` does that.

    Raises:
        AdapterError: the array is not 1-D, of another type, or of another length.
    """
    expected = WIRE_TYPES[dtype]
    if array.dtype != expected or array.shape != (manifest.size,):
        raise AdapterError(
            f"packed adapter is {array.dtype} of shape {array.shape}; the manifest asks for "
            f"{np.dtype(expected)} of shape ({manifest.size},)"
        )
    flat = from_bf16(array) if dtype == "bf16" else array.astype(np.float32)
    tensors: dict[str, NDArray[np.float32]] = {}
    place = 0
    for name, shape in manifest.tensors:
        end = place + math.prod(shape)
        tensors[name] = flat[place:end].reshape(shape)
        place = end
    return Adapter(manifest, tensors)


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of bfloat16, rounded to nearest, ties to even; NaN stays NaN, too large is inf."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    # Rounding could carry a NaN's mantissa over into another value: give the quiet NaN instead.
    return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16)


def from_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 values of bfloat16 bits; exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def save_adapter(adapter: Adapter, folder: Path | str, *, base_model: str) -> None:
    """Write a folder that ``PeftModel.from_pretrained(base, folder)`` opens; all of it or nothing.

    Holds ``adapter_config.json``, ``adapter_model.safetensors`` (float32) and ``fedmedlora.json``
    (manifest and hash of the tensors). A folder of that name is replaced only once the new one is
    complete on disk.

    Args:
        adapter: checked before it is written.
        folder: parents are made.
        base_model: name or path of the backbone, for PEFT's configuration.

    Raises:
        AdapterError: the tensors break their manifest.
        RunError: the folder cannot be written (no space, no right); what was there stays.
    """
    from safetensors.numpy import save

    check_adapter(adapter.tensors, adapter.manifest)
    with new_folder(Path(folder)) as fresh:
        write_bytes(fresh / CONFIG_FILE, _peft_config(adapter.manifest, base_model).encode())
        write_bytes(fresh / TENSORS_FILE, save(adapter.tensors, metadata={"format": "pt"}))
        record = {"manifest": json.loads(adapter.manifest.to_json()), "sha256": adapter.sha256}
        write_bytes(fresh / MANIFEST_FILE, json.dumps(record, indent=1, sort_keys=True).encode())


def read_adapter(folder: Path | str) -> Adapter:
    """Read a folder that ``save_adapter`` wrote.

    Raises:
        AdapterError: a file is missing or broken, the tensors break the manifest, or their hash is
            not the one written beside them (a flipped bit passes safetensors unseen).
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    folder = Path(folder)
    try:
        record = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        manifest = Manifest.from_json(json.dumps(record["manifest"]))
        tensors = load((folder / TENSORS_FILE).read_bytes())
        digest = record["sha256"]
    except OSError as error:
        raise AdapterError(
            f"{folder}: {error.strerror} ({Path(error.filename or '').name}): not a folder that "
            "this program saved an adapter in"
        ) from error
    except AdapterError as error:
        raise AdapterError(f"{folder}: {error}") from error
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise AdapterError(f"{folder}: the saved adapter is broken: {error}") from error
    try:
        check_adapter(tensors, manifest)
    except AdapterError as error:
        raise AdapterError(f"{folder}: {error}") from error
    adapter = Adapter(manifest, {name: tensors[name] for name, _ in manifest.tensors})
    if adapter.sha256 != digest:
        raise AdapterError(
            f"{folder}: the tensors do not have the hash written in {MANIFEST_FILE}: the file was "
            "changed or damaged; take another copy"
        )
    return adapter


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes ``folder``'s place when the block ends well.

    Raises:
        RunError: an ``OSError`` happened; the temporary folder is removed, ``folder`` is as before.
    """
    fresh = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        fresh.mkdir(parents=True)
        yield fresh
        _sync_folder(fresh)
        if folder.exists():
            old = fresh.with_suffix(".old")
            folder.replace(old)
            fresh.replace(folder)
            shutil.rmtree(old)
        else:
            fresh.replace(folder)
        _sync_folder(folder.parent)
    except OSError as error:
        raise RunError(
            f"cannot write {folder}: {error.strerror}; what was there before is untouched"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lora_state(model: PeftModel) -> dict[str, Any]:
    """The default adapter's tensors by PEFT name; never the embeddings.

    PEFT's "auto" would ship them after the vocabulary was resized, and asks the hub to find out.
    """
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model, save_embedding_layers=False))


def _peft_config(manifest: Manifest, base_model: str) -> str:
    from peft import LoraConfig, TaskType

    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        base_model_name_or_path=base_model,
        inference_mode=True,
        r=manifest.rank,
        lora_alpha=int(manifest.alpha) if manifest.alpha.is_integer() else manifest.alpha,
        lora_dropout=manifest.dropout,
        target_modules=list(manifest.targets),
    ).to_dict()
    plain = {
        key: sorted(value) if isinstance(value, set) else value for key, value in config.items()
    }
    return json.dumps(plain, indent=2, sort_keys=True)


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
