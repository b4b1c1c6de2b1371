"""The command `extract`; see ``cli``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedmedlora.cli_options import names_of, one_of
from fedmedlora.errors import ConfigError


def extract(
    notes: Annotated[
        list[Path], typer.Argument(metavar="NOTE...", help="Text files; documents in .jsonl.")
    ],
    adapter: Annotated[Path, typer.Option(metavar="DIR", help="Folder of a trained adapter.")],
    to_format: Annotated[str, typer.Option("--format", help="jsonl or brat.")] = "jsonl",
    out: Annotated[
        Path | None, typer.Option(help="File (jsonl) or new folder (brat). Default: stdout.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where the backbone is here; must be the same model."),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="TASK,TASK", help="entities, modifiers. Default: trained.")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="local, or vllm: a server of that name; see docs/vllm.md.")
    ] = "local",
    lora: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="vllm: the adapter's name there. Default: the folder's."),
    ] = None,
    allow_egress: Annotated[
        bool, typer.Option("--allow-egress", help="vllm: it may be another machine.")
    ] = False,
) -> None:
    """Mark up new notes with a trained adapter."""
    import json

    from fedmedlora.corpus.convert import WRITERS, check_output
    from fedmedlora.corpus.jsonl import as_record
    from fedmedlora.progress import quiet_libraries, show_progress

    one_of(to_format, tuple(WRITERS), option="--format")
    one_of(backend, ("local", "vllm"), option="--backend")
    if backend == "local" and (lora is not None or allow_egress):
        raise ConfigError("--lora and --allow-egress are for --backend vllm")
    if backend == "vllm" and backbone is not None:
        raise ConfigError("--backbone: with --backend vllm the server has it")
    if out is None and to_format != "jsonl":
        raise ConfigError(f"--format {to_format} writes a folder: give it with --out")
    if out is not None:
        check_output(out, notes, to_format=to_format)
    quiet_libraries()
    from fedmedlora.extract import answers_by_vllm
    from fedmedlora.extract import extract as extract_notes

    answer = None
    if backend == "vllm":
        answer = answers_by_vllm(lora or adapter.resolve().name, allow_egress=allow_egress)
    read: list[Any] = []
    with show_progress() as on_event:

        def tell(kind: str, facts: dict[str, Any]) -> None:
            if kind == "read":
                read.append(facts)
            else:
                on_event(kind, facts)

        documents = extract_notes(
            adapter,
            notes,
            tasks=None if tasks is None else names_of(tasks, option="--tasks"),
            backbone=backbone,
            answer=answer,
            on_event=tell,
        )
    if out is None:
        for document in documents:
            # Bytes: the format is UTF-8 whatever the terminal's encoding.
            typer.echo(json.dumps(as_record(document), ensure_ascii=False).encode())
    else:
        WRITERS[to_format](documents, out)
    spans = sum(len(document.entities) for document in documents)
    relations = sum(len(document.relations) for document in documents)
    typer.echo(f"notes: {len(documents)}, spans: {spans}, relations: {relations}", err=True)
    for told in read if backend == "vllm" else ():  # enforced answers lose nothing
        typer.echo(
            f"{told['task']}: {told['accepted']} of {told['spans']} tags stand at words of the "
            f"note; {told['changed']} of {told['answers']} answers changed its text, "
            f"{told['unreadable']} of them past recognition",
            err=True,
        )
