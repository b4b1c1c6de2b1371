"""The frozen backbone: a name or a folder in, a model and its tokenizer out, with fingerprints.

Any causal language model that transformers loads, in fp32, bf16 or NF4 (4-bit, needs the ``nf4``
extra). ``"embedded"`` is the small model that ships with the package; it is loaded by the same
call as any other.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
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


def resolve_name(name: str) -> str:
    """What transformers loads: a folder, or a name on the hub.

    Raises:
        BackboneError: a folder that is none, or holds no saved model and tokenizer.
    """
    if name == EMBEDDED:
        if not (embedded_folder() / "config.json").is_file():
            raise BackboneError(
                f"backbone {name!r}: it is not in this installation ({embedded_folder()}); install "
                "the package again, or make it with scripts/make_backbone.py"
            )
        return str(embedded_folder())
    try:
        folder = Path(name).expanduser()
    except RuntimeError as error:
        raise BackboneError(f"backbone {name!r}: there is no such user; check the path") from error
    if name and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BackboneError(
                f"backbone {name!r}: the folder has no config.json, so it is no saved model; name "
                "a folder that model.save_pretrained wrote"
            )
        if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
            raise BackboneError(
                f"backbone {name!r}: the folder has no tokenizer (none of "
                f"{', '.join(_TOKENIZER_FILES)}); save it there with tokenizer.save_pretrained"
            )
        return str(folder)
    if not name or name.startswith((".", "/", "~")) or folder.exists():
        raise BackboneError(f"backbone {name!r}: there is no such folder; check the path")
    return name


def check_name(name: str, *, key: str, cached: bool = False) -> None:
    """Refuse a name that stands for nothing, before anything is done with it.

    No weight is read: of a model that is on the hub, the configuration.

    Args:
        name: as ``load_backbone`` takes it.
        key: where it stands in the study file.
        cached: whether a model of the hub must be on this machine: the hub is not asked.

    Raises:
        BackboneError: it is neither ``"embedded"``, a folder nor a model of the hub that is cached
            or (unless ``cached``) can be reached.
    """
    if name == EMBEDDED:
        return
    try:
        path = resolve_name(name)
    except BackboneError as error:
        raise BackboneError(f"{key}: {error}") from error
    if Path(path).is_dir():
        return
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(path, local_files_only=cached)
    except (OSError, ValueError) as error:  # an HTTP error is an OSError
        fetched = "" if cached else " or can be fetched from the hub"
        raise BackboneError(
            f"{key}: {name!r} is no folder here, and no model of that name is cached{fetched} "
            f"({type(error).__name__}); name a folder that save_pretrained wrote, a model of the "
            f"hub, or {EMBEDDED}"
        ) from error


def _sha256_of_files(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def weights_fingerprint(path: str, config: object) -> str:
    """SHA-256 (hex) of the files of weights and configuration, or of hub name and commit.

    Args:
        path: what transformers loads.
        config: as transformers loaded it from there.
    """
    folder = Path(path)
    if folder.is_dir():
        weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
        return _sha256_of_files([*weights, folder / "config.json"])
    commit = getattr(config, "_commit_hash", None)
    return hashlib.sha256(f"{path}@{commit}".encode()).hexdigest()


def fingerprints_of(name: str) -> tuple[str, str]:
    """The fingerprints of a backbone's weights and tokenizer, without loading the weights.

    Raises:
        BackboneError: there is no such backbone.
    """
    path = resolve_name(name)
    with raised_as_backbone_error(name, "tokenizer"):
        from transformers import AutoConfig, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(path)
        config = AutoConfig.from_pretrained(path)
    return weights_fingerprint(path, config), tokenizer_fingerprint(tokenizer)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) of everything that decides how text becomes tokens."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        content = json.dumps(sorted(tokenizer.get_vocab().items()))
    else:
        # Padding and truncation are settings of a call that some callers leave behind.
        record = json.loads(fast.to_str())
        record |= {"padding": None, "truncation": None}
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
        BackboneError: it cannot be loaded, lacks weights, or has no tokenizer or one that does
            not fit.
    """
    path = resolve_name(name)
    with raised_as_backbone_error(name, "tokenizer"):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.eos_token_id is None:
        raise BackboneError(
            f"backbone {name!r}: its tokenizer has no end-of-sequence token, so no answer could "
            "end; set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = _load_model(name, path, precision)
    rows = model.get_input_embeddings().weight.shape[0]
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise BackboneError(
            f"backbone {name!r}: its tokenizer has token ids up to {highest}, its model embeds "
            f"{rows}: they do not belong together"
        )
    model.requires_grad_(False)
    model.eval()
    return Backbone(
        name,
        path,
        model,
        tokenizer,
        weights_fingerprint(path, model.config),
        tokenizer_fingerprint(tokenizer),
        precision,
    )


def _load_model(name: str, path: str, precision: Precision) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.float32 if precision == "fp32" else torch.bfloat16}
    if precision == "nf4":
        options["quantization_config"] = _quantisation()
    if torch.cuda.is_available():
        options["device_map"] = {"": 0}
    with raised_as_backbone_error(name, "model"), no_loading_bar():
        model, info = AutoModelForCausalLM.from_pretrained(
            path, output_loading_info=True, **options
        )
    # transformers draws what a file lacks at random, and goes on.
    missing = sorted(info["missing_keys"])
    if missing:
        raise BackboneError(
            f"backbone {name!r}: its files lack {len(missing)} tensors ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}): copy or download it again"
        )
    return model


@contextmanager
def no_loading_bar() -> Iterator[None]:
    """No bar for the loading of weights: where progress shows is the caller's to say."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def raised_as_backbone_error(name: str, part: str) -> Iterator[None]:
    """Whatever the libraries raise about broken files becomes a BackboneError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # tokenizers raises Exception itself, safetensors a child of it
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise BackboneError(
            f"backbone {name!r}: its {part} cannot be loaded ({type(error).__name__}: "
            f"{first[:200]}); check that its files are whole, or that the name is right and the "
            "hub can be reached"
        ) from error
