"""The BERT-class baseline: an encoder by name in, a token classifier to train and send out.

Any encoder that transformers loads for token classification and that has a fast tokenizer;
``"embedded"`` is the small one that ships with the package, ``emilyalsentzer/Bio_ClinicalBERT``
that of arXiv 2601.22124. The whole of it is trained and travels, except its embeddings, which stay
frozen. What travels has the form of an adapter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fedmedlora.errors import AdapterError, BackboneError
from fedmedlora.model.adapter import WHOLE_MODEL, Adapter, Manifest, check_adapter
from fedmedlora.model.backbone import (
    EMBEDDED,
    embedded_folder,
    no_loading_bar,
    raised_as_backbone_error,
    resolve_name,
    tokenizer_fingerprint,
    weights_fingerprint,
)
from fedmedlora.model.bio import label_names
from fedmedlora.schema import Scheme
from fedmedlora.seeds import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MARKER_SEED = 0


@dataclass(frozen=True)
class Tagger:
    """An encoder with a classifier of tokens; its weights are overwritten by every use.

    Attributes:
        name: as given: ``"embedded"``, a folder, or a hub name.
        path: what transformers loads.
        model: all trainable but the embeddings; in evaluation mode unless it is being trained.
        tokenizer: a fast one.
        scheme: its types give the labels.
        markers: ids of the tokens before and after a head. They are added behind the vocabulary,
            with embeddings drawn like the others' and the same everywhere; no text gives them.
        longest: the most tokens that the encoder takes.
        manifest: what every state of this tagger is: rank 1, alpha 1, targets ``WHOLE_MODEL``.
        initial: the state that round 1 broadcasts: the encoder as loaded, its classifier random.
    """

    name: str
    path: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    scheme: Scheme
    markers: tuple[int, int]
    longest: int
    manifest: Manifest
    initial: Adapter


def embedded_encoder_folder() -> Path:
    """The folder of the embedded encoder inside the installed package."""
    return Path(str(resources.files("fedmedlora.model") / "embedded_encoder"))


def load_tagger(name: str, *, scheme: Scheme, seed: int) -> Tagger:
    """Load an encoder and put a new classifier on it.

    Args:
        name: ``"embedded"``, a folder written by ``save_pretrained``, or a name on the hub.
        scheme: what it is to annotate.
        seed: the study's; of the classifier.

    Raises:
        BackboneError: it cannot be loaded, lacks weights, or its tokenizer gives no offsets.
    """
    path, tokenizer_path = _resolve(name)
    with raised_as_backbone_error(name, "tokenizer"):
        tokenizer = _load_tokenizer(tokenizer_path)
    if not tokenizer.is_fast:
        raise BackboneError(
            f"encoder {name!r}: its tokenizer ({type(tokenizer).__name__}) gives no character "
            "offsets; take an encoder with a fast tokenizer (tokenizer.json)"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    model = _load_model(name, path, scheme, seed=derive_seed(seed, "classifier"))
    backbone = weights_fingerprint(path, model.config)
    markers = _add_markers(model)
    _freeze_embeddings(model)
    if torch.cuda.is_available():
        model.to("cuda")
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad}
    manifest = Manifest(
        backbone=backbone,
        tokenizer=tokenizer_fingerprint(tokenizer),
        scheme=scheme.fingerprint,
        rank=1,
        alpha=1.0,
        dropout=0.0,
        targets=WHOLE_MODEL,
        tensors=tuple(sorted(shapes.items())),
    )
    return Tagger(
        name,
        path,
        model,
        tokenizer,
        scheme,
        markers,
        _longest(model, tokenizer),
        manifest,
        _state(model, manifest),
    )


def state_of(tagger: Tagger) -> Adapter:
    """Copy out what travels: every weight but the embeddings', as float32 arrays.

    Raises:
        AdapterError: a value is not finite.
    """
    return _state(tagger.model, tagger.manifest)


def load_state(tagger: Tagger, state: Adapter) -> None:
    """Write a state into the tagger, in place, after checking it.

    Raises:
        AdapterError: the tensors break their manifest, or are not this tagger's.
    """
    check_adapter(state.tensors, state.manifest)
    if state.manifest.tensors != tagger.manifest.tensors:
        raise AdapterError(
            f"encoder {tagger.name!r} has other tensors or shapes than this state: it was made "
            "with another encoder or annotation scheme"
        )
    with torch.no_grad():
        for name, parameter in tagger.model.named_parameters():
            if name in state.tensors:
                parameter.copy_(torch.from_numpy(state.tensors[name]))


def _resolve(name: str) -> tuple[str, str]:
    """Where transformers finds the encoder and its tokenizer."""
    if name != EMBEDDED:
        path = resolve_name(name)
        return path, path
    if not (embedded_encoder_folder() / "config.json").is_file():
        raise BackboneError(
            f"encoder {name!r}: it is not in this installation ({embedded_encoder_folder()}); "
            "install the package again, or make it with scripts/make_encoder.py"
        )
    return str(embedded_encoder_folder()), str(embedded_folder())


def _load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer, which keeps capitals if its vocabulary has any.

    BioBERT and its children (Bio_ClinicalBERT) are cased but came without a tokenizer's
    configuration, and transformers then makes every text lower case.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    words = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    if getattr(tokenizer, "do_lower_case", False) and any(word != word.lower() for word in words):
        return AutoTokenizer.from_pretrained(path, do_lower_case=False)
    return tokenizer


def _load_model(name: str, path: str, scheme: Scheme, *, seed: int) -> PreTrainedModel:
    from transformers import AutoModelForTokenClassification

    labels = label_names(scheme)
    with (
        raised_as_backbone_error(name, "model"),
        no_loading_bar(),
        _no_loading_report(),
        torch.random.fork_rng(),
    ):
        torch.manual_seed(seed)  # transformers draws what the files lack: the classifier
        model, info = AutoModelForTokenClassification.from_pretrained(
            path,
            dtype=torch.float32,
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
            output_loading_info=True,
        )
    missing = sorted(n for n in info["missing_keys"] if n.startswith(f"{model.base_model_prefix}."))
    if missing:
        raise BackboneError(
            f"encoder {name!r}: its files lack {len(missing)} tensors ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}): copy or download it again"
        )
    return model.eval()


@contextmanager
def _no_loading_report() -> Iterator[None]:
    """Nothing said of a new classifier and of heads that are not used: both are meant."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _add_markers(model: PreTrainedModel) -> tuple[int, int]:
    """Two new rows of the embeddings, like the others in mean and spread; their ids."""
    before = model.get_input_embeddings().weight.detach()
    rows = len(before)
    new = torch.randn(2, before.shape[1], generator=torch.Generator().manual_seed(_MARKER_SEED))
    new = before.mean(0) + before.std(0) * new
    with torch.random.fork_rng():
        model.resize_token_embeddings(rows + 2, mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[rows:] = new
    return rows, rows + 1


def _freeze_embeddings(model: PreTrainedModel) -> None:
    """Freeze embeddings of words, positions and kinds, and their norm, where a model has them."""
    inner = getattr(model.base_model, "embeddings", None)
    frozen = inner if isinstance(inner, torch.nn.Module) else model.get_input_embeddings()
    frozen.requires_grad_(False)


def _longest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens that fit, as far as model and tokenizer say."""
    limit = int(min(tokenizer.model_max_length, 1 << 20))
    inner = getattr(model.base_model, "embeddings", None)
    positions = getattr(inner, "position_embeddings", None)
    if isinstance(positions, torch.nn.Embedding):
        # RoBERTa counts positions from behind the padding's.
        reserved = 0 if positions.padding_idx is None else positions.padding_idx + 1
        return min(limit, positions.num_embeddings - reserved)
    return min(limit, int(getattr(model.config, "max_position_embeddings", limit) or limit))


def _state(model: PreTrainedModel, manifest: Manifest) -> Adapter:
    wanted = {name for name, _ in manifest.tensors}
    found = {
        name: parameter.detach().float().cpu().numpy().copy()
        for name, parameter in model.named_parameters()
        if name in wanted
    }
    check_adapter(found, manifest)
    return Adapter(manifest, {name: found[name] for name, _ in manifest.tensors})
