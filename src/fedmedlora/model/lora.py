"""LoRA in a model: an adapter put on a backbone, copied out of it and written into it.

Enters: a backbone, or a PEFT model and an adapter. Leaves: a PEFT model, or the adapter it holds.

torch and peft are imported inside functions: moving adapters between sites needs neither.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedmedlora.errors import AdapterError
from fedmedlora.model.adapter import Adapter, Manifest, check_adapter

_RESIDUAL = "residual"  # PEFT's name of the second pair

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


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
    with torch.random.fork_rng(), warnings.catch_warnings():
        # PEFT asks the model for a property that transformers has renamed; its answer is right.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
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


def load_adapter(model: PeftModel, adapter: Adapter, *, residual: Adapter | None = None) -> None:
    """Write an adapter into a PEFT model's default adapter, in place, after checking it.

    The model's adapter takes on the manifest's rank and alpha if it has others.

    Args:
        model: its default adapter is overwritten and trainable.
        adapter: for the layers that the model's adapter has.
        residual: a second pair for the same layers, frozen and active beside the first; without
            one, what the model had is removed.

    Raises:
        AdapterError: the tensors break their manifest, or the model has other tensors.
    """
    import torch
    from peft import set_peft_model_state_dict

    check_adapter(adapter.tensors, adapter.manifest)
    _set_residual(model, residual)
    _take_rank(model, "default", adapter.manifest)
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
    model.base_model.set_adapter(["default"] if residual is None else ["default", _RESIDUAL])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".default." in name)


def _take_rank(model: PeftModel, name: str, manifest: Manifest) -> None:
    """Make the model's adapter anew if its rank or alpha are not the manifest's."""
    config = model.peft_config["default"]
    if name in model.peft_config:
        own = model.peft_config[name]
        if (own.r, float(own.lora_alpha)) == (manifest.rank, manifest.alpha):
            return
    wanted = copy.deepcopy(config)
    wanted.r, wanted.lora_alpha = manifest.rank, manifest.alpha
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        warnings.filterwarnings("ignore", "Adapter .* was active which is now deleted", UserWarning)
        if name in model.peft_config:
            model.delete_adapter(name)
        model.add_adapter(name, wanted)


def _set_residual(model: PeftModel, residual: Adapter | None) -> None:
    import torch
    from peft import set_peft_model_state_dict

    if residual is None:
        if _RESIDUAL in model.peft_config:
            model.delete_adapter(_RESIDUAL)
        model.set_adapter("default")
        return
    check_adapter(residual.tensors, residual.manifest)
    _take_rank(model, _RESIDUAL, residual.manifest)
    state = {name: torch.from_numpy(tensor.copy()) for name, tensor in residual.tensors.items()}
    set_peft_model_state_dict(model, state, adapter_name=_RESIDUAL)


def _lora_state(model: PeftModel) -> dict[str, Any]:
    """The default adapter's tensors by PEFT name; never the embeddings.

    PEFT's "auto" would ship them after the vocabulary was resized, and asks the hub to find out.
    """
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model, save_embedding_layers=False))
