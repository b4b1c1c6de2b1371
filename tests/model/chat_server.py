"""A chat endpoint on this machine for the tests: real HTTP, scripted answers, requests noted."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fedmedlora.tasks.example import Example

KEY = "sk-never-shown-9137"
#: In every prompt and every body: no message and no log may hold it.
SECRET = "Mrs Smith has cramps"


def completion(text, *, finish="stop", usage=(10, 5), **message):
    """The body of a chat completion."""
    body = {
        "model": "toy-2026",
        "choices": [{"message": {"content": text, **message}, "finish_reason": finish}],
    }
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return json.dumps(body)


def failure(code=None):
    """The body of an error, as endpoints write it: it repeats the prompt."""
    return json.dumps({"error": {"message": SECRET, "code": code}})


class ChatServer:
    """Answers each request by ``reply``: (prompt, how many requests had this prompt) -> answer.

    An answer is a text (a completion of it), or (status, body) or (status, body, headers), or
    "HANG" (nothing until the server stops) or "BREAK" (the connection is closed).
    """

    def __init__(self, reply):
        self.reply = reply
        self.requests = []
        self.paths = []
        self.authorization = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self.ended = threading.Event()

    @property
    def prompts(self):
        return [request["messages"][0]["content"] for request in self.requests]

    def take(self, path, headers, body):
        with self._lock:
            request = json.loads(body)
            self.requests.append(request)
            self.paths.append(path)
            self.authorization.append(headers.get("Authorization"))
            prompt = request["messages"][0]["content"]
            number = self.prompts.count(prompt)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        answer = self.reply(prompt, number)
        with self._lock:
            self._at_once -= 1
        return answer


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = server.take(self.path, self.headers, body)
            if answer == "HANG":
                server.ended.wait(60)
                self.close_connection = True
                return
            if answer == "BREAK":
                self.close_connection = True
                return
            if isinstance(answer, str):
                answer = (200, completion(answer))
            status, text, *headers = answer
            data = text.encode()
            self.send_response(status)
            for name, value in headers[0].items() if headers else ():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    return Handler


@contextmanager
def serving(reply):
    """A running ``ChatServer`` and the environment that leads to it."""
    server = ChatServer(reply)
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    server.host = f"127.0.0.1:{http.server_port}"
    server.environ = {
        "OPENAI_BASE_URL": f"http://{server.host}/v1?secret=in-the-query",
        "OPENAI_API_KEY": KEY,
    }
    try:
        yield server
    finally:
        server.ended.set()
        http.shutdown()
        http.server_close()
        thread.join()


def example(number, *, source="No pain.", prompt=None):
    """A question about the whole of a toy note."""
    return Example(
        id=f"d{number}:entities:0-{len(source)}",
        task="entities",
        document=f"d{number}",
        start=0,
        end=len(source),
        prompt=prompt or f"{SECRET} {number}\n{source}\n",
        source=source,
        answer=source,
        openings=('<span class="problem">',),
        heads=(),
    )
