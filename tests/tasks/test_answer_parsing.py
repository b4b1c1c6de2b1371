import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedlora.tasks.parse import TagSpan, parse_answer, parse_opening


def parse(answer, source=""):
    return parse_answer(answer, source=source)


@pytest.mark.parametrize(
    "tag",
    [
        '<span class="drug">',
        "<span class='drug'>",
        "<span class=drug>",
        '< SPAN  CLASS = "drug" >',
        '<span\nclass=" drug ">',
        "<span class=“drug”>",
        '<span id="7" class="drug" style="x">',
    ],
)
def test_a_tag_is_understood_however_it_is_spaced_and_quoted(tag):
    parsed = parse(f"on {tag}aspirin</ span >.")
    assert parsed.text == "on aspirin."
    assert parsed.spans == (TagSpan(3, 10, "drug", None),)
    assert (parsed.unclosed, parsed.malformed, parsed.stray) == (0, 0, 0)


def test_heads_are_read_from_their_attribute():
    assert parse_opening('<span class="dosage" head="1 2">') == ("dosage", "1 2")
    assert parse_opening("<span>") == (None, None)
    assert parse_opening("dosage") == (None, None)


def test_a_closing_tag_closes_the_last_open_span():
    parsed = parse("<span class=a>x <span class=b>y</span> z</span>")
    assert parsed.spans == (TagSpan(0, 5, "a", None), TagSpan(2, 3, "b", None))


def test_unclosed_and_stray_tags_are_counted():
    parsed = parse("</span>a <span class=a>b</span> <span class=a>c")
    assert parsed.spans == (TagSpan(2, 3, "a", None),)
    assert (parsed.unclosed, parsed.stray, parsed.text) == (1, 1, "a b c")


def test_a_tag_without_its_end_is_malformed_and_takes_its_closing_tag_along():
    parsed = parse('<span class="a" pain</span> in <span class="b">arm</span>')
    assert parsed.text == "pain in arm"
    assert parsed.spans == (TagSpan(8, 11, "b", None),)
    assert (parsed.malformed, parsed.stray) == (1, 0)


@pytest.mark.parametrize(
    "tail", ["<", "</", "<s", "</spa", "<span", '<span class="pro', "< / span "]
)
def test_a_tag_cut_off_by_the_end_of_the_answer_is_taken_away(tail):
    parsed = parse(f"chest pain {tail}")
    assert (parsed.text, parsed.truncated) == ("chest pain ", True)
    assert parsed.unclosed == parsed.malformed == parsed.stray == 0


def test_a_sign_that_the_source_ends_with_is_no_cut_off_tag():
    parsed = parse("<span class=a>p <</span>", source="p <")
    assert (parsed.text, parsed.truncated) == ("p <", False)
    assert not parse("P <", source="p <").truncated


@given(st.text(alphabet=st.sampled_from("</span clas=\"'>xé\n"), max_size=80))
def test_nothing_makes_parsing_fail(answer):
    parsed = parse(answer, source="x")
    for span in parsed.spans:
        assert 0 <= span.start <= span.end <= len(parsed.text)


@pytest.mark.parametrize(
    "piece", ["<", "< ", "<span ", "a=", "<span class=", '<span class="a">', " "]
)
def test_long_nonsense_takes_time_in_proportion_to_its_length(piece):
    assert parse(f"<span {piece * 50_000}").text is not None
