"""The commands: parse, call one function, print.

Only what parsing needs is imported here, so that ``--help`` answers at once; each command imports
its own. Results go to stdout, everything else (progress, remarks, errors) to stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import click
import typer
import typer.core

from fedmedlora import __version__
from fedmedlora.cli_extract import extract
from fedmedlora.cli_federation import federation
from fedmedlora.cli_leakage import leakage
from fedmedlora.cli_options import names_of, one_of
from fedmedlora.cli_release import release
from fedmedlora.cli_site import site
from fedmedlora.cli_verify import verify
from fedmedlora.errors import ConfigError
from fedmedlora.failures import INTERRUPTED, describe_failure, wants_traceback
from fedmedlora.streams import end_in_order, prepare_streams, silence_stdout

if TYPE_CHECKING:
    from fedmedlora.evaluation.tables import Table

# Where rich is installed, typer 0.20 escapes "[required]" for rich's markup, and plain help would
# show the backslash.
typer.core.HAS_RICH = False

app = typer.Typer(
    name="fedmedlora",
    help="Federated LoRA fine-tuning for clinical information extraction: adapters travel, "
    "notes stay.",
    add_completion=False,
    # Plain help: the formatted one alone would take half of the time that --help may take.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)]
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the study, such as federation.rounds=5. Repeatable.",
    ),
]


def main() -> None:
    """The program: runs the command line and ends with its exit code."""
    prepare_streams()
    end_in_order()
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command; returns 0, or 1 for a failed run, 2 for bad input, 130 for Ctrl-C.

    An error is one line on stderr. ``FEDMEDLORA_DEBUG=1`` lets it through with its traceback.
    """
    try:
        # A list: typer takes the arguments of the process if it gets none.
        code = app(
            args=list(arguments) or ["--help"], prog_name="fedmedlora", standalone_mode=False
        )
        sys.stdout.flush()
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        more = f" (see {context.command_path} --help)" if context else ""
        return _fail(f"{error.format_message()}{more}", code=error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        typer.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough of it.
        silence_stdout()
        return 1
    except Exception as error:
        if wants_traceback():
            raise
        message, number = describe_failure(error)
        if isinstance(error, OSError):
            silence_stdout()  # it may be the one that cannot be written
        return _fail(message, code=number)
    return code if isinstance(code, int) else 0


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="File or folder to read.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File or new folder to write.")],
    from_format: Annotated[
        str,
        typer.Option(
            "--from",
            help="jsonl, brat, iob, paper-json, i2b2-2010 or i2b2-2012.",
            show_default=False,
        ),
    ],
    to_format: Annotated[str, typer.Option("--to", help="jsonl or brat.")] = "jsonl",
    mapping: Annotated[
        str | None,
        typer.Option(
            help="A shipped mapping (maccrobat, i2b2-2010, i2b2-2012, n2c2-2018) or a YAML file. "
            "Without: types are kept."
        ),
    ] = None,
    discontinuous: Annotated[
        str | None,
        typer.Option(help="Spans in pieces: skip, cover, first or last. Default: the mapping's."),
    ] = None,
) -> None:
    """Convert annotated text and account for all of it."""
    from fedmedlora.corpus.account import as_rows, render_text
    from fedmedlora.corpus.convert import convert as convert_files
    from fedmedlora.corpus.mapping import Discontinuous

    report = convert_files(
        source,
        out,
        from_format=from_format,
        to_format=to_format,
        mapping=mapping,
        discontinuous=None
        if discontinuous is None
        else one_of(discontinuous, get_args(Discontinuous), option="--discontinuous"),
    )
    typer.echo(render_text(as_rows(report)))
    typer.echo(f"\nwritten: {out}")


@app.command()
def inspect(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="File or folder, any format.")],
    mapping: Annotated[
        str | None, typer.Option(help="Read through a mapping, as convert does.")
    ] = None,
) -> None:
    """Count types, coverage and problems of annotated text."""
    from fedmedlora.corpus.account import render_text
    from fedmedlora.corpus.inspect import as_rows, inspect_documents
    from fedmedlora.corpus.mapping import load_mapping
    from fedmedlora.corpus.read import read_documents
    from fedmedlora.schema import DEFAULT_SCHEME

    rules = None if mapping is None else load_mapping(mapping, scheme=DEFAULT_SCHEME)
    documents = read_documents(data, mapping=rules)
    typer.echo(render_text(as_rows(inspect_documents(documents, DEFAULT_SCHEME))))


@app.command()
def score(
    gold: Annotated[Path, typer.Option(help="Annotated documents, any format.")],
    pred: Annotated[Path, typer.Option(help="Predicted documents, any format.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print records as in scores.json.")] = (
        False
    ),
    covers: Annotated[
        str | None, typer.Option(metavar="TYPE,TYPE", help="Score these types alone.")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="TASK,TASK", help="entities, modifiers, relations. Default: all three."
        ),
    ] = None,
) -> None:
    """Score predictions: precision, recall, F1, intervals."""
    import json

    from fedmedlora.evaluation.score_files import score_files
    from fedmedlora.evaluation.tally import TASKS

    types = None if covers is None else frozenset(names_of(covers, option="--covers"))
    scores = score_files(
        gold,
        pred,
        covers=types,
        tasks=TASKS
        if tasks is None
        else [one_of(name, TASKS, option="--tasks") for name in names_of(tasks, option="--tasks")],
    )
    known = {record.type for record in scores.records}
    _refuse_unknown_types(types or frozenset(), known)
    if as_json:
        typer.echo(json.dumps(scores.as_dicts(), indent=1))
    else:
        _print_tables([scores.table()])
    for remark in scores.remarks():
        typer.echo(remark, err=True)


@app.command()
def estimate(study: StudyFile, settings: Settings = None) -> None:
    """Say what a study needs of a site: the adapter's size, traffic, peak memory, noise.

    Reads no note and no weights."""
    from fedmedlora.config import load_study
    from fedmedlora.progress import quiet_libraries

    plan = load_study(study, settings or ())
    quiet_libraries()
    from fedmedlora.study.estimating import estimate_tables

    _print_tables(estimate_tables(plan))


@app.command()
def run(
    study: StudyFile,
    out: Annotated[
        Path, typer.Option(metavar="RUN", help="Run folder; one that exists is resumed.")
    ],
    settings: Settings = None,
    engine: Annotated[
        str | None,
        typer.Option(help="in-process (default), or flower: Flower's simulation, same results."),
    ] = None,
) -> None:
    """Run a study into a run folder and print its tables.

    The same command on the same folder goes on with a run that was interrupted."""
    from fedmedlora.config import load_study

    chosen = [] if engine is None else [f"federation.engine={engine}"]
    plan = load_study(study, [*(settings or ()), *chosen])
    try:
        from fedmedlora.progress import quiet_libraries, show_progress

        quiet_libraries()
        from fedmedlora.study.run import run_study
        from fedmedlora.study.tables import study_tables

        with show_progress() as on_event:
            run_study(plan, out, on_event=on_event)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {out} can be resumed by the same command", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _print_tables(study_tables(out))
    typer.echo(f"\nrun folder: {out}")


@app.command()
def table(out: Run) -> None:
    """Print the tables of a finished run again."""
    from fedmedlora.study.tables import study_tables

    _print_tables(study_tables(out))


@app.command()
def rescore(
    out: Run,
    method: Annotated[
        str | None,
        typer.Option(metavar="ROW", help="This row of the tables alone, such as fed-medlora+."),
    ] = None,
) -> None:
    """Score a run and its further runs again from the saved answers, without a model.

    Comparisons between methods and the mean over seeds follow."""
    from fedmedlora.study.rescoring import rescore as rescore_run
    from fedmedlora.study.tables import study_tables

    unfinished = rescore_run(out, method=method)
    _print_tables(study_tables(out))
    if unfinished:
        typer.echo(f"not finished, and not scored: {', '.join(unfinished)}", err=True)


app.command()(extract)
app.command()(verify)
app.command()(leakage)
app.command()(release)
app.add_typer(federation)
app.add_typer(site)


@app.command()
def synthetic(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New or empty folder.")],
    seed: Annotated[int, typer.Option(help="Equal seeds give equal notes.")] = 7,
    train: Annotated[int, typer.Option(min=0, help="Training notes a site.")] = 100,
    validation: Annotated[int, typer.Option(min=0, help="Validation notes a site.")] = 20,
    test: Annotated[int, typer.Option(min=0, help="Test notes a site.")] = 60,
) -> None:
    """Write the synthetic sites' notes as JSONL.

    One folder for each site, with train.jsonl, validation.jsonl and test.jsonl."""
    from fedmedlora.corpus.site_files import write_sites
    from fedmedlora.corpus.synthetic import make_sites

    for folder in write_sites(make_sites(seed, train=train, validation=validation, test=test), out):
        typer.echo(f"written: {folder}")


@app.command()
def report(
    run: Run,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="HTML file. Default: report.html in RUN.")
    ] = None,
) -> None:
    """Write a finished run as one HTML file that needs neither network nor server."""
    from fedmedlora.report.page import write_report

    file = run / "report.html" if out is None else out
    size = write_report(run, file)
    typer.echo(f"written: {file} ({size / 1e6:.1f} MB)")


def _fail(message: str, *, code: int) -> int:
    typer.echo(f"error: {message}", err=True)
    return code


def _refuse_unknown_types(asked: Iterable[str], scored: Iterable[str]) -> None:
    from fedmedlora.schema import DEFAULT_SCHEME

    unknown = sorted(set(asked) - set(DEFAULT_SCHEME.types) - set(scored))
    if unknown:
        raise ConfigError(
            f"--covers names types that neither the scheme nor the files have: {', '.join(unknown)}"
        )


def _print_tables(tables: Iterable[Table]) -> None:
    from fedmedlora.evaluation.tables import render_text

    typer.echo("\n\n".join(render_text(table) for table in tables))
