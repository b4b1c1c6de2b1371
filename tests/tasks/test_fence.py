import pytest

from fedmedlora.tasks.fence import strip_fence

MARKED = 'No <span class="problem">pain</span>.'


@pytest.mark.parametrize(
    "answer",
    [
        f"```\n{MARKED}\n```",
        f"```html\n{MARKED}\n```\n",
        f"Here it is:\n\n```html\n{MARKED}\n```\nNo other entity.",
        f"```html\n{MARKED}",
        f"```html\r\n{MARKED}\n```",
    ],
)
def test_what_stands_in_the_one_fence_is_the_answer(answer):
    assert strip_fence(answer, source="No pain.") == MARKED


@pytest.mark.parametrize(
    "answer",
    [
        MARKED,
        f"Here it is: {MARKED}",
        f"{MARKED}\n```\nthat was all\n```",
        f"```\n{MARKED}\n```\n```\nNo pain.\n```",
        f"{MARKED}\n```",
        f"Use ``` here: {MARKED}",
        "",
    ],
)
def test_what_is_not_clearly_a_fence_is_left(answer):
    assert strip_fence(answer, source="No pain.") == answer


def test_a_fence_of_the_note_itself_is_text():
    source = "```\nlab results\n```"
    assert strip_fence(source, source=source) == source
