"""The commands of a coordinator, `fedmedlora federation ...`; see ``cli``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmedlora.failures import INTERRUPTED

federation = typer.Typer(
    name="federation",
    help="What a coordinator runs: a study over the machines of several hospitals.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The coordinator's folder.")]


@federation.command()
def init(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")],
    host: Annotated[str, typer.Option(metavar="NAME", help="By which the sites reach this.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A folder that is not there yet.")],
    method: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Which method, if the study has several.")
    ] = None,
    port: Annotated[int, typer.Option(help="Where the sites connect.")] = 9443,
    superlink_port: Annotated[int, typer.Option(help="Of the SuperLink, on loopback.")] = 9092,
    no_proxy: Annotated[
        bool, typer.Option("--no-proxy", help="No nginx: on networks where all are trusted.")
    ] = False,
) -> None:
    """Make certificates, a kit for every site, and the services' configuration."""
    from fedmedlora.config import load_study
    from fedmedlora.config_deployment import CoordinatorSettings, check_settings
    from fedmedlora.study.founding import files_of_kit, found_federation

    content = {
        "host": host,
        "port": port,
        "superlink_port": superlink_port,
        "proxy": "none" if no_proxy else "nginx",
    }
    settings = check_settings(CoordinatorSettings, content, source="federation init")
    made = found_federation(load_study(study), out, settings=settings, method=method)
    typer.echo(f"written: {made.folder}")
    for site, archive in made.kits.items():
        files = " and ".join(str(file) for file in files_of_kit(archive))
        typer.echo(f"kit of {site}: {files}")
    typer.echo(f"public key, to be told to the sites by telephone: {made.public}")


@federation.command()
def admit(
    folder: Folder,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="SITE.membership.json...", help="What the sites sent back."),
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="In the place of keys that a site had before.")
    ] = False,
) -> None:
    """Take the public keys that sites made; compare each fingerprint with its site by telephone."""
    from fedmedlora.study.admitting import admit_sites

    for site, made in admit_sites(folder, files, replace=replace).items():
        typer.echo(f"admitted: {site}, fingerprint {made.fingerprint}")
    typer.echo("compare every fingerprint with the site's by telephone, before the first start")


@federation.command()
def start(folder: Folder) -> None:
    """Run the federation until it is done; the same command goes on with an interrupted one."""
    from fedmedlora.study.federating import start_federation

    try:
        start_federation(folder, note=_note)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo("done")


@federation.command()
def status(folder: Folder) -> None:
    """Show sites, rounds, losses, weights, who is missing and how long still.

    The exit code is 1 if the run failed or was interrupted."""
    from fedmedlora.evaluation.tables import render_text
    from fedmedlora.study.standing import standing

    found = standing(folder)
    typer.echo("\n".join(found.sentences))
    for table in found.tables:
        typer.echo("\n" + render_text(table))
    if found.state in ("failed", "interrupted"):
        raise typer.Exit(1)


@federation.command()
def stop(folder: Folder) -> None:
    """End what `federation start` runs; it goes on from its last round when started again."""
    from fedmedlora.durable import resolved
    from fedmedlora.federation.deployment.holding import stop_federation
    from fedmedlora.federation.deployment.layout import CoordinatorFolder

    ended = stop_federation(CoordinatorFolder(resolved(folder)))
    typer.echo("stopped" if ended else "nothing runs there")


def _note(line: str) -> None:
    typer.echo(line, err=True)
