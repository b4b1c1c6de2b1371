"""The command `verify`; see ``cli``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmedlora.errors import RunError

if TYPE_CHECKING:
    from fedmedlora.federation.delivered import Delivered


def verify(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run folder, or the folder of one federation.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
) -> None:
    """Make every round again from the kept replies and say whether it is the same, and whether the
    adapter that the run delivers is the last one's.

    Needs a run with federation.keep_replies. Exit code 1 if anything differs."""
    import json
    from dataclasses import asdict

    from fedmedlora.evaluation.tables import Table, render_text
    from fedmedlora.progress import quiet_libraries

    quiet_libraries()
    from fedmedlora.federation.delivered import verify_delivered
    from fedmedlora.federation.verify import federations_in, verify_federation

    folders = federations_in(run)
    if not folders:
        raise RunError(f"{run} holds no federation: give a run folder, or one in its federation/")
    found = {str(folder): verify_federation(folder) for folder in folders}
    delivered = {str(folder): verify_delivered(folder) for folder in folders}
    same = all(verdict.same for verdicts in found.values() for verdict in verdicts)
    same = same and not any(one.faults for one in delivered.values())
    if as_json:
        told = {
            name: [{**asdict(verdict), "same": verdict.same} for verdict in verdicts]
            for name, verdicts in found.items()
        }
        adapters = {name: asdict(one) for name, one in delivered.items()}
        content = {"same": same, "federations": told, "delivered": adapters}
        typer.echo(json.dumps(content, indent=1))
    else:
        for name, verdicts in found.items():
            rows = tuple(
                (
                    str(one.round),
                    "same" if one.same else "NOT THE SAME",
                    one.recorded[:16],
                    one.made[:16],
                    f"{one.signed} of {len(one.sites)}",
                    ", ".join(one.sites),
                )
                for one in verdicts
            )
            headers = ("round", "", "checkpoint", "made again", "signed", "sites")
            typer.echo(render_text(Table(name, headers, rows, left=len(headers))))
            for one in verdicts:
                typer.echo(
                    "".join(f"round {one.round}: {fault}\n" for fault in one.faults), nl=False
                )
            typer.echo(_delivered_line(delivered[name]))
        typer.echo("same" if same else "NOT THE SAME")
    if not same:
        raise typer.Exit(1)


def _delivered_line(one: Delivered) -> str:
    if not one.place:
        return "delivered adapter: none beside it\n"
    faults = "; ".join(one.faults) or "the last round's"
    return f"delivered adapter {one.place}: {faults}\n"
