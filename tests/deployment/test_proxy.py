"""The proxy: sites reach the fleet endpoints and nothing else. A real nginx before a stand-in."""

import shutil
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from deployment_toys import found, study_of, wait_until

from fedmedlora.config_deployment import load_coordinator
from fedmedlora.federation.deployment.layout import CoordinatorFolder

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None, reason="nginx is not installed here: the proxy is not tested"
)

#: Of a site's SuperNode.
FLEET = (
    "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages",
    "get-run", "get-fab", "push-object", "pull-object", "confirm-message-received",
)  # fmt: skip


PIECE = 100_000


@dataclass(frozen=True)
class Proxy:
    """Where it is, whom it is known by, and what came through.

    Attributes:
        address: host:port.
        authority: file of the certificate that its own is signed by.
        reached: paths that reached what stands behind it.
        sent: bytes of each answer that were taken from what stands behind it.
    """

    address: str
    authority: Path
    reached: list
    sent: list


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    """nginx before something that takes whatever reaches it."""
    made, _ = found(tmp_path_factory.mktemp("federation"), study_of(), proxy="nginx")
    folder = CoordinatorFolder(made.folder)
    settings = load_coordinator(folder.settings)
    reached, sent = [], []

    class Behind(BaseHTTPRequestHandler):
        def do_POST(self):
            said = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            reached.append(self.path)
            wanted = int(said.removeprefix(b"want ")) if said.startswith(b"want ") else 0
            self.send_response_only(200)
            self.send_header("Content-Length", str(wanted))
            self.end_headers()
            sent.append(0)
            for _ in range(wanted // PIECE):
                self.wfile.write(bytes(PIECE))
                sent[-1] += PIECE

        do_GET = do_PUT = do_DELETE = do_POST

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", settings.superlink_port), Behind)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder.keys / "server.pem", folder.keys / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder.state.mkdir(exist_ok=True)
    folder.logs.mkdir()
    command = ["nginx", "-p", str(folder.state), "-c", str(folder.proxy)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def listens():
        assert process.poll() is None, "nginx has ended"
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", settings.port)) == 0

    try:
        wait_until(listens, seconds=20, what="proxy")
        yield Proxy(f"localhost:{settings.port}", folder.authority, reached, sent)
    finally:
        process.terminate()
        process.wait(timeout=20)
        server.shutdown()


def asked(proxy, path, *, method="POST", content=b"x"):
    """The status of a request, sent as it is written, and what of it came through."""
    address, authority, reached = proxy.address, proxy.authority, proxy.reached
    reached.clear()
    host, port = address.split(":")
    context = ssl.create_default_context(cafile=str(authority))
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as line,
    ):
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n"
        line.sendall(f"{head}Connection: close\r\n\r\n".encode() + content)
        answer = line.makefile("rb").readline().split()
    return int(answer[1]), list(reached)


@pytest.mark.parametrize("name", FLEET)
def test_a_site_reaches_every_endpoint_of_the_fleet_api(proxy, name):
    assert asked(proxy, f"/v1/fleet/{name}") == (200, [f"/v1/fleet/{name}"])


def test_a_large_piece_of_an_adapter_passes(proxy):
    assert asked(proxy, "/v1/fleet/push-object", content=bytes(30_000_000))[0] == 200


def test_what_a_slow_site_has_not_read_yet_waits_at_the_superlink_not_on_disk(proxy):
    context = ssl.create_default_context(cafile=str(proxy.authority))
    seen = []

    def stands_still():
        """It does when the site reads nothing, unless the proxy takes all."""
        seen.append(proxy.sent[-1])
        return seen[-5:] == [seen[-1]] * 5 and seen[-1] > 0

    with (
        httpx.Client(verify=context, timeout=60) as client,
        client.stream(
            "POST", f"https://{proxy.address}/v1/fleet/pull-object", content=b"want 30000000"
        ) as answer,
    ):
        wait_until(stands_still, seconds=60, what="standstill")
        assert proxy.sent[-1] < 30_000_000
        got = sum(len(piece) for piece in answer.iter_raw())
    assert got == 30_000_000


def flowers_paths():
    """Every path that the SuperLink serves."""
    from fastapi.routing import iter_route_contexts
    from flwr.superlink.main import create_app

    return {str(context.path) for context in iter_route_contexts(create_app().routes)}


def test_nothing_else_that_the_superlink_serves_can_be_reached(proxy):
    served = flowers_paths()
    others = sorted(served - {f"/v1/fleet/{name}" for name in FLEET})
    assert {f"/v1/fleet/{name}" for name in FLEET} <= served
    assert len(others) > 50
    through = {path: asked(proxy, path) for path in others}
    assert {path: told for path, told in through.items() if told[1]} == {}
    assert {status for status, _ in through.values()} <= {403, 404}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/fleet",
        "/v1/fleet/",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/..%2fcontrol/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "//v1/control/start-run",
        "/v1/control/../fleet/pull-messages",
        "/v1//fleet/pull-messages",
        "/v1/fleet/pull-messages/../../control/start-run",
        "/v1/fleet/pull-messages?x=/v1/control/start-run",
        "/v1/fleet/pull-messages;/v1/control/start-run",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/V1/Control/start-run",
        "https://localhost/v1/control/start-run",
    ],
)
def test_no_way_of_writing_a_path_leads_around_it(proxy, path):
    status, reached = asked(proxy, path)
    assert reached == []
    assert status in (400, 403, 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "CONNECT", "TRACE"])
def test_nothing_but_post_passes(proxy, method):
    status, reached = asked(proxy, "/v1/fleet/pull-messages", method=method)
    assert reached == []
    assert status in (400, 403, 405)


def test_a_client_that_does_not_speak_tls_gets_nothing(proxy):
    proxy.reached.clear()
    assert httpx.post(f"http://{proxy.address}/v1/fleet/pull-messages").status_code == 400
    assert proxy.reached == []


def test_the_proxy_does_not_say_which_version_it_is(proxy):
    context = ssl.create_default_context(cafile=str(proxy.authority))
    answer = httpx.post(f"https://{proxy.address}/", verify=context)
    assert answer.headers["server"] == "nginx"
