"""The command `verify`; see ``cli``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmedlora.errors import NoRunError

if TYPE_CHECKING:
    from fedmedlora.federation.delivered import Delivered
    from fedmedlora.federation.verify import RoundVerdict

_UNSIGNED = "same, UNSIGNED: that these are the sites' replies is the word of who kept them"


def verify(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run folder, or the folder of one federation.")
    ],
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With SITE.membership.json of every site: whose keys must have signed.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
) -> None:
    """Make every round again from the kept replies and say whether it is the same, and whether the
    adapter that the run delivers is the last one's.

    Needs a run with federation.keep_replies. Exit code 1 if anything differs."""
    import json
    from dataclasses import asdict

    from fedmedlora.progress import quiet_libraries

    quiet_libraries()
    from fedmedlora.federation.delivered import verify_delivered
    from fedmedlora.federation.signers import faults_of_signers, memberships_in, signers_of
    from fedmedlora.federation.verify import federations_in, verify_federation

    folders = {str(folder): folder for folder in federations_in(run)}
    if not folders:
        raise NoRunError(f"{run} holds no federation: give a run folder, or one in its federation/")
    members = None if keys is None else memberships_in(keys)
    found = {name: verify_federation(folder) for name, folder in folders.items()}
    delivered = {name: verify_delivered(folder) for name, folder in folders.items()}
    signers = {name: signers_of(folder) for name, folder in folders.items()}
    strangers = {
        name: () if members is None else faults_of_signers(own, members)
        for name, own in signers.items()
    }
    same = (
        all(verdict.same for verdicts in found.values() for verdict in verdicts)
        and not any(one.faults for one in delivered.values())
        and not any(strangers.values())
    )
    if as_json:
        rounds = {
            name: [{**asdict(verdict), "same": verdict.same} for verdict in verdicts]
            for name, verdicts in found.items()
        }
        adapters = {name: asdict(one) for name, one in delivered.items()}
        content = {"same": same, "federations": rounds, "delivered": adapters}
        content |= {"keys": signers, "keys_compared": members is not None, "strangers": strangers}
        typer.echo(json.dumps(content, indent=1))
    else:
        for name, verdicts in found.items():
            typer.echo(_rounds_told(name, verdicts))
            typer.echo(_delivered_told(delivered[name]))
            typer.echo(_keys_told(signers[name], strangers[name]))
        unsigned = not all(all(own.values()) for own in signers.values())
        typer.echo("NOT THE SAME" if not same else _UNSIGNED if unsigned else _signed(keys))
    if not same:
        raise typer.Exit(1)


def _rounds_told(name: str, verdicts: Sequence[RoundVerdict]) -> str:
    from fedmedlora.evaluation.tables import Table, render_text

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
    faults = [f"round {one.round}: {fault}" for one in verdicts for fault in one.faults]
    return "\n".join((render_text(Table(name, headers, rows, left=len(headers))), *faults))


def _delivered_told(one: Delivered) -> str:
    if not one.place:
        return "delivered adapter: none beside it"
    return f"delivered adapter {one.place}: {'; '.join(one.faults) or 'that of the last round'}"


def _keys_told(signers: Mapping[str, str], strangers: Sequence[str]) -> str:
    lines = [f"key of {site}: {key or 'none'}" for site, key in signers.items()]
    return "\n".join((*lines, *strangers, ""))


def _signed(keys: Path | None) -> str:
    if keys is not None:
        return f"same, signed with the sites' own keys, as in {keys}"
    return (
        "same, signed with the keys above: whose they are is the plan's word; compare them with "
        "the sites' own by --keys FOLDER"
    )
