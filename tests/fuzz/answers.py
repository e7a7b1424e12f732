"""What a server sent over one connection, by the letter of RFC 9112; and what it was asked, as h11 reads that."""

import json
import re
from dataclasses import dataclass

import h11

_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [ -~]*")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t -~\x80-\xff]*)")
_SIZE = re.compile(rb"[0-9a-fA-F]+")
_BODILESS = (204, 304)


@dataclass
class Answer:
    """One answer; `whole`: it came to its end."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    @property
    def is_stream(self) -> bool:
        """Whether it may go on for as long as a run does."""
        return self.status == 101 or (self.status == 200 and "x-accel-buffering" in self.headers)


def taken_apart(raw: bytes) -> list[Answer]:
    """The answers; whatever is none fails."""
    found: list[Answer] = []
    while raw:
        head, parted, raw = raw.partition(b"\r\n\r\n")
        status_line, *lines = head.split(b"\r\n")
        status = _STATUS.fullmatch(status_line)
        assert status, status_line[:200]
        assert parted, head[-200:]
        headers: dict[str, str] = {}
        for line in lines:
            header = _HEADER.fullmatch(line)
            assert header, line[:200]
            name = header[1].decode().lower()
            assert name not in headers or name not in ("content-length", "transfer-encoding"), headers
            headers[name] = header[2].decode("latin-1")
        code = int(status[1])
        if code == 101:
            return [*found, Answer(code, headers, raw, whole=False)]
        body, raw, whole = _body(code, headers, raw)
        if code != 100:
            found.append(Answer(code, headers, body, whole))
    return found


def _body(code: int, headers: dict[str, str], raw: bytes) -> tuple[bytes, bytes, bool]:
    # To HEAD the next answer comes in the place of a body; no body of ours begins so.
    if code < 200 or code in _BODILESS or raw.startswith(b"HTTP/1.1 "):
        return b"", raw, True
    assert ("content-length" in headers) != ("transfer-encoding" in headers), headers
    if "content-length" in headers:
        size = int(headers["content-length"])
        return raw[:size], raw[size:], len(raw) >= size or not raw
    body = b""
    while True:
        line, parted, rest = raw.partition(b"\r\n")
        if not parted:
            return body, b"", not raw and not body
        assert _SIZE.fullmatch(line), line[:200]
        size = int(line, 16)
        part, raw = rest[:size], rest[size + 2 :]
        body += part
        if len(rest) < size + 2:
            return body, b"", False
        assert rest[size : size + 2] == b"\r\n"
        if size == 0:
            return body, raw, True


def assert_a_problem(answer: Answer) -> None:
    """A refusal says what it is."""
    if answer.headers["content-type"].startswith("text/plain"):  # of the WebSocket library, to a handshake that is none
        assert answer.status in (400, 405, 426), answer
        return
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    if not answer.body:  # to HEAD
        return
    problem = json.loads(answer.body)
    assert problem["status"] == answer.status
    assert problem["type"].startswith("urn:nextflow-controller:problem:")
    assert problem["title"]
    assert problem["detail"]


def asked(wire: bytes) -> list[tuple[str, bytes]]:
    """The requests that another server would see, up to the first that it would refuse: methods and targets."""
    found: list[tuple[str, bytes]] = []
    request = None
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    try:
        other.receive_data(wire)
        while True:
            event = other.next_event()
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                found.append((request.method.decode(), bytes(request.target)))
                other.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                other.send(h11.EndOfMessage())
                if other.our_state is not h11.DONE:
                    return found
                other.start_next_cycle()
            elif not isinstance(event, h11.Data):
                return found
    except (h11.RemoteProtocolError, h11.LocalProtocolError):
        return found
