"""What can go wrong with an API endpoint, over real HTTP: waiting, giving up, going on later."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from chat_server import KEY, SECRET, completion, example, failure, serving

from fedmedlora.errors import ConfigError, EndpointError, RunError
from fedmedlora.model.chat import ChatSettings, answer_by_api

NEVER = (KEY, SECRET, "in-the-query", "Bearer")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def ask(server, examples, tmp_path, *, slept=None, **settings):
    return answer_by_api(
        examples,
        ChatSettings(**{"model": "toy", "allow_egress": True, "concurrency": 1, **settings}),
        cohorts=["mts"],
        cache=tmp_path / "cache.jsonl",
        environ=server.environ,
        sleep=([] if slept is None else slept).append,
    )


PAGE = f"<html><body>{SECRET}</body></html>"


@pytest.mark.parametrize(
    ("reply", "told", "requests"),
    [
        ((401, failure()), "the key is refused (401): set OPENAI_API_KEY", 1),
        ((403, failure()), "access is forbidden (403)", 1),
        ((404, failure("model_not_found")), "there is no model 'toy', or OPENAI_BASE_URL", 1),
        ((404, PAGE), "there is no model 'toy', or OPENAI_BASE_URL", 1),
        ((400, failure()), "refuses example 'd1:entities:0-8' (400): check model", 1),
        ((400, failure("context_length_exceeded")), "(400): the prompt and max_tokens", 1),
        ((400, failure("unsupported_parameter")), "change temperature, seed or limit_field", 1),
        ((302, PAGE, {"Location": "https://elsewhere.example"}), "redirects elsewhere (302)", 1),
        ((429, failure()), "too many requests (429), 3 times in a row: lower concurrency", 3),
        ((429, failure("insufficient_quota")), "the account's quota is used up", 1),
        ((429, failure(), {"Retry-After": "3600"}), "asks to wait 3600 s", 1),
        ((500, failure()), "it fails (500), 3 times in a row: try again later", 3),
        ((503, PAGE), "it fails (503), 3 times in a row", 3),
        ((200, PAGE), "the answer is a web page, not JSON: check OPENAI_BASE_URL", 1),
        ((200, ""), "the answer is empty (200)", 1),
        ((200, SECRET), "the answer is not a completion", 1),
        ((200, json.dumps([SECRET])), "the answer is not a completion", 1),
        ((200, json.dumps({"choices": []})), "the answer is not a completion", 1),
        ((200, completion(None)), "the answer is not a completion", 1),
        ((200, completion([SECRET])), "the answer is not a completion", 1),
        ("BREAK", "the connection broke (RemoteProtocolError), 3 times in a row", 3),
    ],
)
def test_a_failure_says_which_host_and_what_to_do_and_nothing_of_notes(
    tmp_path, reply, told, requests
):
    with serving(lambda prompt, number: reply) as server:
        with pytest.raises(EndpointError) as caught:
            ask(server, [example(1)], tmp_path, retries=2)
        assert len(server.requests) == requests
    message = str(caught.value)
    assert message.startswith(f"{server.host}: ")
    assert told in message
    assert message.endswith(
        f"; 0 of 1 answers are kept in {tmp_path / 'cache.jsonl'} and are not asked for again"
    )
    assert not [word for word in NEVER if word in message]
    assert caught.value.__suppress_context__


def test_silence_counts_as_a_failure(tmp_path):
    with (
        serving(lambda prompt, number: "HANG") as server,
        pytest.raises(EndpointError, match=r"no answer within 0\.2 s, 2 times in a row"),
    ):
        ask(server, [example(1)], tmp_path, retries=1, timeout_seconds=0.2)


def test_nobody_there_counts_as_a_failure(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        with serving(lambda prompt, number: "x") as server:
            server.environ["OPENAI_BASE_URL"] = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
            with pytest.raises(EndpointError, match=r"no connection, 2 times.*OPENAI_BASE_URL"):
                ask(server, [example(1)], tmp_path, retries=1)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_a_failure_that_passes_is_waited_out(tmp_path, status):
    slept = []
    with serving(lambda p, n: (status, failure()) if n < 4 else "No pain.") as server:
        result = ask(server, [example(1)], tmp_path, slept=slept)
    assert result.answers == ["No pain."]
    assert (result.cost.requests, result.cost.retries) == (4, 3)
    # Half to all of 1, 2 and 4 s.
    assert len(slept) == 3
    assert all(0.5 * 2**n <= wait <= 2**n for n, wait in enumerate(slept))


def test_a_broken_connection_is_tried_again(tmp_path):
    with serving(lambda p, n: "BREAK" if n == 1 else "No pain.") as server:
        assert ask(server, [example(1)], tmp_path).answers == ["No pain."]


@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_the_endpoint_asks_for_is_kept(tmp_path, status):
    slept = []
    limited = (status, failure(), {"Retry-After": "17"})
    with serving(lambda p, n: limited if n < 3 else "x") as server:
        ask(server, [example(1)], tmp_path, slept=slept)
    assert slept == [17, 17]


def test_the_wait_may_be_told_as_a_date(tmp_path):
    slept = []

    def reply(prompt, number):
        date = formatdate(time.time() + 100, usegmt=True)
        return (429, failure(), {"Retry-After": date}) if number == 1 else "x"

    with serving(reply) as server:
        ask(server, [example(1)], tmp_path, slept=slept)
    assert 50 < slept[0] <= 100


@pytest.mark.parametrize("header", ["soon", "-5", "nan", "1e9", "Mon, 99 Foo 0000"])
def test_a_wait_that_is_none_is_the_usual_one(tmp_path, header):
    slept = []
    limited = (429, failure(), {"Retry-After": header})
    with serving(lambda p, n: limited if n == 1 else "x") as server:
        ask(server, [example(1)], tmp_path, slept=slept)
    assert 0.5 <= slept[0] <= 1


def test_what_was_answered_before_a_failure_is_kept_and_not_asked_again(tmp_path):
    four = [example(n) for n in range(4)]
    broken = True

    def reply(prompt, number):
        return (401, failure()) if broken and f"{SECRET} 2" in prompt else f"for {prompt[-12:]}"

    with serving(reply) as server:
        with pytest.raises(EndpointError, match="2 of 4 answers are kept in"):
            ask(server, four, tmp_path)
        broken = False
        before = len(server.requests)
        told = []
        result = answer_by_api(
            four,
            ChatSettings(model="toy", allow_egress=True, concurrency=1),
            cohorts=["mts"],
            cache=tmp_path / "cache.jsonl",
            on_done=told.append,
            environ=server.environ,
        )
        assert server.prompts[before:] == [four[2].prompt, four[3].prompt]
        asked = len(server.requests)
        again = ask(server, four, tmp_path)
        assert len(server.requests) == asked
    assert told == [2, 3, 4]
    assert again.answers == result.answers == [f"for {one.prompt[-12:]}" for one in four]
    assert (result.cost.paid.answers, result.cost.cached.answers) == (2, 2)
    assert (again.cost.paid.answers, again.cost.cached.answers) == (0, 4)


def test_requests_under_way_when_another_fails_are_kept(tmp_path):
    both, failed = threading.Barrier(2, timeout=20), threading.Event()

    def reply(prompt, number):
        both.wait()
        if f"{SECRET} 0" in prompt:
            failed.set()
            return 401, failure()
        failed.wait(20)
        return "x"

    with (
        serving(reply) as server,
        pytest.raises(EndpointError, match="1 of 2 answers are kept"),
    ):
        ask(server, [example(0), example(1)], tmp_path, concurrency=2)


def test_nobody_waits_on_when_the_run_has_failed(tmp_path):
    waiting = threading.Event()

    def reply(prompt, number):
        if f"{SECRET} 0" in prompt:
            waiting.set()
            return 429, failure(), {"Retry-After": "250"}
        waiting.wait(20)
        return 401, failure()

    with serving(reply) as server:
        with pytest.raises(EndpointError, match="the key is refused"):
            answer_by_api(
                [example(0), example(1)],
                ChatSettings(model="toy", allow_egress=True, concurrency=2),
                cohorts=["mts"],
                cache=tmp_path / "cache.jsonl",
                environ=server.environ,
            )
        assert len(server.requests) == 2


@pytest.mark.parametrize("proxy", [f"gopher://me:{KEY}@proxy:1", f"http://me:{KEY}@proxy:port"])
def test_a_proxy_that_is_none_is_told_without_its_password(tmp_path, monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with (
        serving(lambda prompt, number: "x") as server,
        pytest.raises(ConfigError, match="HTTPS_PROXY, HTTP_PROXY, ALL_PROXY") as caught,
    ):
        ask(server, [example(1)], tmp_path)
    assert KEY not in str(caught.value)


def test_after_a_kill_in_the_middle_only_the_missing_are_asked(tmp_path):
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from chat_server import example\n"
        "from fedmedlora.model.chat import ChatSettings, answer_by_api\n"
        "answer_by_api([example(n) for n in range(4)],\n"
        "    ChatSettings(model='toy', allow_egress=True, concurrency=1),\n"
        "    cohorts=['mts'], cache=Path(sys.argv[1]), environ=dict(os.environ))\n"
    )
    third = threading.Event()
    killed = False

    def reply(prompt, number):
        if not killed and f"{SECRET} 2" in prompt:
            third.set()
            return "HANG"
        return "x"

    with serving(reply) as server:
        paths = [str(Path(__file__).parent), *sys.path]
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "cache.jsonl")],
            env={**os.environ, **server.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        try:
            assert third.wait(60)
        finally:
            child.kill()
            assert child.wait() == -signal.SIGKILL
        killed = True
        before = len(server.requests)
        result = ask(server, [example(n) for n in range(4)], tmp_path)
        assert server.prompts[before:] == [example(2).prompt, example(3).prompt]
    assert result.answers == ["x"] * 4


def test_a_torn_or_damaged_line_of_the_cache_is_asked_for_again(tmp_path):
    cache = tmp_path / "cache.jsonl"
    with serving(lambda prompt, number: f"{number}: {prompt[-12:]}") as server:
        four = [example(n) for n in range(4)]
        first = ask(server, four, tmp_path)
        lines = cache.read_bytes().splitlines(keepends=True)
        assert len(lines) == 4
        wrong_type = lines[1].replace(b'"cut": false', b'"cut": 0')
        assert wrong_type != lines[1]
        cache.write_bytes(b"\xff\xfe" + lines[0] + wrong_type + lines[2] + lines[3][:-9])
        before = len(server.requests)
        second = ask(server, four, tmp_path)
        assert server.prompts[before:] == [four[0].prompt, four[1].prompt, four[3].prompt]
        third = ask(server, four, tmp_path)
        assert len(server.requests) == before + 3
    assert second.cost.damaged == 3
    assert second.answers[2] == first.answers[2]
    assert third.answers == second.answers


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"temperature": 0.5}, {"max_tokens": 9}, {"seed": 1}],
)
def test_an_answer_to_another_model_or_other_settings_is_no_answer(tmp_path, change):
    with serving(lambda prompt, number: "x") as server:
        ask(server, [example(1)], tmp_path)
        ask(server, [example(1)], tmp_path, **change)
        ask(server, [example(1)], tmp_path, timeout_seconds=9, usd_per_million_prompt=1.0,
            usd_per_million_completion=1.0)  # fmt: skip
    assert len(server.requests) == 2


def test_neither_key_nor_prompt_is_in_the_cache(tmp_path):
    with serving(lambda prompt, number: "No pain.") as server:
        ask(server, [example(1)], tmp_path)
    text = (tmp_path / "cache.jsonl").read_text()
    assert "No pain." in text
    assert not [word for word in NEVER if word in text]


def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "cache.jsonl").mkdir()
    with (
        serving(lambda prompt, number: "x") as server,
        pytest.raises(RunError, match=r"cache\.jsonl: cannot be read"),
    ):
        ask(server, [example(1)], tmp_path)
