"""The cache that takes tokens back: always the logits of an uncached forward of each row."""

import random
import warnings

import pytest
import torch
from model_toys import tiny_llama, word_tokenizer

from fedmedlora.errors import BackboneError
from fedmedlora.model.cache import RewindableCache, check_rewinding
from fedmedlora.model.lora import new_adapter_model
from fedmedlora.model.projection import Projection

SIZE = 60


def _config(**more):
    return {
        "vocab_size": SIZE, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 24, "initializer_range": 0.5,
        "max_position_embeddings": 256, "pad_token_id": 0, **more,
    }  # fmt: skip


def _mistral():
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(**_config(sliding_window=7)))


def _qwen():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**_config()))


def _gemma():
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            **_config(head_dim=8, sliding_window=6, final_logit_softcapping=5.0),
            layer_types=["sliding_attention", "full_attention"],
        )
    )


def _gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=SIZE, n_positions=80, n_embd=16, n_layer=2, n_head=2,
                   initializer_range=0.5, bos_token_id=0, eos_token_id=0)
    )  # fmt: skip


def _llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_config()))


def _adapted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = new_adapter_model(
            _llama(), rank=2, alpha=8, dropout=0.1, targets=["all-linear"], seed=0
        )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


MODELS = {
    "llama": _llama, "adapted llama": _adapted, "qwen2": _qwen, "mistral with a window": _mistral,
    "gemma3 with a window": _gemma, "gpt2": _gpt2,
}  # fmt: skip


@pytest.fixture(scope="module", params=sorted(MODELS))
def model(request):
    torch.manual_seed(3)
    return MODELS[request.param]().eval()


def _uncached(model, ids, last):
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -last:]


def _walk(model, rng, *, shared):
    """Feed, take back, drop rows, at random; compare every logit with an uncached forward."""
    projection = Projection(model)

    def tokens(low, high):
        return [rng.randrange(1, SIZE) for _ in range(rng.randint(low, high))]

    common = tokens(shared, shared)
    prompts = [common + tokens(1, 9) for _ in range(rng.randint(1, 4))]
    if not shared:
        prompts.append(tokens(1, 1))
    cache = RewindableCache(projection, prompts, pad=0)
    written = [prompt[:-1] for prompt in prompts]
    for _ in range(7):
        feeds = [tokens(1, 4) for _ in written]
        logits = projection.logits(cache.extend(feeds))
        assert torch.isfinite(logits).all()
        kept = []
        for row, (before, feed) in enumerate(zip(written, feeds, strict=True)):
            wanted = _uncached(model, before + feed, len(feed))
            torch.testing.assert_close(
                logits[row, : len(feed)], wanted.float(), atol=1e-4, rtol=1e-4
            )
            kept.append(rng.randint(1, len(feed)))
            before += feed[: kept[-1]]
        cache.keep(kept)
        assert cache.lengths == [len(row) for row in written]
        if len(written) > 1 and rng.random() < 0.3:
            gone = rng.sample(range(len(written)), rng.randint(1, len(written) - 1))
            order = cache.leave_out(gone)
            assert sorted([*order, *gone]) == list(range(len(written)))
            written = [list(written[row]) for row in order]


@pytest.mark.parametrize("shared", [0, 20])
def test_logits_are_those_of_an_uncached_forward(model, shared):
    with torch.inference_mode():
        for seed in range(4):
            _walk(model, random.Random(seed), shared=shared)


def test_the_cache_grows_as_long_as_rows_do():
    torch.manual_seed(0)
    model = _llama().eval()
    projection = Projection(model)
    rng = random.Random(0)
    ids = [1]
    with torch.inference_mode():
        cache = RewindableCache(projection, [[1], [2, 3]], pad=0)
        for _ in range(12):
            feed = [rng.randrange(1, SIZE) for _ in range(30)]
            logits = projection.logits(cache.extend([feed, feed[:1]]))
            ids = ids + feed if len(ids) > 1 else feed
            cache.keep([30, 0])
        wanted = _uncached(model, ids, 5)
    torch.testing.assert_close(logits[0, -5:], wanted, atol=1e-3, rtol=1e-3)
    assert cache.lengths == [360, 1]


def test_more_positions_than_the_backbone_has_is_an_error():
    projection = Projection(_gpt2().eval())
    cache = RewindableCache(projection, [[1] * 79, [1]], pad=0)
    cache.extend([[1, 2], [3]])  # the 80th is the last
    cache.keep([2, 1])
    with pytest.raises(BackboneError, match=r"needs 81 positions and the backbone has 80"):
        cache.extend([[1], [1]])


def test_only_logits_that_are_asked_for_are_computed():
    model = tiny_llama(word_tokenizer())
    projection = Projection(model)
    ids = torch.tensor([[5, 6, 7]])
    whole = model(ids).logits
    some = projection.logits(projection.states(input_ids=ids), torch.tensor([3, 9]))
    torch.testing.assert_close(some, whole[..., [3, 9]])
    assert some.shape == (1, 3, 2)


def test_what_fits_is_known_by_comparing(model):
    check_rewinding(Projection(model))


def _mamba():
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(
        MambaConfig(vocab_size=SIZE, hidden_size=16, num_hidden_layers=1, state_size=4)
    )


def _bloom():
    from transformers import BloomConfig, BloomForCausalLM

    return BloomForCausalLM(BloomConfig(vocab_size=SIZE, hidden_size=16, n_layer=2, n_head=2))


@pytest.mark.parametrize("make", [_mamba, _bloom])
def test_a_model_whose_cache_cannot_take_tokens_back_is_an_error(make):
    with pytest.raises(BackboneError, match=r"cannot take tokens back.*decoding\.mode to free"):
        check_rewinding(Projection(make().eval()))


def test_a_model_that_computes_something_else_with_a_mask_is_an_error(monkeypatch):
    projection = Projection(_llama().eval())
    monkeypatch.setattr(RewindableCache, "_mask", lambda self, slots, length: None)
    with pytest.raises(BackboneError, match=r"LlamaForCausalLM.*decoding\.mode to free"):
        check_rewinding(projection)
