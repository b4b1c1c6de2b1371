"""Tiny encoders, made here, saved as folders that transformers loads."""

import torch
from model_toys import LINES, byte_tokenizer, word_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import WordPieceTrainer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from fedmedlora.schema import Document, Entity, Relation, Scheme

SCHEME = Scheme(
    mains={"problem": "what is wrong", "drug": "what is taken"},
    modifiers={"severity": "how bad", "dosage": "how much"},
    pairs={"problem": ("severity",), "drug": ("dosage",)},
)
ALL = frozenset(SCHEME.types)
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}


def piece_tokenizer(lines=LINES, size=300):
    """BERT's kind: cased word pieces between [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = WordPieceTrainer(vocab_size=size, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def save_encoder(folder, *, kind="bert", dropout=0.0):
    """A random encoder of a kind with its tokenizer; all sizes tiny."""
    torch.manual_seed(3)
    if kind == "bert":
        tokenizer = piece_tokenizer()
        model = BertForMaskedLM(
            BertConfig(
                vocab_size=len(tokenizer),
                max_position_embeddings=64,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
                **SIZES,
            )
        )
    elif kind == "roberta":
        tokenizer = byte_tokenizer(append_eos=True)
        model = RobertaForMaskedLM(
            RobertaConfig(
                vocab_size=len(tokenizer), max_position_embeddings=66, pad_token_id=0, **SIZES
            )
        )
    else:
        tokenizer = word_tokenizer()
        model = ModernBertForMaskedLM(
            ModernBertConfig(
                vocab_size=len(tokenizer),
                max_position_embeddings=64,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
                cls_token_id=1,
                sep_token_id=2,
                **SIZES,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def note(text, *entities, relations=(), covers=None, id="n1"):
    """A document; entities as (type, start, end), relations as (head, modifier) places."""
    made = [Entity(f"T{n}", *entity) for n, entity in enumerate(entities)]
    tied = [Relation(made[m].type, made[h].id, made[m].id) for h, m in relations]
    return Document(id, text, tuple(made), tuple(tied), covers=covers)
