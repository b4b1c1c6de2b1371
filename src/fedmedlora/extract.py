"""New notes and a saved adapter in; documents with predicted entities, modifiers and relations out.

An adapter's folder has, beside the adapter, ``task.json``: the backbone and everything that shapes
a prompt. A model must be asked as it was trained, so nothing of it can be chosen here.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from fedmedlora.corpus.files import read_text, storable
from fedmedlora.corpus.jsonl import read_jsonl
from fedmedlora.errors import AdapterError, ConfigError, DataError, SchemaError
from fedmedlora.model.backbone import Precision
from fedmedlora.progress import OnEvent
from fedmedlora.schema import Document, Scheme
from fedmedlora.tasks.build import build_examples
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.reading import predict_documents
from fedmedlora.tasks.settings import TASKS, TaskSettings

if TYPE_CHECKING:
    from fedmedlora.model.decoding import DecodingSettings

#: (task, its examples, told how many are done) -> their raw answers
Answer = Callable[[str, Sequence[Example], Callable[[int], None]], Sequence[str]]
TASK_FILE = "task.json"
_PRECISIONS = get_args(Precision)


@dataclass(frozen=True, slots=True)
class AdapterTask:
    """What an adapter was trained to do: the content of ``task.json``.

    Attributes:
        backbone: ``"embedded"``, a folder, or a name on the hub.
        precision: how the backbone's weights were held.
        scheme: types, definitions, pairs.
        settings: tasks, windows and prompts.
        covers: the types that it was trained to mark.
        decoding: task -> how its answers are decoded.
    """

    backbone: str
    precision: Precision
    scheme: Scheme
    settings: TaskSettings
    covers: frozenset[str]
    decoding: Mapping[str, DecodingSettings]


def extract(
    adapter_folder: Path,
    notes: Sequence[Path],
    *,
    tasks: Sequence[str] | None = None,
    backbone: str | None = None,
    answer: Answer | None = None,
    on_event: OnEvent | None = None,
) -> list[Document]:
    """Mark up notes with a trained adapter: entities, then the modifiers of those found.

    Args:
        adapter_folder: the adapter with its ``task.json``.
        notes: text files and neutral JSONL, see ``read_notes``.
        tasks: some of those that the adapter was trained on; ``None``: all of them. Modifiers
            need entities.
        backbone: where the backbone is on this machine; it must be the one that the adapter was
            trained on. ``None``: where ``task.json`` says.
        answer: who answers, where it is not a model in this process (no backbone is loaded then).
        on_event: told ("decoding", {method: "extract", cohort: the task, done, total}), and after
            each task ("read", {task, and the fields of ``ReadCounts``}).

    Returns:
        One document for each note, in order; ``covers`` says which types were looked for.

    Raises:
        AdapterError: the folder is no adapter of ours, or it was made for another backbone.
        BackboneError: the backbone cannot be loaded.
        DataError: a note cannot be read.
        ConfigError: ``tasks`` cannot be done.
    """
    task = read_task(adapter_folder)
    wanted = _choose_tasks(task, tasks)
    documents = read_notes(notes)
    if answer is None:
        answer = _enforced(adapter_folder, task, backbone=backbone or task.backbone)
    for name in wanted:
        settings = replace(task.settings, tasks=(name,))
        examples, _ = build_examples(
            documents, covers=task.covers, scheme=task.scheme, settings=settings
        )
        total = len(examples)

        def tell(done: int, name: str = name, total: int = total) -> None:
            if on_event is not None:
                facts = {"method": "extract", "cohort": name, "done": done, "total": total}
                on_event("decoding", facts)

        answers = answer(name, examples, tell)
        reading = predict_documents(
            documents, zip(examples, answers, strict=True), scheme=task.scheme, tasks=(name,)
        )
        documents = list(reading[name].documents)
        if on_event is not None:
            on_event("read", {"task": name, **asdict(reading[name].counts)})
    looked_for = _looked_for(task, wanted)
    return [replace(document, covers=looked_for) for document in documents]


def _enforced(folder: Path, task: AdapterTask, *, backbone: str) -> Answer:
    model, tokenizer = _load(folder, task, backbone=backbone)
    from fedmedlora.model.decoding import EnforcedDecoder

    def answer(
        name: str, examples: Sequence[Example], on_done: Callable[[int], None]
    ) -> Sequence[str]:
        return EnforcedDecoder(model, tokenizer, task.decoding[name]).decode(
            examples, on_done=on_done
        )

    return answer


def answers_by_vllm(lora: str, *, allow_egress: bool) -> Answer:
    """Answers of a vLLM server that holds the adapter; see ``model.vllm_server``."""
    from fedmedlora.model.vllm_server import answer_by_vllm

    def answer(
        name: str, examples: Sequence[Example], on_done: Callable[[int], None]
    ) -> Sequence[str]:
        return answer_by_vllm(examples, lora=lora, allow_egress=allow_egress, on_done=on_done)

    return answer


def read_notes(paths: Sequence[Path]) -> list[Document]:
    """Notes as documents without annotation; line ends and tabs stay as they are.

    A .jsonl file holds documents in the neutral format; their annotations are left behind. Any
    other file is one note in UTF-8: its id is the file's name without the ending; where two names
    are equal, those have their paths as given instead.

    Raises:
        DataError: a file is missing, a folder, not UTF-8, holds a NUL, has no text, or is not
            neutral JSONL; or two notes have one id.
    """
    names = Counter(path.stem for path in paths)
    documents: dict[str, Document] = {}
    for path in paths:
        if path.is_dir():
            raise DataError("is a folder; name its files", path=path)
        name = path.stem if names[path.stem] == 1 else str(path)
        for note in _notes_of(path, name):
            if note.id in documents:
                raise DataError(
                    f"two notes have the id {note.id!r}; name each file once, and give documents "
                    "of JSONL ids of their own",
                    path=path,
                )
            documents[note.id] = note
    return list(documents.values())


def _notes_of(path: Path, name: str) -> list[Document]:
    """The notes of one file; ``name`` is the id of a file that is one note."""
    if path.suffix.lower() == ".jsonl":
        return [Document(one.id, one.text, group=one.group) for one in read_jsonl(path)]
    if not storable(name):
        raise DataError("its name is not UTF-8 and can be no document's id", path=path)
    text = read_text(path)
    if not text.strip():
        raise DataError("the note is empty: there is no text in it", path=path)
    return [Document(name, text)]


def read_task(adapter_folder: Path) -> AdapterTask:
    """Read the ``task.json`` of an adapter's folder.

    Raises:
        AdapterError: it is missing, not JSON, or lacks something; the message names the key.
    """
    path = adapter_folder / TASK_FILE
    if not adapter_folder.is_dir():
        raise AdapterError(f"{adapter_folder}: there is no such folder; an adapter is a folder")
    if not path.is_file():
        raise AdapterError(
            f"{adapter_folder}: no {TASK_FILE} in it, so this is no adapter that a run saved; "
            "those are in RUN/adapters"
        )
    try:
        task = _task(json.loads(read_text(path)))
    except KeyError as error:
        raise AdapterError(f"{path}: the key {error} is missing") from error
    except RecursionError:
        raise AdapterError(f"{path}: nested too deep to be what a run writes there") from None
    except (ValueError, TypeError, AttributeError, ConfigError, DataError, SchemaError) as error:
        raise AdapterError(f"{path}: not what a run writes there: {error}") from error
    unknown = sorted(task.covers.difference(task.scheme.types))
    if unknown:
        raise AdapterError(f"{path}: 'covers' has types outside the scheme: {', '.join(unknown)}")
    if task.precision not in _PRECISIONS:
        raise AdapterError(
            f"{path}: 'precision' is {task.precision!r}, not one of {', '.join(_PRECISIONS)}"
        )
    return task


def _task(content: Mapping[str, Any]) -> AdapterTask:
    from fedmedlora.model.decoding import DecodingSettings

    scheme, asked, decoding = content["scheme"], dict(content["task"]), dict(content["decoding"])
    backbone, covers = content["backbone"], content["covers"]
    if not isinstance(backbone, str) or not backbone:
        raise TypeError("'backbone' must be a name or a folder")
    if not isinstance(covers, list) or not all(isinstance(name, str) for name in covers):
        raise TypeError("'covers' must be a list of types")
    if not isinstance(asked.get("window_words", 1), int):
        raise TypeError("'window_words' must be a whole number")
    settings = TaskSettings(**{**asked, "tasks": tuple(asked["tasks"])})
    bias = decoding.pop("open_bias")
    # One number for all tasks, or one for each: a run chooses them by task.
    biases: Mapping[str, Any] = (
        bias if isinstance(bias, dict) else dict.fromkeys(settings.tasks, bias)
    )
    if not all(math.isfinite(float(value)) for value in biases.values()):
        raise ValueError("'open_bias' must be a finite number")
    return AdapterTask(
        backbone=backbone,
        precision=content["precision"],
        scheme=Scheme(
            dict(scheme["mains"]),
            dict(scheme["modifiers"]),
            {main: tuple(types) for main, types in scheme["pairs"].items()},
        ),
        settings=settings,
        covers=frozenset(covers),
        decoding={
            name: DecodingSettings(**decoding, open_bias=float(biases[name]))
            for name in settings.tasks
        },
    )


def _choose_tasks(task: AdapterTask, asked: Sequence[str] | None) -> list[str]:
    """The tasks to do, entities first."""
    trained = task.settings.tasks
    unknown = [name for name in asked or () if name not in trained]
    if unknown:
        raise ConfigError(
            f"tasks: the adapter was not trained for {', '.join(unknown)}, only for "
            f"{', '.join(trained)}"
        )
    wanted = [name for name in TASKS if name in (trained if asked is None else asked)]
    if "entities" not in wanted:
        raise ConfigError(
            "tasks: modifiers are asked for entities that were found: the adapter must be trained "
            "for both tasks, and both be done"
        )
    return wanted


def _load(folder: Path, task: AdapterTask, *, backbone: str) -> tuple[Any, Any]:
    """The adapted model in evaluation mode, and its tokenizer."""
    from fedmedlora.model.adapter import check_same_lineage
    from fedmedlora.model.adapter_files import read_adapter
    from fedmedlora.model.backbone import load_backbone
    from fedmedlora.model.lora import load_adapter, new_adapter_model

    adapter = read_adapter(folder)
    manifest = adapter.manifest
    if any(manifest.rank not in shape for _, shape in manifest.tensors):
        raise AdapterError(f"{folder}: its tensors are not of rank {manifest.rank}, as it says")
    base = load_backbone(backbone, precision=task.precision)
    here = replace(
        manifest,
        backbone=base.fingerprint,
        tokenizer=base.tokenizer_fingerprint,
        scheme=task.scheme.fingerprint,
    )
    try:
        check_same_lineage(manifest, here)
    except AdapterError as error:
        raise AdapterError(
            f"{folder}: with the backbone {backbone!r} and this {TASK_FILE}, {error}"
        ) from error
    model: Any = new_adapter_model(
        base.model,
        rank=manifest.rank,
        alpha=manifest.alpha,
        dropout=manifest.dropout,
        targets=manifest.targets,
        seed=0,
    )
    load_adapter(model, adapter)
    if base.precision == "fp32":
        # One product a layer instead of three. In bf16 merging would round, in NF4 requantise.
        model = model.merge_and_unload()
    return model.eval(), base.tokenizer


def _looked_for(task: AdapterTask, tasks: Sequence[str]) -> frozenset[str]:
    groups = {"entities": task.scheme.mains, "modifiers": task.scheme.modifiers}
    return task.covers.intersection(*[{t for name in tasks for t in groups[name]}])
