"""The backbone that the package ships: small, whole, and made for clinical text."""

import json
import os
from pathlib import Path

import pytest
import torch

from fedmedlora.model.backbone import EMBEDDED, embedded_folder, load_backbone
from fedmedlora.model.decoding import DecodingSettings, EnforcedDecoder

pytestmark = pytest.mark.skipif(
    not embedded_folder().is_dir(), reason="the embedded backbone is not in this checkout"
)
SHARED = Path(os.environ.get("FEDMEDLORA_SHARED") or Path(__file__).parents[2] / "../shared")


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(EMBEDDED)


def test_any_other_program_can_load_it():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(embedded_folder())
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    assert model.config.vocab_size >= len(tokenizer)


def test_it_has_one_to_four_million_parameters(backbone):
    assert 1_000_000 <= backbone.model.num_parameters() <= 4_000_000


def test_it_takes_at_most_eight_megabytes_on_disk():
    files = [file for file in embedded_folder().rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 8_000_000


def test_its_card_is_there():
    card = (embedded_folder() / "CARD.md").read_text(encoding="utf-8")
    assert len(card) > 500


def test_the_parts_of_tags_are_single_tokens(backbone):
    tokenizer = backbone.tokenizer
    for part in ('<span class="', '">', "</span>", '" head="', '" id="'):
        assert len(tokenizer(part, add_special_tokens=False)["input_ids"]) == 1
    text = "Severe chest pain, aspirin 81 mg."
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = ["Severe ", "chest pain", ", ", "aspirin", " 81 mg."]
    apart = tokenizer(pieces, add_special_tokens=False)["input_ids"]
    assert [i for piece in apart for i in piece] == plain


def test_its_weights_are_finite(backbone):
    assert all(torch.isfinite(parameter).all() for parameter in backbone.model.parameters())


def test_it_decodes_within_a_second(backbone):
    from model_toys import SOURCES, toy_example

    examples = [toy_example(source, number=i) for i, source in enumerate(SOURCES)]
    decoder = EnforcedDecoder(backbone.model, backbone.tokenizer, DecodingSettings())
    assert len(decoder.decode(examples)) == len(SOURCES)


def test_real_notes_take_at_most_two_tokens_a_word(backbone):
    files = sorted((SHARED / "corpora").glob("*/*.jsonl"))
    if not files:
        pytest.skip("the open corpora are not beside this checkout (../shared/corpora)")
    tokens = words = 0
    for file in files:
        with file.open(encoding="utf-8") as lines:
            texts = [json.loads(line)["text"] for line, _ in zip(lines, range(40), strict=False)]
        encoded = backbone.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        tokens += sum(map(len, encoded))
        words += sum(len(text.split()) for text in texts)
    assert tokens / words <= 2.0
