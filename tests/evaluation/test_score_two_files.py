"""Gold and predictions as files: read, scored, and remarked upon."""

import json

import pytest
from scoring_documents import SCHEME, doc

from fedmedlora.corpus.brat_folder import write_brat
from fedmedlora.corpus.jsonl import write_jsonl
from fedmedlora.errors import DataError
from fedmedlora.evaluation.score_files import score_files


@pytest.fixture
def write(tmp_path):
    def written(name, *documents):
        write_jsonl(documents, tmp_path / name)
        return tmp_path / name

    return written


def test_two_files_give_records_and_a_table(write):
    gold = write("g.jsonl", doc(("problem", 0, 4), ("drug", 10, 14)))
    found = score_files(gold, write("p.jsonl", doc(("problem", 0, 4))), scheme=SCHEME)
    rows = json.loads(json.dumps(found.as_dicts()))
    micro = next(row for row in rows if row["type"] == "micro")
    assert (micro["cohort"], micro["round"], micro["tp"], micro["gold"]) == ("all", None, 1, 2)
    assert found.table().rows[2][5] == "0.667"
    assert found.remarks() == ["1 gold documents"]


def test_what_the_table_does_not_show_is_remarked(write):
    covers = frozenset({"problem", "severity"})
    gold = write(
        "g.jsonl",
        doc(("problem", 0, 4), ("severity", 5, 9), name="a", covers=covers),
        doc(("problem", 0, 4), name="b", covers=covers),
    )
    linked = doc(
        ("problem", 0, 4), ("severity", 5, 9), ("drug", 9, 12), relations=[(0, 1)], name="a"
    )
    found = score_files(gold, write("p.jsonl", linked), scheme=SCHEME)
    assert (found.documents, found.missing, found.set_aside, found.unscored) == (2, 1, 1, 1)
    assert len(found.remarks()) == 4


def test_entities_that_are_golds_own_are_remarked_upon_where_they_are_scored(write):
    gold = write(
        "g.jsonl",
        doc(("problem", 0, 4), ("severity", 5, 9), relations=[(0, 1)], name="a"),
        doc(("drug", 0, 4), name="b"),
    )
    given = write("p.jsonl", doc(("problem", 0, 4), name="a"), doc(("drug", 0, 4), name="b"))
    [_, remark] = score_files(gold, given, scheme=SCHEME).remarks()
    assert remark.startswith("all 2 entities are gold's own")
    assert "--tasks modifiers,relations" in remark
    assert len(score_files(gold, given, scheme=SCHEME, tasks=["modifiers"]).remarks()) == 1
    more = [doc(("problem", 0, 4), name="a"), doc(("drug", 0, 4), ("drug", 5, 9), name="b")]
    assert len(score_files(gold, write("m.jsonl", *more), scheme=SCHEME).remarks()) == 1
    assert len(score_files(gold, write("f.jsonl", more[0]), scheme=SCHEME).remarks()) == 2


def test_covers_may_be_given_for_a_file_that_does_not_say(write):
    gold = write("g.jsonl", doc(("problem", 0, 4)))
    predicted = write("p.jsonl", doc(("problem", 0, 4), ("drug", 10, 14)))
    found = score_files(gold, predicted, scheme=SCHEME, covers=frozenset({"problem"}))
    assert found.set_aside == 1
    assert next(r for r in found.records if r.type == "micro").f1 == 1


def test_predictions_for_another_text_are_refused(write):
    with pytest.raises(DataError, match="not gold's"):
        score_files(write("g.jsonl", doc()), write("p.jsonl", doc(text="x")), scheme=SCHEME)


def test_gold_may_be_in_another_format_than_the_predictions(write, tmp_path):
    documents = [doc(("problem", 0, 4), ("drug", 10, 14), name="note")]
    write_brat(documents, tmp_path / "gold")
    predicted = write("p.jsonl", doc(("problem", 0, 4), name="note"))
    found = score_files(tmp_path / "gold", predicted, scheme=SCHEME)
    micro = next(record for record in found.records if record.type == "micro")
    assert (micro.tp, micro.gold) == (1, 2)
