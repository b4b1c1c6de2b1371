"""Words in, the embedded backbone's tokenizer out: BPE inside words, white space not encoded.

Every word, run of digits, punctuation mark and line break starts a token of its own, and the parts
of a tag are single tokens, so text tokenises alike inside and outside a tag. Text is lower-cased;
offsets still point into the text as given.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
TAG_PARTS = ['<span class="', '">', "</span>", '" id="', '" head="', "###"]
_WORD = r"\d+|[^\W\d_]+|\n|[^\w\s]|_"


def train_tokenizer(lines: Iterator[str], *, size: int) -> PreTrainedTokenizerFast:
    """Train on ``lines``; the vocabulary has ``size`` entries, tag parts included."""
    tokenizer = Tokenizer(
        models.BPE(unk_token=UNKNOWN, continuing_subword_prefix="##", fuse_unk=False)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
            pre_tokenizers.Split(Regex(_WORD), "isolated"),
        ]
    )
    specials = [PAD, BOS, EOS, UNKNOWN]
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(TAG_PARTS),
        special_tokens=specials,
        continuing_subword_prefix="##",
        limit_alphabet=120,
        initial_alphabet=list("0123456789abcdefghijklmnopqrstuvwxyz.,;:-/()[]%<>=+*'\"\n°µ≥≤±×–•"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_tokens([AddedToken(part, normalized=False, special=False) for part in TAG_PARTS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
        padding_side="right",
    )
