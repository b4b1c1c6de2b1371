"""From a run folder to the page's text: what is in it, what is left out, and what is refused."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from report_notes import BREAKOUT, FED, HOSTILE, north_notes
from report_toys import full_run, plain_run, write_json

from fedmedlora.cli import run_command
from fedmedlora.errors import RunError
from fedmedlora.report.browser import embed_json, make_browser
from fedmedlora.report.methods import derive_method
from fedmedlora.report.page import FRAME, SIZE_LIMIT, render_report, write_report
from fedmedlora.report.run import read_run


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return full_run(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plain_run(tmp_path_factory.mktemp("plain"))


class Page(HTMLParser):
    """Section ids, navigation, tags, and the text that a reader may see."""

    def __init__(self, text):
        super().__init__()
        self.sections, self.links, self.tags, self.words = [], [], [], []
        self.data = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self._inside = attributes.get("type") or tag
        if tag == "section":
            self.sections.append(attributes["id"])
        if (tag == "a" and attributes["href"] != "#summary") or attributes.get("class") == "skip":
            self.links.append(attributes["href"])

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "application/json":
            self.data += data
        elif self._inside not in ("script", "style"):
            self.words.append(data)


def page_of(run):
    return Page(render_report(read_run(run)))


@pytest.mark.parametrize(
    ("label", "kind", "site"),
    [
        ("zero-shot", "untrained", None),
        ("centralised", "centralised", None),
        ("dictionary", "dictionary", None),
        ("dictionary/icu", "dictionary", "icu"),
        ("single-site/icu", "single", "icu"),
        ("fed-medlora+", "federated", None),
        ("single-site", "federated", None),
        ("anything/else", "federated", None),
    ],
)
def test_without_methods_json_labels_say_their_kind(label, kind, site):
    method = derive_method(label)
    assert (method.label, method.kind, method.site) == (label, kind, site)


def test_a_full_run_has_every_section_and_a_link_to_each(full):
    page = page_of(full)
    assert page.sections == [
        "summary", "scores", "joining", "leakage", "types", "new-site", "scaling", "variants",
        "seeds", "rounds", "weights", "traffic", "costs", "coverage", "errors", "making",
    ]  # fmt: skip
    assert {f"#{name}" for name in page.sections} <= set(page.links) | {"#summary"}


def test_sections_without_data_are_left_out(plain):
    assert page_of(plain).sections == ["summary", "scores", "joining", "types", "making"]


def test_each_optional_file_brings_its_section(tmp_path, full):
    brought = {
        "seeds.json": "seeds",
        "variants.json": "scaling",
        "comparisons.json": None,
        "validation_rounds.json": "rounds",
        "data.json": "coverage",
        "rounds.jsonl": "weights",
        "answers": "costs",
        "gold": "errors",
    }
    for name, section in brought.items():
        run = plain_run(tmp_path / name)
        source = full / name
        for file in [source] if source.is_file() else source.rglob("*.json*"):
            target = run / file.relative_to(full)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
        if name == "variants.json":
            for variant in ("sites-1", "other"):
                plain_run(run / "variants" / variant)
        assert section is None or section in page_of(run).sections, name


def test_names_are_escaped_everywhere(full):
    page = page_of(full)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert [tag for tag, _ in page.tags].count("script") == 2
    words = "".join(page.words)
    assert HOSTILE in words
    assert "toy <b>study</b>" in words
    assert json.loads(page.data)["methods"].count(HOSTILE) == 1


def test_json_in_the_page_ends_no_script_and_stays_what_it_was():
    content = {"a": f"{BREAKOUT} <!-- & \u2028 é"}
    text = embed_json(content)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == content


def test_names_that_no_text_file_can_hold_are_replaced(tmp_path):
    run = plain_run(tmp_path)
    write_json(run, "data.json", {"sites": {"nor\ud800th\0": {"train": 3}}})
    assert "nor?th\ufffd" in render_report(read_run(run))
    assert write_report(run, run / "report.html") > 0


@pytest.mark.parametrize("label", ["../../../outside", "a\0b", "a\ud800b"])
def test_a_label_that_leads_out_of_the_folder_is_refused(tmp_path, label):
    run = plain_run(tmp_path)
    records = json.loads((run / "scores.json").read_text())
    write_json(run, "scores.json", [{**record, "method": label} for record in records])
    with pytest.raises(RunError, match="not inside the run folder"):
        read_run(run)


def test_nothing_outside_the_file_is_named(full):
    page = page_of(full)
    for tag, attributes in page.tags:
        assert "src" not in attributes, tag
        assert (attributes.get("href") or "#").startswith("#"), tag
    assert "http" not in "".join(a.get("style") or "" for _, a in page.tags)
    style = render_report(read_run(full)).split("<style>")[1].split("</style>")[0]
    assert not re.search(r"url\(|@import", style)


def words_of(documents):
    return {word for d in documents for word in re.findall(r"\w{6,}", d.text.split("<")[0])}


@pytest.mark.parametrize("setting", [None, {}, {"include_text": False}])
def test_text_stays_out_unless_the_study_lets_it_in(full, tmp_path, setting):
    run = shutil.copytree(full, tmp_path / "run")
    content = {"name": "toy"} if setting is None else {"name": "toy", "report": setting}
    (run / "study.yaml").write_text(json.dumps(content))
    text = render_report(read_run(run))
    words = words_of(north_notes())
    assert {"aspirin", "swelling"} <= words
    assert not [word for word in words if word in text]
    data = json.loads(Page(text).data)
    assert {key for cohort in data["cohorts"] for d in cohort["documents"] for key in d} == {
        "id", "counts",
    }  # fmt: skip


def test_text_is_in_if_the_study_lets_it_in(full):
    text = render_report(read_run(full))
    assert [word for word in words_of(north_notes()) if word not in text] == []


def test_counts_without_text_are_those_of_the_errors(tmp_path):
    run = read_run(full_run(tmp_path, include_text=False))
    browser = make_browser(run, room=10**6)
    labels = browser.content["methods"]
    [north, *_] = browser.content["cohorts"]
    n1 = north["documents"][0]
    ours = [count for count in n1["counts"] if labels[count[0]] == FED]
    # task, kind, number: entities spurious, wrong type, wrong boundary; relations wrong head
    assert [count[1:] for count in ours] == [[0, 1, 1], [0, 2, 1], [0, 3, 1], [2, 4, 1]]


def test_documents_that_do_not_fit_are_left_out_evenly_and_said(full):
    run = read_run(full)
    whole = make_browser(run, room=10**6)
    assert (whole.shown, whole.total) == (5, 5)
    sizes = [
        len(embed_json(cohort["documents"][0]).encode()) + 1 for cohort in whole.content["cohorts"]
    ]
    part = make_browser(run, room=sum(sizes))
    kept = [[d["id"] for d in cohort["documents"]] for cohort in part.content["cohorts"]]
    assert kept == [["n1"], ["s1"], ["a1"]]
    assert (part.shown, part.total) == (3, 5)
    assert make_browser(run, room=sum(sizes) - 1).shown == 2


def test_the_file_stays_below_its_limit_and_says_what_is_missing(full, tmp_path):
    whole = render_report(read_run(full))
    assert len(whole.encode()) < SIZE_LIMIT
    assert "notes are here" not in whole
    without = shutil.copytree(full, tmp_path / "without")
    shutil.rmtree(without / "gold")
    bare = len(render_report(read_run(without)).encode())
    documents = [
        len(embed_json(document).encode()) + 1
        for cohort in json.loads(Page(whole).data)["cohorts"]
        for document in cohort["documents"]
    ]
    limit = bare + FRAME + sum(documents) - 1
    out = tmp_path / "small.html"
    assert write_report(full, out, limit=limit) <= limit
    assert "4 of 5 notes are here" in out.read_text()


def test_a_run_too_large_for_one_page_is_refused(full, tmp_path):
    with pytest.raises(RunError, match="more than 9,999"):
        write_report(full, tmp_path / "report.html", limit=9_999)
    assert not (tmp_path / "report.html").exists()


def test_one_run_gives_one_page(full):
    assert render_report(read_run(full)) == render_report(read_run(full))


def test_the_fingerprint_is_of_what_was_run_and_what_came_out(tmp_path):
    run = plain_run(tmp_path)
    before = read_run(run).fingerprint
    assert before in render_report(read_run(run))
    write_report(run, run / "report.html")
    assert read_run(run).fingerprint == before
    (run / "study.yaml").write_text("name: other\n")
    assert read_run(run).fingerprint != before


def test_losses_that_are_not_finite_are_left_out(full, tmp_path):
    run = shutil.copytree(full, tmp_path / "run")
    file = run / "rounds.jsonl"
    file.write_text(file.read_text().replace('"loss_last": 0.25', '"loss_last": NaN'))
    records = read_run(run).rounds
    assert [r.sites["north"].loss_last for r in records[:3]] == [0.5, None, pytest.approx(0.5 / 3)]
    render_report(read_run(run))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("scores.json", '[{"method": "a"', "scores.json is not whole JSON"),
        ("scores.json", "[]", "scores.json has no scores"),
        ("scores.json", '[{"method": 3}]', "scores.json is not what a run writes there"),
        ("methods.json", "{}", "methods.json is not what a run writes there"),
        ("methods.json", '[{"label": "a", "kind": "new kind"}]', "methods.json is not what"),
        ("data.json", '{"sites": 3}', "data.json is not what"),
        ("comparisons.json", "[1, 2", "comparisons.json is not whole JSON"),
        ("validation_rounds.json", '[{"method": "a"}]', "validation_rounds.json is not what"),
        ("seeds.json", '[{"method": "a"}]', "seeds.json is not what"),
        ("variants.json", '[{"name": "a"}]', "variants.json is not what"),
        ("variants.json",
         '[{"name": "a", "kind": "variant", "folder": "../.."}]', "not inside the run folder"),
        ("rounds.jsonl", '{"round": 1', "rounds.jsonl:1 is not whole JSON"),
        ("versions.json", "[1]", "versions.json is not what"),
        (f"answers/{FED}/done.json", '{"rounds": 3}', "done.json is not what"),
        ("gold/north.jsonl", '{"id": "n1", "te', "gold/north.jsonl:1: not JSON"),
        ("gold/north.jsonl", '{"id": "n1", "text": "x", "entities": [], "relations": []}',
         "document 'n1' is not gold's"),
        (f"predictions/{FED}/entities/north.jsonl", "{", "entities/north.jsonl:1: not JSON"),
        ("study.yaml", "a: [", "study.yaml is not YAML any more"),
        ("study.yaml", "- a", "study.yaml is no study"),
        ("study.yaml", "report: {include_text: maybe}", "include_text must be true or false"),
        ("study.yaml", "scheme: {mains: 3}", "scheme is not what"),
        ("study.yaml", "\xff", "study.yaml is not UTF-8"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_what_to_do(full, tmp_path, name, content, told):
    run = shutil.copytree(full, tmp_path / "run")
    file = run / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(RunError) as caught:
        write_report(run, tmp_path / "report.html")
    assert told in str(caught.value)
    assert "aspirin" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("out", [".", "no/such/report.html", "study.yaml/report.html"])
def test_a_place_for_no_file_is_bad_input_and_told_before_the_work(full, monkeypatch, capsys, out):
    monkeypatch.setattr("fedmedlora.report.page.render_report", None)
    assert run_command(["report", str(full), "--out", str(full / out)]) == 2
    assert "cannot be written: " in capsys.readouterr().err


def test_what_is_no_run_and_what_is_not_finished_is_said(tmp_path):
    with pytest.raises(RunError, match=r"is no run folder: it has no study\.yaml"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "study.yaml").write_text("name: a\n")
    with pytest.raises(RunError, match="is not finished"):
        read_run(tmp_path)


def test_the_command_writes_beside_the_run_or_where_it_is_told(tmp_path, capsys):
    run = plain_run(tmp_path / "run")
    assert run_command(["report", str(run)]) == 0
    assert (run / "report.html").is_file()
    out = tmp_path / "elsewhere.html"
    assert run_command(["report", str(run), "--out", str(out)]) == 0
    assert out.read_text() == (run / "report.html").read_text()
    assert "written: " in capsys.readouterr().out
    assert run_command(["report", str(tmp_path / "nothing")]) == 2
    assert "no run folder" in capsys.readouterr().err
    assert run_command(["report", str(run), "--out", str(tmp_path)]) == 2
