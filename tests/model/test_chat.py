"""An API model is asked over real HTTP: what is sent, what comes back, what it costs."""

import json
import threading

import pytest
from chat_server import KEY, completion, example, serving

from fedmedlora.errors import ConfigError
from fedmedlora.model.chat import ChatSettings, answer_by_api, refuse_egress
from fedmedlora.schema import DEFAULT_SCHEME
from fedmedlora.tasks.answer import read_answer

ALLOWED = {"model": "toy", "allow_egress": True}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def ask(server, examples, tmp_path, **settings):
    return answer_by_api(
        examples,
        ChatSettings(**{**ALLOWED, **settings}),
        cohorts=["mts"],
        cache=tmp_path / "cache.jsonl",
        environ=server.environ,
    )


def test_the_prompt_is_the_one_message_and_settings_travel_with_it(tmp_path):
    with serving(lambda prompt, number: "No pain.") as server:
        ask(server, [example(1)], tmp_path, seed=5, max_tokens=77)
    assert server.requests == [
        {
            "model": "toy",
            "messages": [{"role": "user", "content": example(1).prompt}],
            "max_tokens": 77,
            "temperature": 0.0,
            "seed": 5,
        }
    ]
    assert server.paths == ["/v1/chat/completions?secret=in-the-query"]
    assert server.authorization == [f"Bearer {KEY}"]


def test_what_a_newer_model_refuses_can_be_left_out_or_renamed(tmp_path):
    with serving(lambda prompt, number: "No pain.") as server:
        ask(
            server,
            [example(1)],
            tmp_path,
            temperature=None,
            limit_field="max_completion_tokens",
        )
    [request] = server.requests
    assert set(request) == {"model", "messages", "max_completion_tokens"}


def test_without_a_key_none_is_sent_and_the_model_may_come_from_the_environment(tmp_path):
    with serving(lambda prompt, number: "No pain.") as server:
        del server.environ["OPENAI_API_KEY"]
        server.environ["OPENAI_MODEL"] = "another"
        ask(server, [example(1)], tmp_path, model="")
    assert server.authorization == [None]
    assert server.requests[0]["model"] == "another"


def test_answers_keep_the_order_of_the_examples_when_the_last_comes_first(tmp_path):
    told = []
    there = threading.Barrier(3, timeout=20)
    turn = [threading.Event() for _ in range(4)]
    turn[3].set()

    def reply(prompt, number):
        mine = int(prompt.split("\n")[0][-1])
        there.wait()  # all three are under way together
        turn[mine + 1].wait(20)
        turn[mine].set()
        return f"answer {mine}"

    with serving(reply) as server:
        result = answer_by_api(
            [example(0), example(1), example(2)],
            ChatSettings(**ALLOWED, concurrency=3),
            cohorts=["mts"],
            cache=tmp_path / "cache.jsonl",
            on_done=told.append,
            environ=server.environ,
        )
    assert result.answers == ["answer 0", "answer 1", "answer 2"]
    assert told == [1, 2, 3]
    assert server.most_at_once == 3


def test_no_more_requests_are_under_way_than_allowed(tmp_path):
    with serving(lambda prompt, number: "x") as server:
        ask(server, [example(n) for n in range(6)], tmp_path, concurrency=1)
    assert server.most_at_once == 1
    assert server.prompts == [example(n).prompt for n in range(6)]


def test_examples_that_share_a_prompt_are_asked_once(tmp_path):
    same = [example(1, prompt="same"), example(2, prompt="same")]
    with serving(lambda prompt, number: "No pain.") as server:
        result = ask(server, same, tmp_path)
    assert server.prompts == ["same"]
    assert result.answers == ["No pain.", "No pain."]
    assert result.cost.paid.answers == 1


def test_tokens_and_dollars_are_those_of_the_usage_told(tmp_path):
    usage = {"0": (1000, 200), "1": (3000, 50), "2": None}

    def reply(prompt, number):
        return 200, completion("x", usage=usage[prompt.split("\n")[0][-1]])

    prices = {"usd_per_million_prompt": 2.5, "usd_per_million_completion": 10.0}
    with serving(reply) as server:
        ask(server, [example(0)], tmp_path, **prices)
        cost = ask(server, [example(0), example(1), example(2)], tmp_path, **prices).cost
    # 1000 x 2.5 + 200 x 10 and 3000 x 2.5 + 50 x 10 millionths of a dollar
    assert (cost.cached.answers, cost.cached.prompt, cost.cached.completion) == (1, 1000, 200)
    assert cost.cached.usd == pytest.approx(0.0045)
    assert (cost.paid.answers, cost.paid.prompt, cost.paid.completion) == (2, 3000, 50)
    assert cost.paid.usd == pytest.approx(0.008)
    assert (cost.cached.unmetered, cost.paid.unmetered) == (0, 1)
    assert (cost.requests, cost.retries, cost.models) == (2, 0, ("toy-2026",))


def test_without_prices_no_dollars_are_told(tmp_path):
    with serving(lambda prompt, number: "x") as server:
        assert ask(server, [example(1)], tmp_path).cost.paid.usd is None


def test_an_answer_cut_at_the_limit_is_used_and_counted(tmp_path):
    cut = completion('No <span class="problem">pain</span>', finish="length")
    with serving(lambda prompt, number: (200, cut)) as server:
        result = ask(server, [example(1)], tmp_path)
    assert result.answers == ['No <span class="problem">pain</span>']
    assert result.cost.cut == 1


@pytest.mark.parametrize(
    "reply",
    [
        (200, completion(None, refusal="I cannot")),
        (200, completion(None, finish="content_filter")),
        (400, json.dumps({"error": {"code": "content_filter"}})),
    ],
)
def test_a_refused_answer_is_empty_and_counted_and_not_asked_for_again(tmp_path, reply):
    with serving(lambda prompt, number: reply) as server:
        result = ask(server, [example(1)], tmp_path)
        again = ask(server, [example(1)], tmp_path)
    assert result.answers == again.answers == [""]
    assert (result.cost.refused, again.cost.refused, len(server.requests)) == (1, 1, 1)


def test_an_answer_in_a_fence_with_a_preamble_is_read_like_a_bare_one(tmp_path):
    marked = 'No <span class="problem">pain</span>.'
    with serving(
        lambda prompt, number: f"Sure! No tags but one:\n```html\n{marked}\n```"
    ) as server:
        result = ask(server, [example(1)], tmp_path)
    assert result.answers == [marked]
    [said], counts = read_answer(example(1), result.answers[0], scheme=DEFAULT_SCHEME)
    assert (said.type, said.start, said.end, counts.changed) == ("problem", 3, 7, 0)


def test_half_of_a_surrogate_pair_cannot_break_the_files_of_a_run(tmp_path):
    body = completion("x").replace('"x"', '"No pain\\ud83d"')
    with serving(lambda prompt, number: (200, body)) as server:
        result = ask(server, [example(1, prompt="\ud83d odd")], tmp_path)
    assert result.answers == ["No pain?"]


@pytest.mark.parametrize("allowed", [False, ("uth", "i2b2")])
def test_notes_without_permission_are_not_sent_even_to_this_machine(tmp_path, allowed):
    with serving(lambda prompt, number: "x") as server:
        with pytest.raises(ConfigError, match=r"notes of mts would be sent.*`allow_egress: true`"):
            ask(server, [example(1)], tmp_path, allow_egress=allowed)
        assert server.requests == []
    assert list(tmp_path.iterdir()) == []


def test_permission_can_be_given_for_all_or_for_some():
    refuse_egress(["mts", "uth"], True)
    refuse_egress(["mts", "uth"], ["uth", "mts", "i2b2"])
    with pytest.raises(ConfigError) as caught:
        refuse_egress(["mts", "uth", "i2b2", "mts"], ["uth"], key="api.allow_egress")
    assert str(caught.value) == (
        "the notes of mts, i2b2 would be sent to an API: if that is permitted, write "
        "`api.allow_egress: true` into the study file, or `api.allow_egress: [mts, i2b2]` for "
        "these alone"
    )


def test_a_name_inside_an_allowed_name_is_not_allowed():
    with pytest.raises(ConfigError, match="notes of mts would"):
        refuse_egress(["mts"], "mts-public")


def test_who_sends_must_say_whose_notes(tmp_path):
    with pytest.raises(ValueError, match="cohorts"):
        answer_by_api(
            [example(1)], ChatSettings(**ALLOWED), cohorts=[], cache=tmp_path / "c", environ={}
        )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"OPENAI_BASE_URL": ""}, "OPENAI_BASE_URL is not set"),
        ({"OPENAI_BASE_URL": "api.openai.com/v1"}, "must begin with https://"),
        ({"OPENAI_BASE_URL": "https://\x01"}, "is not a URL"),
        ({"OPENAI_BASE_URL": f"https://me:{KEY}@host/v1"}, "user name or password"),
        ({"OPENAI_API_KEY": f"{KEY}\nx"}, "OPENAI_API_KEY holds characters"),
        ({"OPENAI_MODEL": ""}, "OPENAI_MODEL"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not_shown(tmp_path, change, told):
    environ = {
        "OPENAI_BASE_URL": "https://api.example/v1",
        "OPENAI_API_KEY": KEY,
        "OPENAI_MODEL": "m",
        **change,
    }
    with pytest.raises(ConfigError, match=told) as caught:
        answer_by_api(
            [example(1)],
            ChatSettings(allow_egress=True),
            cohorts=["mts"],
            cache=tmp_path / "cache.jsonl",
            environ=environ,
        )
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"concurrency": 0},
        {"retries": -1},
        {"timeout_seconds": 0},
        {"temperature": 2.5},
        {"limit_field": "limit"},
        {"usd_per_million_prompt": 1.0},
        {"usd_per_million_prompt": -1.0, "usd_per_million_completion": 1.0},
    ],
)
def test_a_wrong_setting_is_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong)).partition("_prompt")[0]):
        ChatSettings(**wrong)
