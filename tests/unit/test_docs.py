"""The pages and their files: what is served, as what, and nothing else."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from functions.docs.files import FILES
from functions.docs.main import docs
from tests.unit.asking import application, asking, kind, settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "functions" / "docs"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of the function alone, where everybody else would need a token."""
    async with asking(application(settings(auth="tokens", rate_limits=("1/hour",)), *docs.app.endpoints)) as made:
        yield made


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/openapi.json", "application/json"),
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/docs.css", "text/css; charset=utf-8"),
        ("/docs/docs.js", "text/javascript; charset=utf-8"),
        ("/docs/icon.svg", "image/svg+xml"),
        ("/docs/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("/docs/swagger-ui.css", "text/css; charset=utf-8"),
        ("/follow", "text/html; charset=utf-8"),
        ("/follow/follow.css", "text/css; charset=utf-8"),
        ("/follow/follow.js", "text/javascript; charset=utf-8"),
        ("/follow/icon.svg", "image/svg+xml"),
        ("/follow/log.js", "text/javascript; charset=utf-8"),
        ("/follow/run.js", "text/javascript; charset=utf-8"),
    ],
)
async def test_files(client: httpx.AsyncClient, path: str, expected: str) -> None:
    """Each is there for everybody, as often as wanted, under its type; a browser that has it is told so."""
    first = await client.get(path)
    assert (first.status_code, first.headers["content-type"]) == (200, expected)
    assert len(first.content) > 100
    assert {name: first.headers[name] for name in ("cache-control", "referrer-policy", "x-content-type-options")} == {
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    assert first.headers["content-security-policy"].startswith(
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    again = await client.get(path, headers={"if-none-match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert (await client.get(path, headers={"if-none-match": '"other"'})).status_code == 200
    head = await client.head(path)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(first.content)))


def test_these_are_all_files() -> None:
    """Every path of the list is tested above, and every file of the folder that is no code is on the list."""
    tested = {case.values[0] if hasattr(case, "values") else case[0] for case in test_files.pytestmark[0].args[1]}  # type: ignore[attr-defined] # pytest's
    assert tested == set(FILES) == {endpoint.path for endpoint in docs.app.endpoints}
    kept = {path.name for path in PAGES.iterdir() if path.suffix in (".css", ".html", ".js", ".json", ".svg")}
    assert kept == {name for name, theirs in FILES.values() if not theirs}


async def test_pages_run_their_own_scripts_only(client: httpx.AsyncClient) -> None:
    """No script in the markup, none from elsewhere; on the page that shows logs no string can become markup."""
    policies = [
        (await client.get(path)).headers["content-security-policy"].split("; ")[4:] for path in ("/docs", "/follow")
    ]
    assert policies == [
        ["script-src 'self'", "style-src 'self' 'unsafe-inline'", "img-src 'self' data:", "connect-src 'self'"],
        [
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ],
    ]


async def test_a_page_takes_any_query(client: httpx.AsyncClient) -> None:
    """It is for the page's script: what it makes of it is seen in the browser."""
    assert (await client.get("/follow?run_id=nonsense&more=1")).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs/",
        "/docs/main.py",
        "/docs/files.py",
        "/docs/openapi.json",
        "/docs/index.css",
        "/docs/../main.py",
        "/docs/%2e%2e/main.py",
        "/docs/..%2fmain.py",
        "/follow/follow.html",
        "/follow/swagger-ui.css",
        "/follow//etc/passwd",
        "/follow/log.js/",
        "/follow/log.js%00",
    ],
)
async def test_nothing_else_is_served(client: httpx.AsyncClient, path: str) -> None:
    """A path that is not on the list is none, however it is written."""
    request = client.build_request("GET", "http://test")
    request.url = httpx.URL("http://test").copy_with(raw_path=path.encode())
    assert kind(await client.send(request)) == (404, "not-found")


async def test_only_reading(client: httpx.AsyncClient) -> None:
    """Other methods are refused, and so is another name of the host."""
    wrong = await client.post("/docs")
    assert (kind(wrong), wrong.headers["allow"]) == ((405, "method"), "GET, HEAD")
    assert kind(await client.get("/docs", headers={"host": "elsewhere.example"})) == (421, "foreign-host")


async def test_the_document_is_the_committed_one(client: httpx.AsyncClient) -> None:
    """Byte for byte."""
    answer = await client.get("/openapi.json")
    assert answer.content == (PAGES / "openapi.json").read_bytes()
    assert json.loads(answer.content)["openapi"] == "3.1.0"


def test_swagger_ui_is_found_without_its_package() -> None:
    """The package is a Flask extension; serving its files loads neither it nor Flask, nor any other function."""
    code = (
        "import sys; from starlette.datastructures import Headers; import functions.docs.main as docs; "
        "from functions.docs.files import respond; "
        "assert respond('/docs/swagger-ui-bundle.js', Headers()).status_code == 200; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    functions = {name for name in loaded if name.startswith("functions.")}
    assert functions == {"functions.docs", "functions.docs.main", "functions.docs.files"}
    assert {name.partition(".")[0] for name in loaded} & {"flask", "flask_swagger_ui", "limits", "redis"} == set()
