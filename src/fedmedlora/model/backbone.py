"""The frozen backbone: a name or a folder in, a model and its tokenizer out, with fingerprints.

Any causal language model that transformers loads, in fp32, bf16 or NF4 (4-bit, needs the ``nf4``
extra). ``"embedded"`` is the small model that ships with the package; it is loaded by the same
call as any other.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedmedlora.errors import BackboneError

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "embedded"
Precision = Literal["fp32", "bf16", "nf4"]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class Backbone:
    """A loaded backbone.

    Attributes:
        name: as given: ``"embedded"``, a folder, or a hub name.
        path: what transformers loads: the folder, or the hub name.
        model: frozen causal language model, in evaluation mode.
        tokenizer: its tokenizer, with a padding token.
        fingerprint: SHA-256 (hex) of the weights' files, or of hub name and commit.
        tokenizer_fingerprint: SHA-256 (hex) of the tokenizer's content.
        precision: how the weights are held.
    """

    name: str
    path: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    tokenizer_fingerprint: str
    precision: Precision


def embedded_folder() -> Path:
    """The folder of the embedded backbone inside the installed package."""
    return Path(str(resources.files("fedmedlora.model") / "embedded"))


def _resolve(name: str) -> str:
    if name == EMBEDDED:
        return str(embedded_folder())
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BackboneError(
                f"backbone {name!r}: the folder has no config.json, so it is no saved model"
            )
        if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
            raise BackboneError(
                f"backbone {name!r}: the folder has no tokenizer (none of "
                f"{', '.join(_TOKENIZER_FILES)}); save it there with tokenizer.save_pretrained"
            )
        return str(folder)
    if name.startswith((".", "/", "~")):
        raise BackboneError(f"backbone {name!r}: there is no such folder")
    return name


def _sha256_of_files(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _fingerprint(path: str, model: PreTrainedModel) -> str:
    folder = Path(path)
    if folder.is_dir():
        weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
        return _sha256_of_files([*weights, folder / "config.json"])
    commit = getattr(model.config, "_commit_hash", None)
    return hashlib.sha256(f"{path}@{commit}".encode()).hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) of everything that decides how text becomes tokens."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        content = json.dumps(sorted(tokenizer.get_vocab().items()))
    else:
        # Padding and truncation are settings of a call that some callers leave behind.
        record = json.loads(fast.to_str())
        record.pop("padding", None), record.pop("truncation", None)
        content = json.dumps(record, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _quantisation() -> BitsAndBytesConfig:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BackboneError("precision nf4 needs bitsandbytes: pip install 'fedmedlora[nf4]'")
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def load_backbone(name: str, *, precision: Precision = "fp32") -> Backbone:
    """Load a backbone and its tokenizer; every weight is frozen.

    Args:
        name: ``"embedded"``, a folder written by ``save_pretrained``, or a name on the hub.
        precision: ``"fp32"``, ``"bf16"`` or ``"nf4"``.

    Raises:
        BackboneError: it cannot be loaded, or it has no tokenizer or no end-of-sequence token.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = _resolve(name)
    options: dict[str, Any] = {"dtype": torch.float32 if precision == "fp32" else torch.bfloat16}
    if precision == "nf4":
        options["quantization_config"] = _quantisation()
    if torch.cuda.is_available():
        options["device_map"] = {"": 0}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, **options)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BackboneError(f"backbone {name!r} cannot be loaded: {first}") from error
    if tokenizer.eos_token_id is None:
        raise BackboneError(f"backbone {name!r}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.requires_grad_(False)
    model.eval()
    return Backbone(
        name,
        path,
        model,
        tokenizer,
        _fingerprint(path, model),
        tokenizer_fingerprint(tokenizer),
        precision,
    )
