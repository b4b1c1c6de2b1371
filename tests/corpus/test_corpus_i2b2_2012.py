"""The i2b2 2012 format: where offsets count from, the stated rules, the shipped mapping."""

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedlora.corpus.convert import convert
from fedmedlora.corpus.i2b2_2012 import read_i2b2_2012, read_i2b2_2012_sources
from fedmedlora.corpus.mapping import load_mapping
from fedmedlora.corpus.read import read_documents
from fedmedlora.errors import DataError
from fedmedlora.schema import DEFAULT_SCHEME, Document, Entity, Relation

# of the note without the line break before it: 0 Seen, 8 2001-02-03, 24 chest pain, 40 two days
NOTE = "Seen on 2001-02-03 with chest pain for two days .\n"
SEEN = (
    '<EVENT id="E0" start="1" end="5" text="Seen"'
    ' modality="FACTUAL" polarity="POS" type="OCCURRENCE" />'
)
DATE = (
    '<TIMEX3 id="T0" start="9" end="19" text="2001-02-03" type="DATE" val="2001-02-03" mod="NA" />'
)
PAIN = (
    '<EVENT id="E1" start="25" end="35" text="chest pain"'
    ' modality="POSSIBLE" polarity="NEG" type="PROBLEM" />'
)
DAYS = '<TIMEX3 id="T1" start="40" end="48" text="two days" type="DURATION" val="P2D" mod="NA" />'
SECTION = (
    '<SECTIME id="S0" start="9" end="19" text="2001-02-03" type="ADMISSION" dvalue="2001-02-03" />'
)


def link(kind: str, start: str, end: str) -> str:
    return f'<TLINK id="TL0" fromID="{start}" fromText="x" toID="{end}" toText="y" type="{kind}" />'


def write(
    path: Path, *tags: str, note: str = NOTE, text: str | None = None, name: str = "1.xml"
) -> Path:
    text = f"<![CDATA[\n{note}]]>" if text is None else text
    content = (
        '<?xml version="1.0" encoding="UTF-8" ?>\n<ClinicalNarrativeTemporalAnnotation>\n'
        f"<TEXT>{text}</TEXT>\n<TAGS>\n" + "".join(f"{tag}\n" for tag in tags) + "</TAGS>\n"
        "</ClinicalNarrativeTemporalAnnotation>\n"
    )
    (path / name).write_bytes(content.encode())
    return path / name


def texts(document: Document) -> list[str]:
    return [document.text[e.start : e.end] for e in document.entities]


def test_tags_are_found_at_their_characters(tmp_path):
    path = write(tmp_path, SEEN, DATE, PAIN, link("OVERLAP", "E1", "T0"))
    (document,), report = read_i2b2_2012(path)
    assert (document.id, document.text) == ("1", f"\n{NOTE}")
    assert document.entities == (
        Entity("E0", "OCCURRENCE", 1, 5),
        Entity("T0", "DATE", 9, 19),
        Entity("E1", "PROBLEM", 25, 35),
    )
    assert texts(document) == ["Seen", "2001-02-03", "chest pain"]
    assert document.relations == (Relation("OVERLAP", "E1", "T0"),)
    assert report.attributes == {
        "modality FACTUAL": 1,
        "modality POSSIBLE": 1,
        "polarity POS": 1,
        "polarity NEG": 1,
        "val": 1,
        "mod NA": 1,
    }
    assert report.balanced
    assert read_documents(path) == [document]


@pytest.mark.parametrize(
    ("text", "first"), [(f"<![CDATA[{NOTE}]]>", 0), (NOTE, 0), (f"\n<![CDATA[{NOTE}]]>", 1)]
)
def test_offsets_count_from_0_or_1_as_the_texts_of_the_tags_say(tmp_path, text, first):
    (document,), _ = read_i2b2_2012(write(tmp_path, SEEN, DATE, PAIN, text=text))
    assert texts(document) == ["Seen", "2001-02-03", "chest pain"]
    assert document.entities[0].start == first


def test_through_the_shipped_mapping_times_modify_what_happens_at_them(tmp_path):
    path = write(
        tmp_path,
        *(SEEN, DATE, PAIN, DAYS, SECTION),
        link("overlap", "E1", "T0"),
        link("SIMULTANEOUS", "T1", "E1"),
        link("BEFORE", "E1", "T0"),
        link("OVERLAP", "E0", "E1"),
        link("OVERLAP", "E0", "T0"),
        link("OVERLAP", "E1", "S0"),
    )
    mapping = load_mapping("i2b2-2012", scheme=DEFAULT_SCHEME)
    (document,), report = read_i2b2_2012(path, mapping)
    assert [(e.id, e.type) for e in document.entities] == [
        ("T0", "temporal"),
        ("E1", "problem"),
        ("T1", "temporal"),
    ]
    assert document.relations == (
        Relation("temporal", "E1", "T0"),
        Relation("temporal", "E1", "T1"),
    )
    assert report.spans.skipped == {
        ("unmapped type", "OCCURRENCE"): 1,
        ("unmapped type", "SECTIME"): 1,
    }
    assert report.relations.skipped == {
        ("unmapped type", "BEFORE"): 1,
        ("types of its ends that no rule names", "OVERLAP"): 3,
    }
    assert report.balanced


def test_frequencies_stay_and_an_event_without_type_is_an_event(tmp_path):
    note = "aspirin daily\n"
    tags = (
        '<EVENT id="E0" start="1" end="8" text="aspirin" modality="FACTUAL" type=""/>',
        '<TIMEX3 id="T0" start="9" end="14" text="daily" type="FREQUENCY" val="R1D" mod="NA" />',
    )
    path = write(tmp_path, *tags, note=note)
    (document,), _ = read_i2b2_2012(path)
    assert [e.type for e in document.entities] == ["EVENT", "FREQUENCY"]
    (document,), _ = read_i2b2_2012(path, load_mapping("i2b2-2012", scheme=DEFAULT_SCHEME))
    assert [e.type for e in document.entities] == ["frequency"]


def test_bare_and_escaped_characters_in_attributes_are_understood(tmp_path):
    note = "H&H <5 and the 'flu\n"
    tags = (
        '<EVENT id="E0" start="1" end="4" text="H&H" type="TEST" />',
        '<EVENT id="E1" start="5" end="7" text="<5" type="TEST" />',
        '<EVENT id="E2" start="12" end="20" text="the &apos;flu" type="PROBLEM" />',
    )
    (document,), _ = read_i2b2_2012(write(tmp_path, *tags, note=note))
    assert texts(document) == ["H&H", "<5", "the 'flu"]


def test_text_outside_cdata_is_unescaped_before_offsets_are_counted(tmp_path):
    tag = '<EVENT id="E0" start="3" end="7" text="pain" type="PROBLEM" />'
    (document,), _ = read_i2b2_2012(write(tmp_path, tag, text="&lt; pain &#233;&copy;"))
    assert document.text == "< pain é&copy;"
    assert texts(document) == ["pain"]


def test_line_ends_are_those_that_an_xml_parser_hands_on(tmp_path):
    note = "\U0001f9ec\r\nchest\r\npain\r\n"
    tag = '<EVENT id="E0" start="3" end="13" text="chest pain" type="PROBLEM" />'
    (document,), _ = read_i2b2_2012(write(tmp_path, tag, note=note))
    assert document.text == "\n\U0001f9ec\nchest\npain\n"
    assert texts(document) == ["chest\npain"]


def test_a_tag_whose_text_is_elsewhere_is_skipped_with_its_links(tmp_path):
    wrong = PAIN.replace('"25"', '"26"').replace('"35"', '"36"')
    (document,), report = read_i2b2_2012(
        write(tmp_path, SEEN, DATE, wrong, link("OVERLAP", "E1", "T0"))
    )
    assert [e.id for e in document.entities] == ["E0", "T0"]
    assert report.spans.skipped == {("its text is not at its place", "PROBLEM"): 1}
    assert report.relations.skipped == {("an end was skipped", "OVERLAP"): 1}
    assert report.balanced


def test_a_file_of_which_most_texts_are_elsewhere_is_refused(tmp_path):
    with pytest.raises(DataError, match="for 2 of 3 spans") as caught:
        read_i2b2_2012(write(tmp_path, SEEN, DATE, PAIN, note=f"{NOTE[:5]}xx{NOTE[5:]}"))
    assert caught.value.line == 8


def test_links_to_admission_or_discharge_by_name_go_to_their_section_time(tmp_path):
    path = write(
        tmp_path,
        *(PAIN, SECTION),
        link("BEFORE", "E1", "Admission"),
        link("BEFORE", "E1", "Discharge"),
    )
    (document,), report = read_i2b2_2012(path)
    assert document.relations == (Relation("BEFORE", "E1", "S0"),)
    assert report.repairs == {
        "TLINK to Admission or Discharge by that name": 2,
        "TLINK left out: no SECTIME of that name": 1,
    }


def test_a_tag_repeated_as_it_was_counts_once(tmp_path):
    (document,), report = read_i2b2_2012(write(tmp_path, SEEN, SEEN))
    assert texts(document) == ["Seen"]
    assert report.repairs == {"tag repeated as it was": 1}


def test_a_tag_of_no_place_is_skipped(tmp_path):
    nowhere = SECTION.replace('start="9" end="19"', 'start="-1" end="-1"')
    (document,), report = read_i2b2_2012(write(tmp_path, nowhere))
    assert document.entities == ()
    assert report.spans.skipped == {("its text is not at its place", "SECTIME"): 1}


def test_a_folder_is_read_file_by_file_and_what_lies_beside_them_is_not(tmp_path):
    write(tmp_path, SEEN, name="2.xml")
    write(tmp_path, DATE, name="10.xml")
    for name in ("2.xml.txt", "2.xml.extent", "2.xml.tlink", "._2.xml"):
        (tmp_path / name).write_text("anything")
    assert [s.id for s in read_i2b2_2012_sources(tmp_path)] == ["10", "2"]
    assert [d.id for d in read_documents(tmp_path)] == ["10", "2"]
    report = convert(
        tmp_path,
        tmp_path / "out.jsonl",
        from_format="i2b2-2012",
        to_format="jsonl",
        mapping="i2b2-2012",
    )
    assert report.spans.totals() == (2, 1, 1)


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("chest pain", "not a well-formed tag"),
        ('<EVENT id="E1" text="the "pain"" />', "not a well-formed tag"),
        ('<EVENT id="E1" start="1" end="5" text="x" type="PROBLEM" >', "not a well-formed tag"),
        ('<MEDICATION id="M1" start="1" end="5" text="pain" />', "unknown tag MEDICATION"),
        ('<EVENT start="1" end="5" text="pain" type="PROBLEM" />', "no attribute 'id'"),
        ('<EVENT id="E1" start="1" text="pain" type="PROBLEM" />', "no attribute 'end'"),
        ('<EVENT id="E1" start="1" end="5" type="PROBLEM" />', "no attribute 'text'"),
        ('<EVENT id="E1" start="1" end="5" text="pain" />', "no attribute 'type'"),
        (PAIN.replace('"25"', '"pain"'), "EVENT's start is no number"),
        (PAIN.replace('"35"', '"2.5"'), "EVENT's end is no number"),
        (PAIN.replace('"35"', '"99"'), "start 25 and end 99 are not a span of a text of 51"),
        (PAIN.replace('"35"', '"25"'), "start 25 and end 25 are not a span"),
        (PAIN.replace("E1", "E0"), "'E0' is on line 7 already"),
        (link("OVERLAP", "E0", "T9"), "points to 'T9'"),
        (link("OVERLAP", "E9", "E0"), "points to 'E9'"),
        (link("OVERLAP", "E0", "T0").replace("toID", "to"), "no attribute 'toID'"),
    ],
)
def test_a_broken_tag_is_refused_with_its_place_and_without_its_text(tmp_path, tag, said):
    path = write(tmp_path, SEEN, DATE, tag)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        read_i2b2_2012(path)
    assert (caught.value.path, caught.value.line) == (str(path), 9)
    assert "pain" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "<a/>", "<TEXT>x</TEXT>", "<TEXT><TAGS></TAGS>"])
def test_another_xml_file_is_refused(tmp_path, content):
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(DataError, match=r"a\.xml: not an i2b2 2012 file.*\.jsonl"):
        read_i2b2_2012(tmp_path / "a.xml")
    (tmp_path / "a.xml").unlink()
    with pytest.raises(DataError, match=r"no \.xml file"):
        read_i2b2_2012(tmp_path)


_NOTES = st.text(
    st.sampled_from("ab \t\n\U0001f9ecé<>&'") | st.characters(exclude_categories=["Cs", "Cc"]),
    min_size=1,
    max_size=30,
)


@given(_NOTES.filter(lambda note: "]]>" not in note and "</TEXT>" not in note), st.data())
@settings(max_examples=200, deadline=None)
def test_any_spans_written_as_the_release_counts_them_are_found_again(note, data):
    places = []
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(note) - 1))
        places.append((start, data.draw(st.integers(start + 1, len(note)))))
    tags = []
    for number, (start, end) in enumerate(places):
        quoted = note[start:end].replace("&", "&amp;").replace('"', "&quot;")
        tags.append(
            f'<EVENT id="E{number}" start="{start + 1}" end="{end + 1}" text="{quoted}" '
            'type="TEST" />'
        )
    with tempfile.TemporaryDirectory() as folder:
        (source,) = read_i2b2_2012_sources(write(Path(folder), *tags, note=note))
    assert source.text == f"\n{note}"
    assert [s.fragments for s in source.spans] == [((a + 1, b + 1),) for a, b in places]
