"""Requests that cannot be used, and the refusal that each is due: the table of test_bad_input."""

import json
from dataclasses import dataclass
from typing import Any

from tests.integration.server import API

PROBLEM = "urn:nextflow-controller:problem:"
LIMIT_BYTES = 128 * 1024
QUOTA = 40  # more than the rows below call cancel, for any one caller
PIPELINE = "tests/pipelines/params.nf"
UNKNOWN = "run-aaaaaaaaaaaaaaaa"
KEY = "first"

# What is right, in words that recur.
A_RUN_ID = "a run's id as it was received: run- and 16 of the characters a-z and 2-7"
A_PIPELINE = (
    "use a path, a URL or owner/name: at most 1024 characters, the first neither a dash, an @ nor a space, "
    "none a control character"
)
A_REVISION = (
    "use a branch, tag or commit: at most 255 letters, digits and _ + @ - . /, beginning with a letter, a digit or _, "
    "and . and / only between others (no ..)"
)
PROFILES = (
    "use names separated by commas, without spaces: letters, digits, _ and -, each name beginning with a letter or _; "
    "at most 255 characters"
)
A_WORKDIR = (
    "use a relative path of letters, digits and _ . - / in which each part begins with a letter, a digit or _ (no ..); "
    "at most 255 characters"
)
A_PERSON = "use 1 to 128 characters, none a control character"
A_CURSOR = "not a cursor; pass the id of an event exactly as it was received"
A_PAGE = "not a cursor; pass next_cursor exactly as it was received"
STATES = (
    "use some of queued, starting, running, cancelling, succeeded, failed, cancelled, unknown, "
    "separated by commas without spaces"
)
TYPES = "use some of log, status, progress, separated by commas without spaces"
ONE_OBJECT = "Send one JSON object in UTF-8, at most 199 levels deep and without NaN or Infinity."
TOO_LONG = f"The body is longer than {LIMIT_BYTES} bytes. Put large data where the pipeline can read it."
NO_HTTP = "A header, the request line, or the length of the body is not as RFC 9112 has it."
ALLOWED = "allowed are: paths below the directory of pipelines, nf-core/"
PLAIN = "use a URL like https://host/owner/name: without credentials, query, fragment or escapes"
OUTSIDE = "it leads out of the directory of pipelines; name one below it"
FIELDS = "use pipeline, revision, profile, workdir, parameters, resume, triggered_by, on_busy"
CHALLENGE = 'Bearer realm="nextflow-controller"'
FOREIGN = "Names it may be called by are in its ALLOWED_HOSTS."
PAGES = "Origins that may are in the server's CORS_ORIGINS."

TOKEN = "Authorization: Bearer {run}"
HOST = "Host: {host}"
TYPED = "Content-Type: application/json"


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A request, and the refusal it is due.

    Attributes:
        sent: header lines, in which {host}, {run}, {read} and {run_id} stand for what they are.
        body: sent as it is; `told` is its Content-Length where that is not its length.
        places: what is pointed at, and what is said there.
        due: headers of the answer.
    """

    id: str
    status: int
    kind: str
    detail: str = ""
    places: tuple[tuple[str, str], ...] = ()
    due: tuple[tuple[str, str], ...] = ()
    facts: tuple[tuple[str, Any], ...] = ()
    method: str = "GET"
    target: str = API + "/active"
    sent: tuple[str, ...] = (HOST, TOKEN)
    body: bytes | None = None
    told: str | None = None

    def wire(self, known: dict[str, str]) -> bytes:
        """The request's bytes."""
        lines = [f"{self.method} {self.target} HTTP/1.1", *self.sent]
        if self.told is not None:
            lines.append(self.told)
        elif self.body is not None:
            lines.append(f"Content-Length: {len(self.body)}")
        head = "".join(line + "\r\n" for line in lines)
        for name, value in known.items():
            head = head.replace("{" + name + "}", value)
        return head.encode("latin-1") + b"\r\n" + (self.body or b"")


def query(path: str, text: str, *places: tuple[str, str], method: str = "GET") -> Bad:
    """Parameters that do not fit."""
    target = f"{API}{path}?{text}"
    return Bad(id=f"{path} {text}"[:60], status=422, kind="invalid", places=places, method=method, target=target)


def post(name: str, status: int, kind: str, body: bytes, **options: Any) -> Bad:
    """A body that cannot be used."""
    options = {"sent": (HOST, TOKEN, TYPED), "method": "POST", "target": API + "/run", **options}
    return Bad(id=name, status=status, kind=kind, body=body, **options)


def misfit(body: dict[str, Any], *places: tuple[str, str], name: str | None = None) -> Bad:
    """A JSON body that does not fit."""
    raw = json.dumps(body).encode()
    return post(name or raw.decode()[:60], 422, "invalid", raw, places=places)


def argument(name: str, value: Any, right: str) -> Bad:
    """A value that would end up in Nextflow's command line."""
    return misfit({"pipeline": PIPELINE, name: value}, (f"/{name}", right), name=f"{name} {value!r}"[:60])


def source(pipeline: str, status: int, detail: str) -> Bad:
    """A pipeline that is not run."""
    raw = json.dumps({"pipeline": pipeline}).encode()
    kind = "not-allowed" if status == 403 else "invalid"
    return post(f"pipeline {pipeline}"[:60], status, kind, raw, places=(("/pipeline", detail),))


def wrong(method: str, path: str, allow: str) -> Bad:
    """A method that a path does not take."""
    return Bad(
        id=f"{method} {path}",
        status=405,
        kind="method",
        detail=f"{path} takes {allow}, not {method}.",
        due=(("allow", allow),),
        method=method,
        target=path,
    )


PATHS = (
    "/active",
    "/cancel",
    "/history",
    "/run",
    "/status",
    "/stream",
    "/stream/ticket",
)
HERE = "Here are: " + ", ".join(API + path for path in PATHS) + "."


def nowhere(path: str, shown: str | None = None, method: str = "GET") -> Bad:
    """A path at which there is nothing."""
    detail = f"There is nothing at {shown or path}. {HERE}"
    return Bad(id=f"{method} {path}"[:60], status=404, kind="not-found", detail=detail, method=method, target=path)


def unauthorized(*sent: str, target: str = API + "/active", method: str = "GET", detail: str = "", error: str) -> Bad:
    """Somebody who is nobody."""
    due = (("www-authenticate", f"{CHALLENGE}{error}"),)
    name = f"{method} {target} {' '.join(sent)}"[:60].strip()
    return Bad(
        id=name, status=401, kind="token", detail=detail, due=due, sent=(HOST, *sent), target=target, method=method
    )


NOBODY = "This token is nobody's, or is no `Bearer` token."
NO_TOKEN = "Send a token: `Authorization: Bearer TOKEN`. Whoever runs this server hands them out."
INVALID = ', error="invalid_token"'


def not_http(name: str, *sent: str, **options: Any) -> Bad:
    """What is no request."""
    due = (("connection", "close"),)
    return Bad(id=name, status=400, kind="http", detail=NO_HTTP, due=due, sent=(HOST, TOKEN, *sent), **options)


def foreign_host(shown: str, *hosts: str) -> Bad:
    """A server that is not this one."""
    detail = f"This is not the server of {shown}. {FOREIGN}"
    return Bad(id=f"Host {shown}", status=421, kind="foreign-host", detail=detail, sent=(*hosts, TOKEN))


def foreign_page(origin: str, method: str, path: str) -> Bad:
    """A page that may not do this."""
    detail = f"A page from {origin} may not do this. {PAGES}"
    sent = (HOST, TOKEN, TYPED, f"Origin: {origin}")
    body = json.dumps({"pipeline": PIPELINE}).encode()
    return Bad(
        id=f"{origin} {method} {path}",
        status=403,
        kind="foreign-origin",
        detail=detail,
        sent=sent,
        method=method,
        target=API + path,
        body=body,
    )


def not_json(name: str, body: bytes, reason: str) -> Bad:
    """A body that is no JSON."""
    return post(name, 400, "json", body, detail=f"{reason}. {ONE_OBJECT}")


BODIES = (
    not_json("empty", b"", "It is empty"),
    not_json("cut off", b'{"pipeline": "p"', "EOF while parsing an object at line 1 column 16"),
    not_json("not JSON", b"pipeline=p", "expected value at line 1 column 1"),
    not_json("two documents", b'{"pipeline": "p"} {}', "trailing characters at line 1 column 19"),
    not_json("NaN", b'{"pipeline": "p", "parameters": {"x": NaN}}', "expected value at line 1 column 39"),
    not_json("Infinity", b'{"pipeline": "p", "parameters": {"x": -Infinity}}', "invalid number at line 1 column 40"),
    not_json(
        "arrays 20,000 levels deep", b'{"parameters": ' + b"[" * 20_000, "recursion limit exceeded at line 1 column 216"
    ),
    not_json(
        "objects 20,000 levels deep",
        b'{"x":' * 20_000 + b"1" + b"}" * 20_000,
        "recursion limit exceeded at line 1 column 1006",
    ),
    not_json("invalid UTF-8", b'{"pipeline": "\xff"}', "invalid unicode code point at line 1 column 15"),
    not_json("UTF-8 cut off", b'{"pipeline": "\xc3"}', "invalid unicode code point at line 1 column 15"),
    not_json("UTF-16", '{"pipeline": "p"}'.encode("utf-16"), "expected value at line 1 column 1"),
    not_json("half a surrogate pair", b'{"pipeline": "\\ud800"}', "unexpected end of hex escape at line 1 column 21"),
    not_json("a number of 5,000 digits", b'{"x": ' + b"1" * 5000 + b"}", "number out of range at line 1 column 4308"),
    post(
        "too long by a byte",
        413,
        "too-long",
        b" " * (LIMIT_BYTES + 1),
        detail=TOO_LONG,
        facts=(("limit_bytes", LIMIT_BYTES),),
    ),
    post(
        "too long by its own account, and never sent",
        413,
        "too-long",
        b"",
        told="Content-Length: 1073741824",
        detail=TOO_LONG,
        facts=(("limit_bytes", LIMIT_BYTES),),
    ),
    post(
        "too long, and waiting for leave to be sent",
        413,
        "too-long",
        b"",
        told="Expect: 100-continue\r\nContent-Length: 1073741824",
        detail=TOO_LONG,
        facts=(("limit_bytes", LIMIT_BYTES),),
    ),
    post(
        "too long in chunks, without an end",
        413,
        "too-long",
        (b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 5,
        told="Transfer-Encoding: chunked",
        detail=TOO_LONG,
        facts=(("limit_bytes", LIMIT_BYTES),),
    ),
    *(
        post(
            f"media type {kind}",
            415,
            "media-type",
            b'{"pipeline": "tests/pipelines/params.nf"}',
            sent=(HOST, TOKEN, f"Content-Type: {kind}"),
            detail=f"Send the body as application/json; this one came as {kind.partition(';')[0]}.",
            due=(("accept", "application/json"),),
        )
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", "text/json; charset=utf-8")
    ),
    post(
        "no media type",
        415,
        "media-type",
        b'{"pipeline": "tests/pipelines/params.nf"}',
        sent=(HOST, TOKEN),
        detail="Send the body as application/json; this one came without a Content-Type.",
        due=(("accept", "application/json"),),
    ),
    post(
        "an encoding",
        415,
        "media-type",
        b"\x1f\x8b",
        sent=(HOST, TOKEN, TYPED, "Content-Encoding: gzip"),
        detail="Send the body as it is; this one is encoded (gzip).",
        due=(("accept-encoding", "identity"),),
    ),
)

FIELD_ROWS = (
    misfit({}, ("/pipeline", "is missing")),
    post("a list", 422, "invalid", b'["pipeline"]', places=(("", "use a JSON object"),)),
    post("null", 422, "invalid", b"null", places=(("", "use a JSON object"),)),
    misfit({"pipeline": PIPELINE, "revison": "main"}, ("/revison", f"unknown; {FIELDS}")),
    misfit({"pipeline": PIPELINE, "a/b~c": 1}, ("/a~1b~0c", f"unknown; {FIELDS}")),
    misfit({"pipeline": PIPELINE, "run_id": UNKNOWN}, ("/run_id", f"unknown; {FIELDS}")),
    misfit({"pipeline": PIPELINE, "name": "crazy_einstein"}, ("/name", f"unknown; {FIELDS}")),
    misfit({"pipeline": 1, "on_busy": True}, ("/pipeline", A_PIPELINE), ("/on_busy", "use 'attach' or 'reject'")),
    misfit({"pipeline": PIPELINE, "parameters": [1]}, ("/parameters", "use a JSON object")),
    misfit({"pipeline": PIPELINE, "parameters": {"": 1}}, ("/parameters/", "use names of 1 to 256 characters")),
    misfit(
        {"pipeline": PIPELINE, "parameters": {"ok": 1, "big": {"deep": [2**63]}}},
        ("/parameters/big", "a whole number that does not fit into 64 bits; use a string"),
    ),
    misfit({"pipeline": PIPELINE, "triggered_by": "a\x1b[2J"}, ("/triggered_by", A_PERSON)),
    argument("resume", 1, f"use true, false, or {A_RUN_ID}"),
    argument("resume", "true", f"use true, false, or {A_RUN_ID}"),
    # What could be read as an option, or leads elsewhere.
    *(
        argument("pipeline", value, A_PIPELINE)
        for value in ("-x", "--help", "-c/etc/passwd", "", " p", "a\nb", "a\x00b")
    ),
    argument("pipeline", "x" * 1025, A_PIPELINE),
    *(
        argument("revision", value, A_REVISION)
        for value in ("-x", "--upload-pack=id", "a..b", "../x", "a/-b/../c", "a b", "", "a/", "v1.")
    ),
    *(argument("profile", value, PROFILES) for value in ("-x", "a,-x", "a, b", "a,,b", "", "../x", "a b", "$(id)")),
    *(
        argument("workdir", value, A_WORKDIR)
        for value in ("-x", "/etc", "../x", "a/../../x", "a//b", "", "~root", "s3://bucket/x")
    ),
)

# Callers do not name runs: ids are ours. What Nextflow would not take for a name is no id of a run either.
NAMES = (
    "crazy%20name",
    "Run-AAAAAAAAAAAAAAAA",
    "1run",
    "-resume",
    "..%2f..%2fetc",
    "run-aaaaaaaaaaaaaaa1",
    "x" * 81,
    "",
)
RUN_IDS = (
    *(query("/status", f"run_id={name}", ("run_id", f"use {A_RUN_ID}")) for name in NAMES),
    *(query("/cancel", f"run_id={name}", ("run_id", f"use {A_RUN_ID}"), method="DELETE") for name in (*NAMES[:3], "*")),
    *(
        query(
            "/stream", f"run_id={name}", ("run_id", "use " + A_RUN_ID.replace(": run- and", " (run- and") + "), or *")
        )
        for name in NAMES[:3]
    ),
    *(argument("resume", name, f"use true, false, or {A_RUN_ID}") for name in ("crazy name", "-resume", "x" * 81)),
    argument(
        "resume",
        UNKNOWN,
        f"No retained run has the id '{UNKNOWN}'. GET /api/v1/pipeline/history lists those that are.",
    ),
    *(
        Bad(
            id=f"unknown run id {path}",
            status=404,
            kind="run-not-found",
            detail=f"No retained run has the id '{UNKNOWN}'. GET /api/v1/pipeline/history lists those that are.",
            facts=(("run_id", UNKNOWN),),
            method=method,
            target=f"{API}{path}?run_id={UNKNOWN}",
        )
        for method, path in (("GET", "/status"), ("DELETE", "/cancel"), ("GET", "/stream"))
    ),
    Bad(
        id="nothing to cancel",
        status=404,
        kind="nothing-active",
        detail="No run is active, so there is nothing to cancel.",
        method="DELETE",
        target=API + "/cancel",
    ),
)

QUERIES = (
    *(
        query("/history", f"limit={value}", ("limit", "use a whole number"))
        for value in ("x", "", "1.5", "0x10", "1e2")
    ),
    query("/history", "limit=0", ("limit", "use 1 or more")),
    query("/history", "limit=-1", ("limit", "use 1 or more")),
    query("/history", "limit=201", ("limit", "use 200 or less")),
    query("/history", "limit=" + "9" * 30, ("limit", "use 200 or less")),
    *(
        query("/history", f"cursor={value}", ("cursor", A_PAGE))
        for value in ("", "x", UNKNOWN, "%ff%00", "%0d%0aX:%20y")
    ),
    *(
        query("/history", f"state={value}", ("state", STATES))
        for value in ("", "done", "failed,", "failed,%20queued", "FAILED")
    ),
    query("/history", "limit=1&limit=2", ("limit", "given more than once")),
    query("/history", "state=failed&page=2", ("page", "unknown; use limit, cursor, state")),
    query("/history", "limit=0&cursor=x&state=y", ("limit", "use 1 or more"), ("cursor", A_PAGE), ("state", STATES)),
    *(
        query("/stream", f"after={value}", ("after", A_CURSOR))
        for value in ("", "0", "0-0", f"{UNKNOWN}.0.1-1", f"{UNKNOWN}.1.end%00", "$", "%d9%a1")
    ),
    query("/stream", f"after={UNKNOWN}.1.999999999999999-0", ("after", A_CURSOR)),
    *(query("/stream", f"types={value}", ("types", TYPES)) for value in ("", "log,", "logs", "log;status", "*")),
    query("/stream", "tail=-1", ("tail", "use 0 or more")),
    query("/stream", "tail=100001", ("tail", "use 100000 or less")),
    query("/stream", "tail=all", ("tail", "use a whole number")),
    query("/stream", "follow=maybe&timestamps=2", ("follow", "use true or false"), ("timestamps", "use true or false")),
    query("/active", "run_id=x", ("run_id", "unknown; none is taken here")),
    query("/run", "pipeline=x", ("pipeline", "unknown; none is taken here"), method="POST"),
    Bad(
        id="Last-Event-ID",
        status=422,
        kind="invalid",
        places=(("Last-Event-ID", A_CURSOR),),
        target=API + "/stream",
        sent=(HOST, TOKEN, "Last-Event-ID: 17"),
    ),
    Bad(
        id="Accept",
        status=406,
        kind="not-acceptable",
        detail="A stream comes as text/event-stream, application/x-ndjson or text/plain, or as a WebSocket; "
        "name one in Accept.",
        target=API + "/stream",
        sent=(HOST, TOKEN, "Accept: application/json"),
    ),
)

PLACES = (
    nowhere("/"),
    nowhere(API),
    nowhere(API + "/run/"),
    nowhere(API + "/runs", method="POST"),
    nowhere(API + "/status/" + UNKNOWN),
    nowhere("/api/v2/pipeline/status"),
    nowhere(API + "/../../../../etc/passwd"),
    nowhere(API + "/%2e%2e%2fetc", shown=API + "/../etc"),
    nowhere("/" + "x" * 5000, shown="/" + "x" * 199),
    wrong("GET", API + "/run", "POST"),
    wrong("PUT", API + "/run", "POST"),
    wrong("OPTIONS", API + "/run", "POST"),
    wrong("POST", API + "/cancel", "DELETE"),
    wrong("GET", API + "/cancel", "DELETE"),
    wrong("DELETE", API + "/history", "GET, HEAD"),
    wrong("TRACE", API + "/active", "GET, HEAD"),
    wrong("PATCH", API + "/status", "GET, HEAD"),
    wrong("POST", API + "/stream", "GET, HEAD"),
    wrong("GET", API + "/stream/ticket", "POST"),
    wrong("POST", "/healthz", "GET, HEAD"),
)

CALLERS = (
    unauthorized(detail=NO_TOKEN, error=""),
    unauthorized(detail=NO_TOKEN, error="", method="DELETE", target=API + "/cancel"),
    unauthorized("Authorization: Bearer nfc_wrong", detail=NOBODY, error=INVALID),
    unauthorized("Authorization: Bearer {run}x", detail=NOBODY, error=INVALID),
    unauthorized("Authorization: Bearer", detail=NOBODY, error=INVALID),
    unauthorized("Authorization: Basic {run}", detail=NOBODY, error=INVALID),
    unauthorized("Authorization: {run}", detail=NOBODY, error=INVALID),
    unauthorized("Authorization: Bearer \xff", detail=NOBODY, error=INVALID),
    unauthorized("Cookie: token={run}", detail=NO_TOKEN, error="", target=API + "/status"),
    unauthorized(
        detail="This ticket was used, is too old or never was. Ask for a new one.",
        error=INVALID,
        target=API + "/stream?ticket=wrong",
    ),
    unauthorized(detail=NO_TOKEN, error="", target=API + "/status?ticket={run}"),
    *(
        Bad(
            id=f"role of {path}",
            status=403,
            kind="role",
            detail=f"reader may only read; {method} {API}{path} takes a token of role `run`.",
            method=method,
            target=API + path,
            sent=(HOST, "Authorization: Bearer {read}", TYPED),
            body=b'{"pipeline": "tests/pipelines/params.nf"}',
        )
        for method, path in (("POST", "/run"), ("DELETE", "/cancel"))
    ),
    foreign_host("'evil.example'", "Host: evil.example"),
    foreign_host("'evil.example:80'", "Host: EVIL.example:80"),
    foreign_host("'localhost.evil.example'", "Host: localhost.evil.example"),
    foreign_host("'[::1]evil.example'", "Host: [::1]evil.example"),
    foreign_host("''", "Host:"),
    *(
        Bad(
            id=f"{count} hosts",
            status=400,
            kind="host",
            detail=f"A request names the server once, in Host; this one has {count} such headers.",
            sent=(*hosts, TOKEN),
        )
        for count, hosts in (("no", ()), ("2", (HOST, "Host: evil.example")))
    ),
    *(
        foreign_page(origin, method, path)
        for origin in ("https://evil.example", "null", "http://[", "http://localhost:1")
        for method, path in (("POST", "/run"), ("DELETE", "/cancel"), ("OPTIONS", "/run"), ("POST", "/stream/ticket"))
    ),
    Bad(
        id="too many",
        status=429,
        kind="too-many",
        detail="",  # its seconds depend on the clock: looked at where it is sent
        method="DELETE",
        target=API + "/cancel",
        sent=(HOST, "Authorization: Bearer {eager}"),
    ),
)

HTTP = (
    not_http("a bare line feed in a header", "X-A: b\nX-C: d"),
    not_http("a bare carriage return in a header", "X-A: b\rX-C: d"),
    not_http("a NUL in a header", "X-A: b\x00"),
    not_http("a header without a colon", "X-A"),
    not_http("a space before the colon", "X-A : b"),
    not_http("a length that is negative", told="Content-Length: -1"),
    not_http("a length that is no number", told="Content-Length: many"),
    not_http("a length beyond counting", told="Content-Length: " + "9" * 40),
    not_http("two lengths", told="Content-Length: 1\r\nContent-Length: 2", body=b"xx"),
    not_http("a length beside chunks", told="Content-Length: 5\r\nTransfer-Encoding: chunked", body=b"0\r\n\r\n"),
    not_http("a method that is none", method="BREW"),
    not_http("a target that is none", target="no slash"),
    not_http("bytes in a target", target=API + "/active?\xff"),
    not_http("a tunnel", method="CONNECT", target="localhost:80"),
)

SOURCES = (
    source("evil/pipeline", 403, f"'evil/pipeline' is not from an allowed source; {ALLOWED}"),
    source("nf-core-evil/rnaseq", 403, f"'nf-core-evil/rnaseq' is not from an allowed source; {ALLOWED}"),
    source("https://git.example/evil/x", 403, f"'https://git.example/evil/x' is not from an allowed source; {ALLOWED}"),
    source("file:///etc/passwd", 403, f"'file:///etc/passwd' is not from an allowed source; {ALLOWED}"),
    source("/etc/passwd", 403, f"'/etc/passwd' is not from an allowed source; {ALLOWED}"),
    source("../outside", 422, OUTSIDE),
    source("tests/../../outside", 422, OUTSIDE),
    source("/etc/../etc/passwd", 422, "write the path without `.` and `..`"),
    source("https://ada:secret@git.example/nf-core/x", 422, PLAIN),
    source("https://git.example/nf-core/x?ref=y", 422, PLAIN),
    source("https://git.example/nf-core/%2e%2e/x", 422, PLAIN),
    *(
        source(name, 422, f"there is no {name!r} in the directory of pipelines; {ALLOWED}")
        for name in ("file:/etc/passwd", "git@git.example:nf-core/x", "tests/pipelines/missing.nf", "missing")
    ),
)

KEYS = (
    *(
        post(
            f"key {key[:20]!r}",
            422,
            "invalid",
            b'{"pipeline": "tests/pipelines/params.nf"}',
            sent=(HOST, TOKEN, TYPED, f"Idempotency-Key: {key}"),
            places=(("Idempotency-Key", "use 1 to 255 printable ASCII characters"),),
        )
        for key in ("", "k" * 256, "\xe4")
    ),
    post(
        "the same key with another body",
        422,
        "key-reused",
        b'{"pipeline": "tests/pipelines/params.nf", "parameters": {"another": true}}',
        sent=(HOST, TOKEN, TYPED, f"Idempotency-Key: {KEY}"),
        detail="This Idempotency-Key was used before with another body. "
        "Send the first body again to get its answer, or use a new key for a new run.",
        facts=(("run_id", "{run_id}"),),
    ),
)

ROWS = (*BODIES, *FIELD_ROWS, *RUN_IDS, *QUERIES, *PLACES, *CALLERS, *HTTP, *SOURCES, *KEYS)
