"""The command `leakage`; see ``cli``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def leakage(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)],
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="ROW", help="A row with an adapter. Repeatable. Default: all."),
    ] = None,
) -> None:
    """Measure what a finished run's adapters tell of its training notes, into leakage.json.

    Membership of notes, exposure of planted secrets, rare words in one site's update."""
    from fedmedlora.evaluation.tables import render_text
    from fedmedlora.progress import quiet_libraries, show_progress

    quiet_libraries()
    from fedmedlora.leakage.meter import measure_leakage
    from fedmedlora.leakage.tables import leakage_tables

    with show_progress() as on_event:
        found = measure_leakage(run, methods=method, on_event=on_event)
    typer.echo("\n\n".join(render_text(table) for table in leakage_tables(found)))
    for sentence in found.missing:
        typer.echo(f"not measured: {sentence}", err=True)
    typer.echo(f"\nwritten: {run / 'leakage.json'}")
