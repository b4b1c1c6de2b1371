"""Adapters on disk: an adapter in, a folder that ``PeftModel.from_pretrained`` opens out, and back.

peft and safetensors are imported inside functions: moving adapters between sites needs neither.
"""

from __future__ import annotations

import json
from pathlib import Path

from fedmedlora.durable import new_folder, write_bytes
from fedmedlora.errors import AdapterError
from fedmedlora.model.adapter import WHOLE_MODEL, Adapter, Manifest, check_adapter

MANIFEST_FILE = "fedmedlora.json"
TENSORS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


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
        if adapter.manifest.targets != WHOLE_MODEL:  # PEFT could not open that
            config = _peft_config(adapter.manifest, base_model)
            write_bytes(fresh / CONFIG_FILE, config.encode())
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
