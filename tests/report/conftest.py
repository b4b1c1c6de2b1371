"""A headless browser for the pages, or a skip that says what is missing."""

import shutil
from pathlib import Path

import pytest
from report_toys import full_run, plain_run

from fedmedlora.report.page import write_report

_NAMES = ("chromium", "chromium-browser", "google-chrome")
#: What a root in a container needs, and nothing that calls out by itself.
_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A browser that is started once; every page has a context of its own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"no browser found: install one of {', '.join(_NAMES)}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(_FLAGS))
        yield browser
        browser.close()


class Opened:
    """A page, what its console and its errors said, and the addresses that it asked for."""

    def __init__(self, browser, file: Path, **settings) -> None:
        # Pages scroll smoothly where motion is wanted; a click would land where nothing is yet.
        settings = {
            "viewport": {"width": 1200, "height": 900},
            "reduced_motion": "reduce",
            **settings,
        }
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())


@pytest.fixture(scope="session")
def reports(tmp_path_factory):
    """Reports of toy runs by name: full, without text, plain."""
    folder = tmp_path_factory.mktemp("reports")
    made = {
        "full": full_run(folder / "full"),
        "textless": full_run(folder / "textless", include_text=False),
        "plain": plain_run(folder / "plain"),
    }
    files = {}
    for name, run in made.items():
        files[name] = run / "report.html"
        write_report(run, files[name])
    return files


@pytest.fixture
def opened(chromium, reports):
    """Opens a report by name, with the settings of a context."""
    contexts = []

    def open_one(name="full", **settings):
        one = Opened(chromium, reports[name], **settings)
        contexts.append(one.context)
        return one

    yield open_one
    for context in contexts:
        context.close()
