"""Requests as bytes: mostly right, with a grain of what HTTP does not want, or what parsers read differently."""

from hypothesis import strategies as st

API = b"/api/v1/pipeline"
RUN_ID = b"run-aaaaaaaaaaaaaaac"
CURSOR = RUN_ID + b".1.1900000000000-0"

_ODD = [
    b"\x00",
    b"\r",
    b"\n",
    b"\x1b[31m",
    b"\xff",
    b"%00",
    b"%0d%0a",
    b"%2e%2e/",
    b"%ff",
    b"\xe2\x80\xa8",
    b"..",
    b"//",
]


def some(usual: list[bytes], odd: list[bytes], noise: int = 12) -> st.SearchStrategy[bytes]:
    """Mostly what is usual."""
    common = st.sampled_from(usual)
    return st.one_of(common, common, common, common, st.sampled_from(odd), st.binary(max_size=noise))


METHODS = some(
    [b"GET", b"GET", b"POST", b"DELETE", b"HEAD", b"OPTIONS"],
    [b"PUT", b"TRACE", b"CONNECT", b"PRI", b"get", b"GET GET", b"", b"G\x00T", b"GET\t", b"X" * 100],
)
QUERIES = some(
    [b"", b"", b"?follow=false", b"?run_id=" + RUN_ID, b"?run_id=" + RUN_ID + b"&follow=false&types=log&tail=5"],
    [
        b"?run_id=" + RUN_ID + b"&follow=false&after=" + CURSOR,
        b"?run_id=" + RUN_ID + b"&follow=false&timestamps=true",
        b"?after=" + RUN_ID + b".1.end",
        b"?after=" + CURSOR[:-1],
        b"?limit=1&limit=2",
        b"?limit=" + b"9" * 5000,
        b"?limit=%31&state=failed,failed&cursor=0000000000000000:" + RUN_ID,
        b"?state=" + b"failed," * 999,
        b"?tail=-1&follow=no&types=,",
        b"?run_id=..%2f..&ticket=" + b"t" * 200,
        b"?ticket=secret-ticket&follow=false",
        b"?" + b"&" * 999,
        b"?a[]=1&a[]=2;b=3&%=&=",
        b"?%00=%00&%ff=%ff&\xff",
        b"??#?",
    ],
)
PATHS = some(
    [API + path for path in (b"/run", b"/status", b"/active", b"/cancel", b"/history", b"/stream", b"/stream/ticket")],
    [
        b"/healthz",
        b"/readyz",
        b"/metrics",
        b"/docs",
        b"/openapi.json",
        b"/",
        b"",
        b"*",
        b"localhost:80",
        b"http://localhost" + API + b"/active",
        b"http://evil.example" + API + b"/active",
        b"http://localhost",
        b"http://[::1" + API,
        b"http://a:b@localhost:99999999/",
        b"/api/v1/pipeline/../pipeline/active",
        b"/api/v1/pipeline/%61ctive",
        b"/api/v1/pipeline/active/",
        b"/api/v1/pipeline/active%00",
        b"/api/v1/pipeline/active\\..",
        b"//evil.example/active",
        b"/%2e%2e/%2e%2e/etc/passwd",
        b"/%0d%0aX-Evil:%20yes",
        b'/\xe2\x80\xa8{"level":"ERROR"}',
        b"/" + b"p" * 9000,
    ],
)
VERSIONS = some(
    [b"HTTP/1.1"] * 5 + [b"HTTP/1.0"], [b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.10", b"http/1.1", b"", b"HTTP/1.1 x"]
)
ENDS = some([b"\r\n"], [b"\n", b"\r", b"\r\r\n", b"\n\r", b" \r\n"], 3)
HOSTS = some(
    [b"Host: localhost"] * 4 + [b"host:127.0.0.1:80"],
    [b"Host: evil.example", b"Host:", b"Host: localhost\x00", b"Host: a b", b"Host : localhost", b"", b"Host: [::1]:x",
     b"Host: localhost\r\nHost: localhost", b"Host: localhost, evil.example", b"Host: localhost@evil.example"],
)  # fmt: skip
TOKENS = some(
    [b"Authorization: Bearer {run}"] * 3 + [b"Authorization: Bearer {read}"],
    [b"", b"Authorization: Bearer", b"Authorization: Basic e30=", b"Authorization: Bearer {read}x",
     b"Authorization: Bearer {read}\r\nAuthorization: Bearer {run}", b"Authorization: bearer  {run} "],
)  # fmt: skip
_SHAKE = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
HEADERS = st.lists(
    some(
        [
            b"Content-Type: application/json",
            b"Accept: text/event-stream",
            b"Accept: application/x-ndjson",
            b"Connection: keep-alive",
            b"X-Request-Id: mine",
            b"Idempotency-Key: k",
        ],
        [
            b"Content-Length: 5",
            b"Content-Length: 0",
            b"Content-Length: +5",
            b"Content-Length: -1",
            b"Content-Length: 5, 5",
            b"Content-Length: 5\r\nContent-Length: 6",
            b"Content-Length: 0x5",
            b"Content-Length: \xb2",
            b"Content-Length: 99999999999999999999",
            b"Content-Length : 5",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding:\x0bchunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer_Encoding: chunked",
            b"Expect: 100-continue",
            b"Expect: 200-ok",
            b"Connection: close",
            b"Connection: close, keep-alive, upgrade",
            b"Connection: Content-Length",
            b"Upgrade: h2c\r\nConnection: Upgrade\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
            b"Upgrade: websocket",
            b"Upgrade: websocket\r\nConnection: Upgrade",
            _SHAKE + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            _SHAKE + b"Sec-WebSocket-Version: 99\r\nSec-WebSocket-Key: x",
            b"Sec-WebSocket-Protocol: \x7f,,",
            b" folded",
            b"\tfolded",
            b"X-A: b\r\n c",
            b"X-A: \x00",
            b"X\x00A: b",
            b"no colon",
            b": no name",
            b"X-Long: " + b"x" * 70_000,
            b"Content-Encoding: gzip",
            b"Content-Type: application/json; charset=utf-16",
            b"Content-Type: text/plain",
            b"Content-Type: \xff",
            b"Accept: */*;q=nan, text/plain;q=1e999, ;;;,",
            b"Accept: " + b"text/html," * 500,
            b"Accept: image/png",
            b"Last-Event-ID: " + CURSOR,
            b"Last-Event-ID: \xff",
            b"Last-Event-ID: a\r\nLast-Event-ID: b",
            b"Origin: null",
            b"Origin: http://evil.example",
            b"Origin: http://localhost",
            b"Access-Control-Request-Method: DELETE\r\nOrigin: http://evil.example",
            b"Idempotency-Key: " + b"k" * 300,
            b"Idempotency-Key: \xe4",
            b"Idempotency-Key: a\r\nIdempotency-Key: b",
            b'X-Request-Id: "}{"level":"ERROR"',
            b"X-Request-Id: a b\xe2\x80\xa8c",
            b"X-Request-Id: " + b"r" * 65,
            b'User-Agent: \x1b]0;x\x07"}\xff',
            b"X-Forwarded-For: 1.2.3.4, \xff",
            b"Forwarded: for=\"_x\";host=evil.example",
            b"X-HTTP-Method-Override: DELETE",
            b"Range: bytes=0-0,1-1",
            b"If-None-Match: *",
            b"TE: trailers, deflate;q=0",
            b"Trailer: Content-Length",
        ],
        20,
    ),
    max_size=4,
)  # fmt: skip
BODIES = some(
    [
        b"",
        b'{"pipeline":"owner/name"}',
        b'{"pipeline":"owner/name","parameters":{"x":1},"on_busy":"reject"}',
        b'{"pipeline":"params.nf","triggered_by":"ada"}',
    ],
    [
        b"hello",
        b"{",
        b"[" * 300,
        b'{"pipeline":"owner/name","pipeline":"../x"}',
        b'{"pipeline":"\\ud800"}',
        b'{"pipeline":"owner/name","resume":"' + RUN_ID + b'"}',
        b"\xef\xbb\xbf{}",
        b"x" * 140_000,
        b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"0\r\n\r\nDELETE /api/v1/pipeline/cancel HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    60,
)
CHUNKS = some(
    [b"%x\r\n"],
    [b"%x;a=b\r\n", b'%x;a="\r\n', b"%x \r\n", b"0x%x\r\n", b"-%x\r\n", b"%x\n", b"\r\n%x\r\n", b"%x\r\r\n",
     b"000000000000000000000%x\r\n", b"FFFFFFFFFFFFFFFFF%x\r\n", b"%x;" + b"e" * 70_000 + b"\r\n", b"%x\x00\r\n"],
).map(lambda line: line if line.count(b"%") == 1 and b"%x" in line else b"%x\r\n")  # fmt: skip
LASTS = some(
    [b"0\r\n\r\n"],
    [b"0\r\nX-A: b\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\nHost: evil\r\n\r\n", b"00\r\n\r\n", b"",
     b"0;x\r\n\r\n", b"0\r\n\x00: x\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 9000 + b"\r\n"],
)  # fmt: skip


def _framed(how: str, body: bytes, line: bytes, last: bytes) -> tuple[list[bytes], bytes]:
    if how == "chunks":
        half = len(body) // 2
        parts = [part for part in (body[:half], body[half:]) if part]
        return [b"Transfer-Encoding: chunked"], b"".join(line % len(part) + part + b"\r\n" for part in parts) + last
    told = {"right": len(body), "short": max(0, len(body) - 3), "long": len(body) + 7}.get(how)
    return ([] if told is None else [b"Content-Length: %d" % told]), body


FRAMINGS = st.builds(
    _framed,
    st.sampled_from(["right", "right", "right", "chunks", "chunks", "short", "long", "none"]),
    BODIES,
    CHUNKS,
    LASTS,
)


def _request(
    method: bytes,
    target: bytes,
    version: bytes,
    head: list[bytes],
    framing: tuple[list[bytes], bytes],
    end: bytes,
) -> bytes:
    told, body = framing
    lines = [method + b" " + target + b" " + version, *(line for line in [*head, *told] if line)]
    return b"".join(line + end for line in lines) + end + body


REQUESTS = st.builds(
    lambda method, path, query, version, host, token, headers, framing, end: _request(
        method, path + query, version, [host, token, *headers], framing, end
    ),
    METHODS, PATHS, QUERIES, VERSIONS, HOSTS, TOKENS, HEADERS, st.just(([], b"")) | FRAMINGS, ENDS,
)  # fmt: skip
POSTS = st.builds(
    lambda path, headers, framing: _request(
        b"POST",
        API + path,
        b"HTTP/1.1",
        [b"Host: localhost", b"Authorization: Bearer {run}", b"Content-Type: application/json", *headers],
        framing,
        b"\r\n",
    ),
    st.sampled_from([b"/run", b"/run", b"/stream/ticket"]),
    HEADERS,
    FRAMINGS,
)


def _mutated(wire: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for at, gone, new in changes:
        place = at % (len(wire) + 1)
        wire = wire[:place] + new + wire[place + gone :]
    return wire


CHANGES = st.lists(
    st.tuples(st.integers(0, 2000), st.integers(0, 3), st.one_of(st.sampled_from(_ODD), st.binary(max_size=4))),
    max_size=2,
)
WIRES = st.one_of(
    st.lists(REQUESTS, min_size=1, max_size=3).map(b"".join),
    st.lists(st.one_of(REQUESTS, POSTS), min_size=1, max_size=3).map(b"".join),
    st.builds(_mutated, st.lists(st.one_of(REQUESTS, POSTS), min_size=1, max_size=2).map(b"".join), CHANGES),
    st.binary(max_size=300),
)
CUTS = st.lists(st.integers(0, 2000), max_size=3)
