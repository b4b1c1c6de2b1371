"""Marking up new notes: with a random model the spans mean nothing, but everything must fit."""

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fedmedlora.cli import run_command
from fedmedlora.corpus.jsonl import read_jsonl, write_jsonl
from fedmedlora.corpus.read import read_documents
from fedmedlora.errors import AdapterError, ConfigError, DataError
from fedmedlora.extract import extract, read_notes, read_task
from fedmedlora.model.adapter_files import save_adapter
from fedmedlora.model.backbone import load_backbone
from fedmedlora.model.lora import adapter_of, manifest_of, new_adapter_model
from fedmedlora.schema import Document, Entity, Scheme

NOTE = "Denies chest pain.\r\nAspirin 81 mg\tdaily for 3 days – no fever 😀.\n"
SCHEME = Scheme(
    mains={"problem": "what is wrong", "drug": "what is given"},
    modifiers={"dosage": "how much", "negation": "that it is absent"},
    pairs={"problem": ("negation",), "drug": ("dosage", "negation")},
)


def save_backbone(folder, *, seed):
    """A random Llama of one layer over single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {sign: number for number, sign in enumerate(["<eos>", *alphabet])}
    backend = Tokenizer(models.BPE(vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
        eos_token_id=0, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def save_trained(folder, backbone_folder):
    """An adapter whose B is not zero, with the record that a run writes beside it."""
    base = load_backbone(str(backbone_folder))
    model = new_adapter_model(
        base.model, rank=2, alpha=4, dropout=0.0, targets=["q_proj", "down_proj"], seed=1
    )
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    manifest = manifest_of(
        model,
        backbone=base.fingerprint,
        tokenizer=base.tokenizer_fingerprint,
        scheme=SCHEME.fingerprint,
    )
    save_adapter(adapter_of(model, manifest), folder, base_model=str(backbone_folder))
    write_task(folder, {"backbone": str(backbone_folder)})
    return folder


def write_task(folder, changes):
    record = {
        "backbone": "elsewhere",
        "precision": "fp32",
        "scheme": {
            "mains": dict(SCHEME.mains),
            "modifiers": dict(SCHEME.modifiers),
            "pairs": {main: list(types) for main, types in SCHEME.pairs.items()},
        },
        "task": {
            "tasks": ["entities", "modifiers"],
            "window_words": 8,
            "heads": "marked",
            "prompt": "compact",
        },
        "covers": ["drug", "problem", "dosage"],
        # A tag is opened wherever one may be: a random model would open none.
        "decoding": {
            "batch": 8,
            "draft": 4,
            "depth": 1,
            "open_bias": {"entities": 50.0, "modifiers": 50.0},
        },
    }
    (folder / "task.json").write_text(json.dumps({**record, **changes}), encoding="utf-8")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return save_backbone(tmp_path_factory.mktemp("backbone"), seed=0)


@pytest.fixture
def adapter(tmp_path, backbone):
    return save_trained(tmp_path / "adapter", backbone)


@pytest.fixture
def note(tmp_path):
    path = tmp_path / "visit.txt"
    path.write_bytes(NOTE.encode())
    return path


def test_a_note_comes_back_unchanged_with_spans_and_relations_that_fit(adapter, note):
    [document] = extract(adapter, [note])
    assert (document.id, document.text) == ("visit", NOTE)
    assert document.covers == {"problem", "drug", "dosage"}
    types = {entity.id: entity.type for entity in document.entities}
    assert set(types.values()) <= document.covers
    mains = [entity for entity in document.entities if entity.type in SCHEME.mains]
    assert len(mains) > 3
    for relation in document.relations:
        # Negation is not covered, and a problem takes nothing else.
        assert (types[relation.head], types[relation.tail]) == ("drug", "dosage")


def test_the_same_note_gives_the_same_document(adapter, note):
    assert extract(adapter, [note]) == extract(adapter, [note])


def test_entities_alone_can_be_asked_for(adapter, note):
    told = []
    [document] = extract(
        adapter, [note], tasks=["entities"], on_event=lambda kind, facts: told.append((kind, facts))
    )
    assert document.covers == {"problem", "drug"}
    assert document.relations == ()
    assert {kind for kind, _ in told} == {"decoding", "read"}
    assert told[-2][1]["cohort"] == "entities"
    assert told[-2][1]["done"] == told[-2][1]["total"]
    assert (told[-1][1]["task"], told[-1][1]["changed"]) == ("entities", 0)


def test_modifiers_need_entities(adapter, note):
    with pytest.raises(ConfigError, match="both be done"):
        extract(adapter, [note], tasks=["modifiers"])


def test_a_task_that_was_not_trained_is_refused(adapter, note):
    with pytest.raises(ConfigError, match="not trained for relations"):
        extract(adapter, [note], tasks=["entities", "relations"])


def test_another_backbone_is_refused_by_its_fingerprint(adapter, note, tmp_path):
    other = save_backbone(tmp_path / "other", seed=3)
    with pytest.raises(AdapterError, match=r"backbone '.*other'.* made for another backbone \("):
        extract(adapter, [note], backbone=str(other))


def test_a_backbone_that_moved_can_be_named(adapter, note, backbone):
    expected = extract(adapter, [note])
    write_task(adapter, {"backbone": "/gone/from/here"})
    assert extract(adapter, [note], backbone=str(backbone)) == expected


def test_a_scheme_that_was_edited_is_refused(adapter, note, backbone):
    edited = {"mains": {"problem": "anything"}, "modifiers": {}, "pairs": {}}
    write_task(adapter, {"backbone": str(backbone), "scheme": edited, "covers": ["problem"]})
    with pytest.raises(AdapterError, match="made for another scheme"):
        extract(adapter, [note])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task": {}}, "the key 'tasks' is missing"),
        ({"task": {"tasks": ["entities"], "words": 3}}, "words"),
        ({"covers": ["pet"]}, "types outside the scheme: pet"),
        ({"covers": "drug"}, "'covers' must be a list"),
        ({"covers": [1]}, "'covers' must be a list"),
        ({"backbone": None}, "'backbone' must be a name"),
        ({"task": {"tasks": ["entities"], "window_words": 4.5}}, "'window_words' must be"),
        ({"decoding": {"batch": 8, "open_bias": float("nan")}}, "'open_bias' must be a finite"),
        ({"precision": "int3"}, "'precision' is 'int3'"),
        ({"decoding": {"batch": 0, "draft": 4, "depth": 1, "open_bias": 0.0}}, "decoding.batch"),
        ({"scheme": {"mains": {}, "modifiers": {}, "pairs": {}}}, "at least one main"),
    ],
)
def test_a_broken_record_names_what_is_wrong(adapter, changes, told):
    write_task(adapter, changes)
    with pytest.raises(AdapterError, match=r"task\.json") as caught:
        read_task(adapter)
    assert told in str(caught.value)


def test_one_open_bias_holds_for_all_tasks(adapter):
    decoding = {"batch": 8, "draft": 4, "depth": 1, "open_bias": 1.5}
    write_task(adapter, {"decoding": decoding})
    task = read_task(adapter)
    assert {name: one.open_bias for name, one in task.decoding.items()} == {
        "entities": 1.5,
        "modifiers": 1.5,
    }


def test_a_damaged_adapter_is_refused(adapter, note):
    path = adapter / "adapter_model.safetensors"
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8).copy()
    data[-1] ^= 1
    path.write_bytes(data.tobytes())
    with pytest.raises(AdapterError, match="hash"):
        extract(adapter, [note])


def rewrite_manifest(folder, **changes):
    path = folder / "fedmedlora.json"
    record = json.loads(path.read_text())
    record["manifest"].update(changes)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rank": 10**9}, "not of rank 1000000000"),
        ({"rank": "two"}, "manifest key 'rank' is a str"),
        ({"format": 2}, "another release made it"),
    ],
)
def test_an_adapter_that_is_not_what_it_says_is_refused_by_its_folder(adapter, note, changes, told):
    rewrite_manifest(adapter, **changes)
    with pytest.raises(AdapterError, match=rf"adapter: .*{told}"):
        extract(adapter, [note])


@pytest.mark.parametrize("name", ["task.json", "fedmedlora.json"])
def test_a_record_nested_too_deep_is_refused(adapter, note, name):
    (adapter / name).write_text("[" * 100_000)
    with pytest.raises(AdapterError, match="adapter"):
        extract(adapter, [note])


@pytest.mark.parametrize(
    ("out", "told"),
    [
        (["visit.txt"], "is what is to be read"),
        (["no/such/out.jsonl"], "there is no such folder"),
        (["."], "is a folder"),
        ([".", "--format", "brat"], "is not an empty folder"),
    ],
)
def test_where_it_cannot_write_it_does_not_begin(
    adapter, note, tmp_path, capsys, monkeypatch, out, told
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fedmedlora.extract._load", None)
    assert run_command(["extract", "--adapter", "adapter", "visit.txt", "--out", *out]) == 2
    assert told in capsys.readouterr().err
    assert note.read_bytes() == NOTE.encode()


def test_a_file_name_that_can_be_no_id_is_refused(tmp_path):
    path = tmp_path / "caf\udce9.txt"
    try:
        path.write_text("no fever")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    with pytest.raises(DataError, match="not UTF-8"):
        read_notes([path])


def test_notes_of_one_name_are_told_apart_by_their_paths(tmp_path):
    paths = [tmp_path / folder / "note.txt" for folder in ("a", "b")] + [tmp_path / "other.txt"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("x", encoding="utf-8")
    assert [d.id for d in read_notes(paths)] == [str(paths[0]), str(paths[1]), "other"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"a\0b", "NUL byte at byte 1"),
        (b"caf\xe9", "not UTF-8"),
    ],
)
def test_an_unusable_note_is_refused_by_name(tmp_path, content, told):
    path = tmp_path / "note.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"note\.txt.*{told}"):
        read_notes([path])


def test_a_folder_or_the_same_note_twice_is_refused(tmp_path, note):
    with pytest.raises(DataError, match="is a folder"):
        read_notes([tmp_path])
    with pytest.raises(DataError, match="two notes have the id"):
        read_notes([note, note])


def test_documents_of_jsonl_are_notes_without_their_annotations(tmp_path):
    document = Document(
        "a", "fever", (Entity("T1", "problem", 0, 5),), group="p1", covers=frozenset({"problem"})
    )
    write_jsonl([document, Document("b", "no cough")], tmp_path / "notes.jsonl")
    (tmp_path / "c.txt").write_text("x", encoding="utf-8")
    notes = read_notes([tmp_path / "notes.jsonl", tmp_path / "c.txt"])
    assert notes == [
        Document("a", "fever", group="p1"),
        Document("b", "no cough"),
        Document("c", "x"),
    ]
    with pytest.raises(DataError, match="two notes have the id 'a'"):
        read_notes([tmp_path / "notes.jsonl", tmp_path / "notes.jsonl"])


def test_a_long_single_line_is_one_note(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("word " * 60_000, encoding="utf-8")
    [document] = read_notes([path])
    assert len(document.text) == 300_000


def test_the_command_writes_jsonl_to_stdout_and_brat_to_a_folder(
    adapter, note, tmp_path, capsysbinary
):
    expected = extract(adapter, [note])
    assert run_command(["extract", "--adapter", str(adapter), str(note)]) == 0
    printed = capsysbinary.readouterr()
    (tmp_path / "out.jsonl").write_bytes(printed.out)
    assert read_jsonl(tmp_path / "out.jsonl") == expected
    assert b"notes: 1, " in printed.err
    out = str(tmp_path / "brat")
    more = ["--format", "brat", "--out", out, str(note)]
    assert run_command(["extract", "--adapter", str(adapter), *more]) == 0
    [back] = read_documents(out)
    assert (back.text, set(back.entities)) == (NOTE, set(expected[0].entities))
