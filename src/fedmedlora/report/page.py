"""A run in, one HTML file out: sections, style sheet, script and the browser's data in it."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from fedmedlora.corpus.files import check_writable, write_text
from fedmedlora.errors import DataError, RunError
from fedmedlora.report.blocks import Section, counted
from fedmedlora.report.browser import Browser, embed_json, make_browser
from fedmedlora.report.costs import cost_section, traffic_section
from fedmedlora.report.joining import joining_section
from fedmedlora.report.leakage import leakage_section
from fedmedlora.report.making import making_section
from fedmedlora.report.privacy import privacy_section
from fedmedlora.report.run import Run, read_run
from fedmedlora.report.scores import score_section, type_section
from fedmedlora.report.sites import coverage_section, new_site_section
from fedmedlora.report.summary import summary_section
from fedmedlora.report.training import training_section, weight_section
from fedmedlora.report.variants import scaling_section, seed_section, variant_section

#: The page is smaller than this, in bytes.
SIZE_LIMIT = 5_000_000
#: Bytes kept for what stands around the browser's documents: controls and lists of names.
FRAME = 40_000
_SCRIPTS = ("views.js", "text.js", "browser.js")


def write_report(path: Path, out: Path, *, limit: int = SIZE_LIMIT) -> int:
    """Make the report of a run folder; returns its size in bytes.

    Args:
        path: the run folder.
        out: the HTML file, written whole or not at all.
        limit: bytes that the file may take.

    Raises:
        DataError: ``out`` is no place for a file; told before the work.
        RunError: the folder is no finished run, a file of it is broken, or the report cannot be
            written or would be too large even without any note.
    """
    run = read_run(path)
    check_writable(out)
    page = render_report(run, limit=limit)
    try:
        write_text(out, page)
    except DataError as error:
        raise RunError(str(error)) from error
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror}") from error
    return len(page.encode())


def render_report(run: Run, *, limit: int = SIZE_LIMIT) -> str:
    """The whole page; as ``write_report``."""
    sections = [section for section in _sections(run) if section is not None]
    bare = len(_render(run, sections, None).encode())
    browser = make_browser(run, room=limit - bare - FRAME)
    page = _render(run, sections, browser)
    size = len(page.encode())
    if size > limit:
        raise RunError(
            f"the report of {run.path} would take {size:,} bytes, more than {limit:,}: the run has "
            f"{counted(len(run.methods), 'method')} and {counted(len(run.variants), 'variant')}, "
            "too many for one page"
        )
    return page


def _sections(run: Run) -> list[Section | None]:
    return [
        summary_section(run),
        score_section(run),
        joining_section(run),
        privacy_section(run),
        leakage_section(run),
        type_section(run),
        new_site_section(run),
        scaling_section(run),
        variant_section(run),
        seed_section(run),
        training_section(run),
        weight_section(run),
        traffic_section(run),
        cost_section(run),
        coverage_section(run),
        making_section(run),
    ]


def _render(run: Run, sections: list[Section], browser: Browser | None) -> str:
    environment = Environment(
        loader=PackageLoader("fedmedlora.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["soft"] = _soft
    script = "\n".join(_static(name) for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    context: dict[str, Any] = {
        "run": run,
        "sections": sections,
        "browser": browser,
        "data": Markup(embed_json(browser.content)) if browser else Markup(""),
        "style": Markup(_static("style.css")),
        "script": Markup(script),
        "script_digest": digest,
    }
    page = environment.get_template("page.html").render(context)
    # Names from JSON files may hold what no text file can.
    return page.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _soft(text: str) -> Markup:
    """Text that may break after the marks that names are made of."""
    shown = escape(text)
    for mark in "/_":
        shown = shown.replace(mark, Markup(f"{mark}<wbr>"))
    return shown


def _static(name: str) -> str:
    return (files("fedmedlora.report") / "static" / name).read_text(encoding="utf-8")
