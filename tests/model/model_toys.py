"""Tiny tokenizers, models and examples for the tests of this folder."""

import importlib.util
import random
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fedmedlora.tasks.example import Example

ROOT = Path(__file__).resolve().parents[2]
PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"

#: Llama 3's division of text before BPE.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LINES = [
    "Patient has chest pain and no fever, takes aspirin 81 mg daily (for years).",
    "Troponin <0.01 ng/mL; BP 120/80. No shortness of breath: denies cough.",
    'entities problem drug test\n### Input Text:\n\n### Output Text:\n<span class="drug">',
    '</span> <span class="severity" head="1"> <span class="dosage" head="12">',
    "mild pain in the left arm\tsince 3 days\n\nMetformin 500 mg p.o. b.i.d.",
]


def _finish(tokenizer, *, append_eos=False):
    single = f"{BOS} $A {EOS}" if append_eos else f"{BOS} $A"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(name, tokenizer.token_to_id(name)) for name in (BOS, EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )


def _train(tokenizer, size, lines, **options):
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, BOS, EOS, UNKNOWN],
        show_progress=False,
        **options,
    )
    tokenizer.train_from_iterator(lines, trainer)


def word_tokenizer(lines=LINES, size=400):
    """The embedded backbone's kind: white space not encoded, tags of three tokens."""
    spec = importlib.util.spec_from_file_location(
        "backbone_tokenizer", ROOT / "scripts" / "backbone" / "tokenizer.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.train_tokenizer(iter(lines), size=size)


def byte_tokenizer(lines=LINES, size=420, *, append_eos=False):
    """Llama 3's and Qwen's kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, size, lines, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    return _finish(tokenizer, append_eos=append_eos)


def piece_tokenizer(lines=LINES, size=300):
    """SentencePiece's kind, as newer conversions make it."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    _train(tokenizer, size, lines)
    return _finish(tokenizer)


def old_piece_tokenizer(lines=LINES, size=600):
    """SentencePiece's kind, as Llama 2 has it: a normaliser, bytes for what is unknown."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, BOS, EOS, UNKNOWN, *alphabet],
        show_progress=False,
        max_token_length=8,
    )
    tokenizer.train_from_iterator(lines, trainer)
    # Only added tokens so far: as plain entries of the vocabulary they are what bytes fall back to.
    return _finish(tokenizer)


TOKENIZERS = {
    "word": word_tokenizer,
    "byte": byte_tokenizer,
    "piece": piece_tokenizer,
    "old piece": old_piece_tokenizer,
}


def tiny_llama(tokenizer, *, seed=0, hidden=16, layers=2, scale=0.6, **config):
    """A Llama with random weights, large enough that its logits differ."""
    torch.manual_seed(seed)
    heads = 2
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            intermediate_size=2 * hidden,
            initializer_range=scale,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **config,
        )
    )
    return model.eval()


ENTITY_TAGS = tuple(f'<span class="{name}">' for name in ("problem", "drug", "test"))


def toy_example(source, *, answer=None, openings=ENTITY_TAGS, number=0, prompt=None, heads=()):
    return Example(
        id=f"d{number}:entities:0-{len(source)}",
        task="entities",
        document=f"d{number}",
        start=0,
        end=len(source),
        prompt=prompt
        or f"entities problem drug test\n### Input Text:\n{source}\n### Output Text:\n",
        source=source,
        answer=answer or source,
        openings=openings,
        heads=heads,
    )


#: Sources that try what can go wrong with offsets.
SOURCES = [
    "Patient has chest pain and no fever, takes aspirin 81 mg daily (for years).",
    "Troponin <0.01 ng/mL; <5 mg? </p> BP 120/80.",
    "  leading and trailing \t",
    "tabs\tand\r\nline  breaks   here\n\n\nMetformin",
    "emoji 😀😀x and 🏳️‍🌈 ß é e\u0301 İstanbul ﬁne \u200bzero",
    "a",
    "</s> <s> <unk> <pad>",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 (pain), mild-to-moderate.",
    "\u00a0nbsp\u2003em\u2028line",
    "naïve",
]
_WORDS = [
    *[
        "chest",
        "pain",
        "no",
        "fever",
        "aspirin",
        "mg",
        "daily",
        "(for",
        "<5",
        ")",
        ",",
        ".",
        ";",
        "120/80",
        "😀",
        "é",
        "\t",
        "\n",
        "x",
    ],
    " ",
]


def random_source(seed):
    rng = random.Random(seed)
    return "".join(
        rng.choice(_WORDS) + rng.choice(["", " ", " ", "  ", "\n"])
        for _ in range(rng.randint(1, 25))
    )
