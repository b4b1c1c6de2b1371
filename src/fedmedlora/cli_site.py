"""The commands of a site, `fedmedlora site ...`; see ``cli``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmedlora.failures import INTERRUPTED

site = typer.Typer(
    name="site",
    help="What a hospital runs: checks, its part in a federation, what it sent.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Settings = Annotated[Path, typer.Argument(metavar="SITE.yaml", help="The site's settings.")]


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
    coordinator: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.pub",
            help="Public key that must have signed the requests.",
        ),
    ] = None,
) -> None:
    """Show what was sent and received, when, how large, with hashes."""
    import json
    from dataclasses import replace

    from fedmedlora.evaluation.tables import Table, render_text
    from fedmedlora.federation.audit_account import HEADERS, rows, sentences
    from fedmedlora.federation.audit_check import check_log, compare_ends, faults_of_requests
    from fedmedlora.federation.signing import read_public_key

    checked = check_log(log, public=None if key is None else read_public_key(key))
    if coordinator is not None:
        unsigned = faults_of_requests(checked, read_public_key(coordinator))
        checked = replace(checked, faults=(*checked.faults, *unsigned))
    other = None if against is None else check_log(against)
    apart: tuple[str, ...] = ()
    if other is not None:
        faults = tuple(f"the other end's log: {fault}" for fault in other.faults)
        apart = faults + compare_ends(checked, other)
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


@site.command()
def unpack(
    kit: Annotated[Path, typer.Argument(metavar="KIT.tar.gz", help="With its .sig beside it.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A folder that is not there yet.")],
    key: Annotated[
        str, typer.Option(metavar="HEX", help="The coordinator's public key, as told by it.")
    ],
) -> None:
    """Check that a kit is the coordinator's and unchanged, lay it out, and make the site's keys."""
    from fedmedlora.federation.deployment.kit import unpack_kit
    from fedmedlora.federation.deployment.layout import membership_file

    made = unpack_kit(kit, out, public=key.strip().lower())
    typer.echo(f"the kit of site {made.site}: {out}")
    typer.echo(f"send this back to the coordinator: {membership_file(out, made.site)}")
    typer.echo(f"fingerprint, to be told by telephone: {made.fingerprint}")
    typer.echo(f"then fill in notes in {out / 'site.yaml'}")


@site.command()
def check(settings: Settings) -> None:
    """Say what of this site is ready, and what to do about what is not; exit code 1 if any."""
    from fedmedlora.evaluation.tables import render_text
    from fedmedlora.progress import quiet_libraries

    quiet_libraries()
    from fedmedlora.study.checking import check_site, check_table

    checks = check_site(settings)
    typer.echo(render_text(check_table(checks)))
    wrong = sum(one.state == "wrong" for one in checks)
    if wrong:
        typer.echo(f"\n{wrong} of {len(checks)} wrong", err=True)
        raise typer.Exit(1)


@site.command()
def start(settings: Settings) -> None:
    """Take part in the federation until this command is ended."""
    from fedmedlora.study.federating import start_site

    try:
        start_site(settings, note=lambda line: typer.echo(line, err=True))
    except KeyboardInterrupt:
        typer.echo("ended", err=True)
        raise typer.Exit(INTERRUPTED) from None
