"""`extract --backend vllm` against a real local HTTP server that speaks the protocol."""

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from test_extract import NOTE, save_backbone, save_trained

from fedmedlora.cli import run_command
from fedmedlora.corpus.jsonl import read_jsonl

LORA = "ours"


class Server:
    """Marks "chest pain" and "Aspirin", and Aspirin's dosage; notes what it was asked."""

    def __init__(self, *, names=(LORA,), failures=0, body=None):
        self.names, self.failures, self.body = names, failures, body
        self.asked = []

    def complete(self, request):
        self.asked.append(request)
        if self.failures:
            self.failures -= 1
            return 503, {"error": {"message": request["prompt"]}}
        if self.body is not None:
            return 200, self.body
        asked, rest = request["prompt"].split("### text:\n")
        text = re.sub("<[^>]*>", "", rest.removesuffix("\n### marked:\n"))
        if "dosage" in asked:
            text = text.replace("81 mg", '<span class="dosage">81 mg</span>')
        else:
            for word, kind in (("chest pain", "problem"), ("Aspirin", "drug")):
                text = text.replace(word, f'<span class="{kind}">{word}</span>')
        usage = {"prompt_tokens": 9, "completion_tokens": 5}
        return 200, {"choices": [{"text": text, "finish_reason": "stop"}], "usage": usage}


@contextmanager
def serving(server):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply(200, {"data": [{"id": name} for name in ("base", *server.names)]})

        def do_POST(self):
            assert self.path == "/v1/completions"
            length = int(self.headers["Content-Length"])
            self.reply(*server.complete(json.loads(self.rfile.read(length))))

        def reply(self, status, body):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/v1"
    finally:
        http.shutdown()
        http.server_close()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm")
    return save_trained(folder / LORA, save_backbone(folder / "backbone", seed=0))


@pytest.fixture
def note(tmp_path):
    file = tmp_path / "note.txt"
    file.write_bytes(NOTE.encode())
    return file


def extract(monkeypatch, server, note, adapter, *more):
    with serving(server) as url:
        monkeypatch.setenv("VLLM_BASE_URL", url)
        out = note.with_suffix(".jsonl")
        code = run_command(
            ["extract", str(note), "--adapter", str(adapter), "--backend", "vllm",
             "--out", str(out), *more]
        )  # fmt: skip
    return code, out


def test_what_the_server_marks_is_found_in_the_note(monkeypatch, capsys, note, adapter):
    server = Server()
    code, out = extract(monkeypatch, server, note, adapter)
    assert code == 0
    assert "entities: 2 of 2 tags stand at words of the note; 0 of" in capsys.readouterr().err
    [document] = read_jsonl(out)
    assert document.text == NOTE
    assert {(NOTE[e.start : e.end], e.type) for e in document.entities} == {
        ("chest pain", "problem"), ("Aspirin", "drug"), ("81 mg", "dosage"),
    }  # fmt: skip
    [relation] = document.relations
    by_id = {entity.id: entity for entity in document.entities}
    assert by_id[relation.head].type == "drug"
    assert {(asked["model"], asked["temperature"]) for asked in server.asked} == {(LORA, 0.0)}
    assert all(asked["max_tokens"] > 64 for asked in server.asked)


def test_what_is_meant_for_this_machine_passes_by_every_proxy(monkeypatch, note, adapter):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    code, _ = extract(monkeypatch, server, note, adapter)
    assert code == 0
    assert server.asked


def test_a_server_that_fails_for_a_moment_is_asked_again(monkeypatch, note, adapter):
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)
    server = Server(failures=2)
    code, out = extract(monkeypatch, server, note, adapter)
    assert code == 0
    assert out.exists()


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (Server(names=("other",)), "has no adapter 'ours', only base, other"),
        (Server(body={"choices": []}), "not a completion"),
        (Server(body=b"<html>"), "web page"),
    ],
)
def test_a_server_that_cannot_answer_is_named(monkeypatch, capsys, note, adapter, server, said):
    code, out = extract(monkeypatch, server, note, adapter)
    told = capsys.readouterr().err
    assert code == 1
    assert said in told
    assert "chest" not in told
    assert not out.exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9/v1", "is the server running"),
        ("https://gpu.example.org/v1", "--allow-egress"),
        ("gpu", "must begin with https"),
    ],
)
def test_a_server_that_is_not_there_or_elsewhere(monkeypatch, capsys, note, adapter, url, said):
    monkeypatch.setenv("VLLM_BASE_URL", url)
    code = run_command(
        ["extract", str(note), "--adapter", str(adapter), "--backend", "vllm"]
    )  # fmt: skip
    assert code in (1, 2)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--lora", "x"],
        ["--allow-egress"],
        ["--backend", "vllm", "--backbone", "embedded"],
        ["--backend", "tgi"],
    ],
)
def test_options_that_do_not_fit_are_refused(capsys, note, adapter, options):
    assert run_command(["extract", str(note), "--adapter", str(adapter), *options]) != 0
    assert options[0] in capsys.readouterr().err
