"""What prompts share is found, computed once, and gone on from with the same result."""

import pytest
import torch
from model_toys import tiny_llama, word_tokenizer

from fedmedlora.model.beginnings import Computed, can_go_on, group_by_beginning
from fedmedlora.model.encoding import Row
from fedmedlora.model.projection import Projection

LONG, OTHER = list(range(100, 130)), list(range(200, 220))


def groups(prompts, worth=0):
    return {(group.rows, group.shared) for group in group_by_beginning(prompts, worth=worth)}


def test_prompts_of_two_kinds_are_two_groups():
    prompts = [[*LONG, 1], [*OTHER, 1], [*LONG, 2, 3], [*OTHER, 2], [*LONG, 4]]
    assert groups(prompts) == {((0, 2, 4), 30), ((1, 3), 20)}


def test_a_common_beginning_does_not_hide_the_longer_ones():
    head = list(range(12))
    prompts = [[*head, *kind, i] for i in range(5) for kind in (LONG, OTHER)]
    # Apart they save 4 * 42 + 4 * 32 tokens; together 9 * 12.
    assert groups(prompts) == {((0, 2, 4, 6, 8), 42), ((1, 3, 5, 7, 9), 32)}
    assert groups(prompts, worth=187) == {((0, 2, 4, 6, 8), 42), ((1, 3, 5, 7, 9), 32)}
    assert groups(prompts, worth=188) == {(tuple(range(10)), 12)}


def test_what_is_hardly_alike_shares_nothing():
    assert groups([[*range(11), 50], [*range(11), 51]]) == {((0, 1), 0)}
    assert groups([[1], [], [2]]) == {((0, 1, 2), 0)}
    assert groups([[7, 8]]) == {((0,), 0)}
    assert groups([]) == set()


def test_a_prompt_that_is_the_whole_beginning_limits_it():
    assert groups([LONG, [*LONG, 1], [*LONG, 2]]) == {((0, 1, 2), 30)}


def mistral(tokenizer):
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=8,
    )  # fmt: skip
    return MistralForCausalLM(config).eval()


@pytest.mark.parametrize("make", [tiny_llama, mistral])
def test_rows_go_on_from_a_computed_beginning_as_if_they_had_begun_there(make):
    tokenizer = word_tokenizer()
    projection = Projection(make(tokenizer))
    assert can_go_on(projection)
    head, tails = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [[3, 4, 5], [6, 7, 8]]
    with torch.no_grad():
        begun = Computed(projection, head)
        for part in (tails, tails[1:]):  # twice: the first rows leave it as it was
            past = begun.rows(len(part))
            found = projection.states(
                input_ids=torch.tensor(part), past_key_values=past, use_cache=True
            )
            whole = torch.tensor([[*head, *tail] for tail in part])
            wanted = projection.states(input_ids=whole, use_cache=False)[:, len(head) :]
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_row_after_its_beginning_has_the_same_targets():
    row = Row("a", (1, 2, 3, 4, 5, 6), 4, tags=(4,), choices=(5, 9))
    rest = row.after(3)
    assert rest == Row("a", (4, 5, 6), 1, tags=(1,), choices=(5, 9))
    assert rest.targets == row.targets
    with pytest.raises(ValueError, match="begins at 4"):
        row.after(4)
