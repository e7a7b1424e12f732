"""Clients that others have written follow a real run, through a server that is killed, and end with its exact log."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.server import API, PATIENCE_SECONDS, LocalServer, log_text, poll
from tests.interop.clients import Client, Event, Page, httpx_sse, node, websockets
from tests.interop.conftest import serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent
PARAMETERS = {"lines": 300, "pause_ms": 20}
CLIENTS = ("httpx-sse", "websockets", "eventsource of npm", "ws of npm", "EventSource", "WebSocket")
CURLS = ("-N", "-N --http1.0", "-N -H Accept:text/plain")
NEVER = "a-ticket-that-nobody-may-see"


@dataclass
class Story:
    """A run that was followed by all clients at once, while its server was killed and started again.

    Attributes:
        said: all that the server has written, over both of its lives.
        heard: the events of each client.
        printed: what each curl wrote, which came when the server was back.
        tickets: all that were used.
        elsewhere: what pages of another origin got, of one that may and one that may not.
        missing: why a client was not there.
    """

    auth: str
    log: str = ""
    said: str = ""
    heard: dict[str, list[Event]] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)
    tickets: list[str] = field(default_factory=list)
    elsewhere: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def needs(self, client: str) -> None:
        """Skip the test where a client was not there."""
        if client in self.missing:
            pytest.skip(self.missing[client])


class Telling:
    """How the story happens."""

    def __init__(self, server: LocalServer, auth: str) -> None:
        self.server = server
        self.story = Story(auth)
        self.headers = server.authorization if auth == "tokens" else {}
        self.token = self.headers.get("authorization", "").removeprefix("Bearer ")
        self.run_id = self._start()
        self.address = f"{server.url}{API}/stream?run_id={self.run_id}"
        self.clients: dict[str, Client] = {
            "httpx-sse": httpx_sse(self.address, self.headers),
            "websockets": websockets(self.address.replace("http", "ws", 1), self.headers),
        }

    def _start(self) -> str:
        body = {"pipeline": "tests/pipelines/chatty.nf", "parameters": PARAMETERS}
        answer = httpx.post(f"{self.server.url}{API}/run", json=body, headers=self.headers, timeout=60)
        assert answer.status_code == httpx.codes.CREATED, answer.text
        run_id: str = answer.json()["run_id"]
        return run_id

    def enter_node(self, scripts: Path) -> None:
        """The clients of npm's packages."""
        self.clients |= {
            "eventsource of npm": node(scripts / "eventsource.js", self.address, self.headers),
            "ws of npm": node(scripts / "ws.js", self.address.replace("http", "ws", 1), self.headers),
        }

    def enter_browser(self, browser: "Browser") -> None:
        """A page that follows in both ways."""
        self.page = browser.new_page()
        self.page.goto(self.server.url + "/healthz")
        asked = {"api": self.server.url + API, "token": self.token, "runId": self.run_id}
        self.page.evaluate((SCRIPTS / "page.js").read_text("utf-8"), asked)
        self.clients |= {"EventSource": Page(self.page, "eventsource"), "WebSocket": Page(self.page, "websocket")}

    def crash(self) -> None:
        """When everybody has come to the middle, the server is killed and started again."""
        for name, client in self.clients.items():
            for _ in poll(f"{name} to hear line 50"):
                assert not client.done(), (name, client.heard()[-3:])
                if any(event["type"] == "log" and event["data"]["line"] == "line 50" for event in client.heard()):
                    break
        self.server.kill()
        self.server.start()

    def end(self) -> None:
        """Everybody follows to the end, and some who came only now."""
        shown = [word for item in self.headers.items() for word in ("-H", ": ".join(item))]
        commands = {way: ["curl", "-sS", *way.split(), *shown, self.address] for way in CURLS if shutil.which("curl")}
        curls = {way: subprocess.Popen(command, stdout=subprocess.PIPE) for way, command in commands.items()}
        for name, client in self.clients.items():
            for _ in poll(f"{name} to end"):
                if client.done():
                    break
            self.story.heard[name] = client.heard()
        for way, curl in curls.items():
            self.story.printed[way] = curl.communicate(timeout=PATIENCE_SECONDS)[0].decode()
        self.story.log = log_text(self.server.state_dir, self.run_id)

    def visit(self, browser: "Browser", origins: dict[str, str]) -> None:
        """Pages from elsewhere ask."""
        self.story.tickets += self.page.evaluate("() => window.story.tickets")
        for name, origin in origins.items():
            tickets = [self._ticket() for _ in range(2)]
            page = browser.new_page()
            page.goto(origin)
            asked = {"api": self.server.url + API, "token": self.token, "runId": self.run_id, "tickets": tickets}
            self.story.elsewhere[name] = page.evaluate((SCRIPTS / "elsewhere.js").read_text("utf-8"), asked)
            self.story.tickets += tickets
            page.close()
        self.page.close()

    def _ticket(self) -> str:
        answer = httpx.post(f"{self.server.url}{API}/stream/ticket", headers=self.headers)
        ticket: str = answer.json()["ticket"]
        return ticket

    def stumble(self) -> None:
        """Handshakes with a ticket fail, in one way or another."""
        host, _, port = self.server.url.removeprefix("http://").partition(":")
        for request in bad_handshakes(NEVER):
            with socket.create_connection((host, int(port)), PATIENCE_SECONDS) as peer:
                peer.sendall(request)
                peer.recv(1)


@pytest.fixture(scope="module", params=["off", "tokens"])
def story(request: pytest.FixtureRequest) -> Story:
    """The story, with and without authentication."""
    auth: str = request.param
    # At DEBUG libraries tell more than anybody wants to read: not a ticket must be among it.
    settings = {"PORT": str(free_port()), "AUTH": auth, "LOG_LEVEL": "DEBUG"}
    with pages() as own, pages() as foreign, serving(**settings, CORS_ORIGINS=own) as server:
        telling = Telling(server, auth)
        told = telling.story
        try:
            telling.enter_node(request.getfixturevalue("node"))
        except pytest.skip.Exception as skipped:
            told.missing |= dict.fromkeys(("eventsource of npm", "ws of npm"), str(skipped))
        try:
            telling.enter_browser(request.getfixturevalue("browser"))
        except pytest.skip.Exception as skipped:
            told.missing |= dict.fromkeys(("EventSource", "WebSocket"), str(skipped))
        telling.crash()
        telling.end()
        if not told.missing.get("EventSource"):
            telling.visit(request.getfixturevalue("browser"), {"own": own, "foreign": foreign})
        telling.stumble()
        server.stop()
        told.said = "".join(server.output)
    return told


def free_port() -> int:
    """A port to come back to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def pages() -> Iterator[str]:
    """The origin of a server that has an empty page and nothing else."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def bad_handshakes(ticket: str) -> list[bytes]:
    """Requests that bring a ticket and fail in one way or another."""
    lines = (
        f"GET {API}/stream?ticket={ticket} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
    )
    good = "".join(line + "\r\n" for line in (*lines, "")).encode()
    return [
        good,
        good.replace(b"Version: 13", b"Version: 12"),
        good.replace(b"Key: AAAA", b"Key: "),
        good.replace(b"GET ", b"POST "),
        good.replace(b" HTTP/1.1", b" HTTP/1.0"),
        good.replace(b" HTTP/1.1", b" HTTP/9.9"),
        good.replace(b"Host: 127.0.0.1", b"Host: evil.test"),
        good.replace(b"Host: 127.0.0.1", b"Host: 127.0.0.1\r\nX-Odd: \xff\x01"),
        good.replace(b"Host: 127.0.0.1", b"Host: 127.0.0.1\r\nOrigin: https://evil.test"),
        good.replace(b"ticket=", b"after=nonsense&ticket="),
        good.replace(b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n"),
        good.replace(b"Upgrade: websocket\r\nConnection: Upgrade", b"Connection: close"),
    ]


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_ends_with_the_exact_log(story: Story, client: str) -> None:
    """Each line once, in order, though the server was killed in the middle; the ids differ, the last event ends it."""
    story.needs(client)
    events = story.heard[client]
    lines = logs(events)
    assert "".join(event["data"]["line"] + "\n" for event in lines) == story.log
    assert story.log.count("\nline ") == PARAMETERS["lines"]
    assert len({event["id"] for event in lines}) == len(lines)
    kinds = [event["type"] for event in events]
    assert (kinds[0], kinds.index("complete")) == ("status", len(kinds) - 1)
    assert set(kinds) <= {"log", "status", "progress", "complete"}
    assert all(event.get("lastEventId", event["id"]) == event["id"] for event in events)


def test_all_clients_have_the_same_lines(story: Story) -> None:
    """With the same ids and times, over whichever transport, before and after the crash."""
    told = [logs(events) for events in story.heard.values()]
    assert all(lines == told[0] for lines in told)


def logs(events: list[Event]) -> list[Event]:
    """The log events among some, without what a client adds."""
    return [{key: event[key] for key in event if key != "lastEventId"} for event in events if event["type"] == "log"]


def test_curl_prints_the_log(story: Story) -> None:
    """`curl -N`: the log and nothing else, by HTTP/1.1 and 1.0."""
    if not story.printed:
        pytest.skip("there is no curl on this machine")
    assert story.printed == dict.fromkeys(CURLS, story.log)


def test_pages_of_other_origins(story: Story) -> None:
    """One in CORS_ORIGINS gets everything, with a token or a ticket; another gets nothing, whatever it shows."""
    story.needs("EventSource")
    expected = logs(story.heard["httpx-sse"])
    own, foreign = story.elsewhere["own"], story.elsewhere["foreign"]
    assert [way for way, told in own.items() if logs(told.get("events", [])) != expected] == []
    assert own["fetch"]["id"]  # a header that CORS does not show by itself
    refused = {way: told["error"].partition(" ")[0::2] for way, told in foreign.items()}
    assert refused["fetch"] == ("TypeError:", "Failed to fetch")
    assert refused["eventsource"] == ("Error:", "refused: an error and nothing else")
    assert refused["websocket"][1].startswith("refused: 4403 A page from elsewhere: ")


def test_no_ticket_is_ever_logged(story: Story) -> None:
    """Neither when it is used nor in a handshake that fails; the page took a new one each time it came back."""
    if story.auth == "tokens" and "EventSource" not in story.missing:
        assert len(set(story.tickets)) >= 2 + 2 + 4
    assert story.said.count('"event":"answered"') > 10
    assert [ticket for ticket in (NEVER, *story.tickets) if ticket in story.said] == []
