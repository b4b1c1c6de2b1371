"""The encoder that ships with the package: whole, small, said what it is, ready to be trained."""

import json

from transformers import AutoModelForMaskedLM, AutoTokenizer

from fedmedlora.model.backbone import embedded_folder, tokenizer_fingerprint
from fedmedlora.model.tagger import embedded_encoder_folder, load_tagger
from fedmedlora.model.tagger_answers import encode_for, tag_examples
from fedmedlora.model.tagger_training import TaggerSettings, train_tagger
from fedmedlora.schema import DEFAULT_SCHEME, Document, Entity
from fedmedlora.tasks.build import build_examples

COVERS = frozenset({"problem", "drug"})


def test_it_is_small_and_has_a_card_with_what_the_making_measured():
    folder = embedded_encoder_folder()
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 6_000_000
    card = (folder / "CARD.md").read_text(encoding="utf-8")
    facts = json.loads((folder / "making.json").read_text(encoding="utf-8"))
    assert f"{facts['parameters']:,}" in card
    assert f"{facts['loss']:.2f} a masked token" in card
    assert "MedQuAD" in card


def test_it_guesses_a_masked_word_from_both_sides():
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    model = AutoModelForMaskedLM.from_pretrained(embedded_encoder_folder()).eval()
    ids = tokenizer("what are the signs and symptoms of asthma?", return_tensors="pt")["input_ids"]
    place = ids[0].tolist().index(tokenizer.convert_tokens_to_ids("symptoms"))
    ids[0, place] = tokenizer.unk_token_id
    best = model(input_ids=ids).logits[0, place].topk(3).indices.tolist()
    assert "symptoms" in tokenizer.convert_ids_to_tokens(best)


def test_it_learns_two_types_from_one_note():
    text = "Severe headache and nausea.\r\nStarted ibuprofen; nausea less, takes metformin."
    spans = [("problem", "headache"), ("problem", "nausea"), ("drug", "ibuprofen")]
    entities = [
        Entity(f"T{n}", name, text.index(word), text.index(word) + len(word))
        for n, (name, word) in enumerate(spans)
    ]
    second = text.rindex("nausea")
    entities.append(Entity("T4", "problem", second, second + 6))
    last = text.index("metformin")
    entities.append(Entity("T5", "drug", last, last + 9))
    note = Document("n", text, tuple(entities))
    tagger = load_tagger("embedded", scheme=DEFAULT_SCHEME, seed=1)
    settings = TaggerSettings(steps=20, batch=2, learning_rate=2e-3)
    examples, _ = build_examples(
        [note], covers=COVERS, scheme=DEFAULT_SCHEME, settings=settings.tasks(("entities",))
    )
    rows, report = encode_for(tagger, examples, max_tokens=512)
    assert report.inexact == 0
    train_tagger(tagger, rows, settings=settings, seed=1)
    assert tag_examples(tagger, examples, max_tokens=512) == [one.answer for one in examples]


def test_its_tokenizer_is_the_backbones():
    assert not [file for file in embedded_encoder_folder().iterdir() if "token" in file.name]
    tagger = load_tagger("embedded", scheme=DEFAULT_SCHEME, seed=1)
    backbone = AutoTokenizer.from_pretrained(embedded_folder())
    assert tagger.manifest.tokenizer == tokenizer_fingerprint(backbone)
    assert len(tagger.model.get_input_embeddings().weight) == len(backbone) + 2
