"""Clients of a stream as their users write them: a few lines each, which come back behind the last event they have."""

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import httpx
from httpx_sse import connect_sse
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

Event = dict[str, Any]
_AGAIN_SECONDS = 0.2


class Client(Protocol):
    """Somebody who follows a run."""

    def heard(self) -> list[Event]:
        """The events it has so far."""

    def done(self) -> bool:
        """Whether it has ended by itself."""


class Threaded:
    """A client in a thread, which `follow` runs with a list for its events."""

    def __init__(self, follow: Callable[[list[Event]], None]) -> None:
        self._heard: list[Event] = []
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(follow,), daemon=True)
        self._thread.start()

    def _run(self, follow: Callable[[list[Event]], None]) -> None:
        try:
            follow(self._heard)
        except BaseException as error:
            self._failure = error

    def heard(self) -> list[Event]:
        return list(self._heard)

    def done(self) -> bool:
        if self._failure is not None:
            raise AssertionError("the client has failed") from self._failure
        return not self._thread.is_alive()


def httpx_sse(url: str, headers: dict[str, str]) -> Threaded:
    """Python's httpx-sse: back with Last-Event-ID, until it gets 204."""

    def follow(heard: list[Event]) -> None:
        seen: dict[str, str] = {}
        with httpx.Client(timeout=60, trust_env=False) as client:
            while True:
                try:
                    with connect_sse(client, "GET", url, headers=headers | seen) as source:
                        if source.response.status_code == httpx.codes.NO_CONTENT:
                            return
                        for event in source.iter_sse():
                            seen = {"last-event-id": event.id}
                            heard.append({**event.json(), "lastEventId": event.id})
                except httpx.TransportError:
                    threading.Event().wait(_AGAIN_SECONDS)

    return Threaded(follow)


def websockets(url: str, headers: dict[str, str]) -> Threaded:
    """Python's websockets: back with `after`, until it gets 1000."""

    def follow(heard: list[Event]) -> None:
        after = ""
        while True:
            try:
                with connect(url + after, additional_headers=headers, proxy=None) as socket:
                    for message in socket:
                        event = json.loads(message)
                        after = f"&after={event['id']}"
                        heard.append(event)
                    return
            except (ConnectionClosed, InvalidHandshake, OSError, EOFError):
                threading.Event().wait(_AGAIN_SECONDS)

    return Threaded(follow)


def node(script: Path, url: str, headers: dict[str, str]) -> Threaded:
    """A script of this directory that prints events."""

    def follow(heard: list[Event]) -> None:
        environ = {**os.environ, "AUTHORIZATION": headers.get("authorization", "")}
        command = ["node", str(script), url]
        with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            heard.extend(json.loads(line) for line in process.stdout)
        assert process.returncode == 0

    return Threaded(follow)


class Page:
    """A way to follow of a page in a browser (`page.js`)."""

    def __init__(self, page: Any, way: str) -> None:
        self._page, self._way = page, way

    def heard(self) -> list[Event]:
        found: list[Event] = self._page.evaluate("way => window.story.heard[way]", self._way)
        return found

    def done(self) -> bool:
        return bool(self._page.evaluate("way => window.story.closed[way]", self._way))
