"""The command `release`; see ``cli``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def release(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)],
    policy: Annotated[
        Path, typer.Option(metavar="POLICY.yaml", help="What must hold.", show_default=False)
    ],
    method: Annotated[
        str | None,
        typer.Option(metavar="ROW", help="Default: the one federated row, if there is one."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Default: releases/ROW in RUN.")
    ] = None,
) -> None:
    """Write an adapter with its model card and the evidence, if a policy's conditions all hold.

    If one does not, nothing is written, it is named, and the exit code is 1."""
    from fedmedlora.evaluation.tables import render_text
    from fedmedlora.progress import quiet_libraries

    quiet_libraries()
    from fedmedlora.release.gate import failed
    from fedmedlora.release.gate import release as release_adapter

    verdict = release_adapter(run, policy, method=method, out=out)
    typer.echo(render_text(verdict.table()))
    if verdict.folder is None:
        names = "; ".join(one.name for one in failed(verdict))
        typer.echo(f"\nrefused, nothing was written: {names}")
        raise typer.Exit(1)
    typer.echo(f"\nreleased: {verdict.folder}")
