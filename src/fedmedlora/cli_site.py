"""The commands of a site, `fedmedlora site ...`; see ``cli``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

site = typer.Typer(
    name="site",
    help="What a hospital runs: checks, its part in a federation, what it sent.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@site.command()
def audit(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="Audit log (.jsonl) of either end.")],
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 1 if anything is wrong with the log.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Entries and faults as JSON.")] = False,
    against: Annotated[
        Path | None,
        typer.Option(metavar="LOG", help="The other end's log of the same run, to compare with."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE.pub", help="Public key that must have signed it.")
    ] = None,
) -> None:
    """Show what was sent and received, when, how large, with hashes."""
    import json

    from fedmedlora.evaluation.tables import Table, render_text
    from fedmedlora.federation.audit_account import HEADERS, rows, sentences
    from fedmedlora.federation.audit_check import check_log, compare_ends
    from fedmedlora.federation.signing import read_public_key

    checked = check_log(log, public=None if key is None else read_public_key(key))
    apart = () if against is None else compare_ends(checked, check_log(against))
    if as_json:
        content = {"entries": checked.entries, "faults": checked.faults, "disagreements": apart}
        typer.echo(json.dumps(content, indent=1))
    else:
        typer.echo(render_text(Table("", HEADERS, tuple(rows(checked)), left=len(HEADERS))))
        typer.echo("\n" + "\n".join(sentences(checked)))
        if against is not None:
            told = [f"- {line}" for line in apart] or ["The two ends' logs agree."]
            typer.echo("\n".join(told))
    if check and (checked.faults or apart):
        raise typer.Exit(1)
