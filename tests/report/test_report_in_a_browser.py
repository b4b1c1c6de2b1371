"""The page in a real browser: filters, keys, narrow and dark screens, and no call to anywhere."""

import pytest
from report_notes import FED, HOSTILE

STATUS = "#b-status"


def texts(page, selector):
    return [one.strip() for one in page.locator(selector).all_inner_texts()]


def kinds(page):
    return texts(page, "#b-list tbody th")


def test_nothing_is_asked_for_and_nothing_complains(opened, reports):
    for name in reports:
        one = opened(name)
        assert one.asked == [reports[name].as_uri()]
        assert one.faults == []


def test_hostile_names_and_notes_stay_text(opened):
    one = opened()
    page = one.page
    page.select_option("#b-first", label=HOSTILE)
    page.click("#b-note-on")
    assert "</script><script>" in page.inner_text("#b-panels")
    assert page.evaluate("window.hit") is None
    assert page.locator("img").count() == 0
    assert one.faults == []


def test_a_script_that_is_not_the_pages_own_does_not_run(opened):
    one = opened()
    one.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'window.hit = 1'}))"
    )
    assert one.page.evaluate("window.hit") is None
    assert one.faults


def test_choices_show_one_table_at_a_time(opened):
    page = opened().page
    shown = "#scores [data-view]:visible caption"
    assert texts(page, shown) == ["Entities: strict F1, micro, on test notes"]
    page.check("#scores input[value=lenient]", force=True)
    page.check("#scores input[value=relations]", force=True)
    page.check("#scores input[value=macro]", force=True)
    assert texts(page, shown) == ["Relations: lenient F1, macro, on test notes"]


def test_intervals_are_shown_by_a_switch_and_for_the_cell_in_focus(opened):
    page = opened().page
    notes = page.locator("#scores td .note:visible")
    assert notes.count() == 0
    page.locator("#scores table.walk:visible [data-walk][tabindex='0']").focus()
    first = notes.all_inner_texts()
    page.keyboard.press("ArrowDown")
    assert notes.count() == len(first) == 1
    assert notes.all_inner_texts() != first
    page.check("#scores [data-intervals]", force=True)
    assert notes.count() > 10


def test_methods_of_the_types_are_picked(opened):
    page = opened().page
    rows = "#types [data-view]:visible tr[data-pick]:visible th"
    assert "zero-shot" not in texts(page, rows)
    page.check("#types input[value=zero-shot]", force=True)
    assert "zero-shot" in texts(page, rows)
    page.uncheck("#types input[value=zero-shot]", force=True)
    assert "zero-shot" not in texts(page, rows)


def test_errors_are_filtered_by_task_kind_and_type(opened):
    page = opened().page
    page.select_option("#b-first", label=FED)
    assert kinds(page) == ["spurious", "wrong type", "wrong boundary"]
    page.uncheck("#b-kinds input[value='1']", force=True)
    assert kinds(page) == ["wrong type", "wrong boundary"]
    page.select_option("#b-type", label="drug")
    assert kinds(page) == ["wrong type"]
    page.select_option("#b-type", label="all types")
    page.select_option("#b-task", label="relations")
    assert kinds(page) == ["wrong head"]
    assert texts(page, "#b-list tbody td") == [
        "strength",
        "“100 mg” of “aspirin”",
        "“100 mg” of “heparin”",
    ]


def test_errors_are_filtered_by_method(opened):
    page = opened().page
    page.select_option("#b-first", label="centralised")
    assert page.inner_text(STATUS) == "Note 1 of 2: n1; 0 here, 0 in all"
    page.select_option("#b-second", label=FED)
    assert len(kinds(page)) == 3
    assert texts(page, "#b-panels h3") == ["Gold", "A: centralised", f"B: {FED}"]


def test_notes_are_searched(opened):
    page = opened().page
    page.fill("#b-search", "FEVER")
    assert page.inner_text(STATUS).startswith("Note 1 of 1: n2;")
    page.fill("#b-search", "no such words")
    assert page.inner_text(STATUS) == "No note with such errors."


def test_marks_stand_at_their_characters_even_behind_an_emoji(opened):
    page = opened().page
    page.select_option("#b-first", label=FED)

    def marked(panel):
        return page.evaluate(
            "(panel) => [...panel.querySelectorAll('mark')].map((one) => one.firstChild.data)",
            page.locator(panel).element_handle(),
        )

    assert marked("[data-panel=gold]") == ["chest pain", "aspirin", "heparin", "leg swelling"]
    answered = "[data-panel]:not([data-panel=gold])"
    assert marked(answered) == ["today", "chest pain", "aspirin", "heparin", "swelling"]


def test_every_mark_names_its_type_and_links_name_their_head(opened):
    page = opened().page
    page.select_option("#b-first", label=FED)
    page.select_option("#b-task", label="relations")
    gold = texts(page, "[data-panel=gold] .tag")
    assert gold[1:4] == ["drug 2", "strength → 2 ✗ wrong head", "frequency → 2"]
    answered = texts(page, "[data-panel]:not([data-panel=gold]) .tag")
    assert "strength → 4 ✗ wrong head" in answered


def test_what_was_not_scored_is_said_and_is_no_error(opened):
    page = opened().page
    page.select_option("#b-cohort", label="south (2)")
    page.select_option("#b-first", label="zero-shot")
    page.select_option("#b-task", label="modifiers")
    assert texts(page, "[data-panel=gold] .tag") == [
        "drug 1", "dosage → 1 ✗ missed", "bodyloc not scored", "problem 2",
    ]  # fmt: skip
    assert texts(page, "#b-list tbody td")[0] == "dosage"
    assert len(kinds(page)) == 1


def test_a_mark_inside_another_keeps_both_labels(opened):
    page = opened().page
    page.select_option("#b-cohort", label="south (2)")
    page.select_option("#b-task", label="modifiers")
    pieces = page.locator("[data-panel=gold] mark").all_inner_texts()
    assert pieces[-2:] == ["backbodyloc not scored", " painproblem 2"]


def test_keys_go_from_error_to_error_and_from_note_to_note(opened):
    page = opened().page
    page.select_option("#b-first", label="single-site/south")
    assert page.inner_text(STATUS) == "Note 1 of 2: n1; 4 here, 5 in all"
    page.keyboard.press("j")
    assert "4 here" in page.inner_text(STATUS)  # a list has the focus: its keys are its own
    page.locator("#b-on").focus()
    for key, told in [
        ("j", "Note 1 of 2: n1; error 1, 5 in all"),
        ("ArrowDown", "Note 1 of 2: n1; error 2, 5 in all"),
        ("k", "Note 1 of 2: n1; error 1, 5 in all"),
        ("ArrowRight", "Note 2 of 2: n2; 1 here, 5 in all"),
        ("ArrowLeft", "Note 1 of 2: n1; 4 here, 5 in all"),
    ]:
        page.keyboard.press(key)
        assert page.inner_text(STATUS) == told
    for _ in range(5):
        page.keyboard.press("j")
    assert page.inner_text(STATUS) == "Note 2 of 2: n2; error 5, 5 in all"
    assert page.locator("mark.chosen").count() == 1
    page.uncheck("#b-keys")
    page.keyboard.press("k")
    assert page.inner_text(STATUS) == "Note 2 of 2: n2; error 5, 5 in all"


def test_keys_still_work_after_an_error_was_picked_in_the_list(opened):
    page = opened().page
    page.select_option("#b-first", label=FED)
    page.locator("#b-list button").nth(1).click()
    assert "error 2" in page.inner_text(STATUS)
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("k")
    assert "error 1" in page.inner_text(STATUS)


def test_without_text_there_is_a_table_of_counts(opened):
    page = opened("textless").page
    page.select_option("#b-first", label=FED)
    assert texts(page, "#b-list thead th") == [
        "Note", "missed", "spurious", "wrong type", "wrong boundary", "all",
    ]  # fmt: skip
    assert texts(page, "#b-list tbody tr")[0].split() == ["n1", "0", "1", "1", "1", "3"]
    page.select_option("#b-task", label="relations")
    assert texts(page, "#b-list tbody tr")[0].split() == ["n1", "0", "0", "0", "0", "1", "1"]
    page.fill("#b-search", "n2")
    assert page.inner_text(STATUS) == "1 notes, 0 errors"


@pytest.mark.parametrize("name", ["full", "textless", "plain"])
def test_a_phone_scrolls_no_page_sideways(opened, name):
    page = opened(name, viewport={"width": 360, "height": 740}).page
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    boxes = page.locator(".scroll:visible")
    wider = boxes.evaluate_all("(all) => all.filter((one) => one.scrollWidth > 360).length")
    assert wider > 0  # what is too wide scrolls in its own box


def test_panels_are_stacked_on_a_phone_and_side_by_side_elsewhere(opened):
    def lefts(width):
        page = opened(viewport={"width": width, "height": 740}).page
        return {one.bounding_box()["x"] for one in page.locator(".panel").all()}

    assert len(lefts(360)) == 1
    assert len(lefts(1200)) == 2


def lightness(page, selector, property):
    """0 (black) to 1 (white) of a colour as it is drawn."""
    color = page.locator(selector).first.evaluate(f"(one) => getComputedStyle(one).{property}")
    return luminance(color)


def luminance(color):
    """Relative luminance of WCAG 2 of ``rgb(r, g, b)``."""
    parts = [float(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_dark_is_the_systems_choice_and_the_readers(opened):
    dark = opened(color_scheme="dark").page
    assert lightness(dark, "body", "backgroundColor") < 0.05
    light = opened(color_scheme="light").page
    assert lightness(light, "body", "backgroundColor") > 0.9
    light.click("#theme")
    assert lightness(light, "body", "backgroundColor") < 0.05
    light.click("#theme")
    assert lightness(light, "body", "backgroundColor") > 0.9


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(opened, scheme):
    page = opened(color_scheme=scheme).page
    page.select_option("#b-first", label=FED)
    page.select_option("#b-task", label="relations")
    # Every type that the default scheme has, right and wrong.
    page.evaluate(
        """() => {
          const marks = [...Array(40).keys()].map((n) => ({
            start: n, end: n + 1, type: n % 20, place: n, label: "type", aside: false,
            flags: n < 20 ? [] : ["missed"],
          }));
          document.querySelector(".note-text").append(markedText("x".repeat(40), marks));
        }"""
    )
    # What stands on the page's own ground, on a panel's, and on a mark's.
    pairs = page.evaluate(
        """() => {
          const ground = (one) => {
            for (let at = one; at; at = at.parentElement) {
              const color = getComputedStyle(at).backgroundColor;
              if (!/, 0\\)$/.test(color) && color !== "transparent") return color;
            }
            return getComputedStyle(document.body).backgroundColor;
          };
          return [...document.querySelectorAll("main *, nav *, header *")]
            .filter((one) => !one.closest("svg, option, .vh") && one.offsetParent &&
              [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
            .map((one) => [one.className, getComputedStyle(one).color, ground(one)]);
        }"""
    )
    faint = []
    for name, front, back in pairs:
        lighter, darker = sorted((luminance(front), luminance(back)), reverse=True)
        if (lighter + 0.05) / (darker + 0.05) < 4.5:
            faint.append((name, front, back))
    assert len(pairs) > 100
    assert faint == []


def test_every_control_and_figure_has_a_name(opened):
    page = opened().page
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("select, input, button")]
          .filter((one) => !one.labels?.length && !one.textContent.trim() &&
            !one.getAttribute("aria-label")).map((one) => one.outerHTML)"""
    )
    assert unnamed == []
    figures = page.evaluate(
        """() => [...document.querySelectorAll("svg[role=img]")]
          .map((one) => one.getAttribute("aria-labelledby").split(" ")
            .every((id) => document.getElementById(id).textContent))"""
    )
    assert len(figures) > 5
    assert all(figures)
    assert page.locator("table:not(:has(caption))").count() == 0
    assert page.locator("thead th:not([scope])").count() == 0


def test_it_can_be_printed(opened, tmp_path):
    page = opened().page
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.locator("#errors").is_visible()
    assert page.locator("#scores table:visible").count() == 1
    file = tmp_path / "report.pdf"
    page.pdf(path=file, format="A4")
    assert file.read_bytes().startswith(b"%PDF")
