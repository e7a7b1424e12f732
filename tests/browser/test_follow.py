"""/follow in a real browser: the whole log of real runs, whatever happens to the server meanwhile."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from common.events import GAP, ZERO, Cursor, Line, LineId, event
from common.frames import Frame, Lines, Notice, status_notice
from common.models import RunStatus
from common.phases import State
from common.web.transports import sse
from tests.browser.conftest import PATIENCE_MS, Seen, opened
from tests.integration.server import LocalServer, log_text
from tests.unit import samples

pytestmark = pytest.mark.slow


def follow(page: Page, server: LocalServer, query: str = "") -> None:
    """Open the page and show it the server's token."""
    page.goto(f"{server.url}/follow{query}")
    page.get_by_label("Token").fill(server.authorization["authorization"].removeprefix("Bearer "))
    page.get_by_role("button", name="Follow").click()


def text(page: Page) -> str:
    """The log as the page has it."""
    lines: list[str] = page.locator("#lines .line").evaluate_all("lines => lines.map(line => line.textContent)")
    return "".join(line + "\n" for line in lines)


def has(page: Page, state: str) -> None:
    """Wait until the page knows the run's state."""
    expect(page.locator("#state")).to_have_text(state, timeout=PATIENCE_MS)


def complete(page: Page) -> None:
    """Wait until all has come."""
    expect(page.locator("#connection")).to_have_text("complete", timeout=PATIENCE_MS)


def lines(page: Page, count: int) -> None:
    """Wait until the page has so many lines."""
    page.wait_for_function("count => document.querySelectorAll('#lines .line').length >= count", arg=count)


def test_a_run_to_its_end(server: LocalServer, tab: tuple[Page, Seen], state_dir: Path) -> None:
    """The page asks for a token, then shows whose run it is, how far its tasks are, and its log to the last line."""
    page, seen = tab
    page.goto(server.url + "/follow")
    page.get_by_label("Token").fill("nobody's")
    page.get_by_role("button", name="Follow").click()
    expect(page.get_by_role("alert")).to_contain_text("nobody's")
    page.get_by_label("Token").fill(server.authorization["authorization"].removeprefix("Bearer "))
    page.get_by_role("button", name="Follow").click()
    expect(page.locator("#connection")).to_have_text("waiting for a run")
    run_id = server.run("retry", triggered_by="<b>ada</b>")["run_id"]
    complete(page)
    has(page, "succeeded")
    assert text(page) == log_text(state_dir, run_id)
    assert page.locator("#facts dd").all_inner_texts()[:2] == [run_id, "<b>ada</b>"]
    assert page.title() == "succeeded: tests/pipelines/retry.nf"
    task = page.locator("#processes li")
    assert task.locator("span").all_inner_texts() == ["FLAKY", "1 retried · 1/1"]
    assert task.get_by_role("progressbar", name="FLAKY").get_attribute("aria-valuenow") == "1"
    assert [said for said in seen.said if "401" not in said and "404" not in said] == []
    assert seen.hosts == {urlsplit(server.url).netloc}


def test_the_token_stays_in_its_tab(server: LocalServer, browser: Browser, tab: tuple[Page, Seen]) -> None:
    """It survives a reload, is kept nowhere but in the tab, never in a URL, and can be forgotten."""
    page, _ = tab
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    run_id = server.run("chatty")["run_id"]
    follow(page, server, f"?run_id={run_id}")
    complete(page)
    page.reload()
    complete(page)
    token = server.authorization["authorization"].removeprefix("Bearer ")
    tickets = [url for url in asked if "ticket=" in url]
    assert (len(tickets), len(set(tickets))) == (2, 2)
    assert [url for url in asked if token in url] == []
    assert page.evaluate("JSON.stringify([localStorage, document.cookie])") == '[{},""]'
    with opened(browser) as (other, _):
        other.goto(f"{server.url}/follow")
        expect(other.get_by_label("Token")).to_be_visible()
    page.get_by_role("button", name="Forget the token").click()
    expect(page.get_by_label("Token")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_server_that_is_killed_in_the_middle(
    make_server: Callable[..., LocalServer], tab: tuple[Page, Seen], state_dir: Path
) -> None:
    """The page finds the next one by itself and goes on behind the last line it had: none is lost, none comes twice."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = make_server(PORT=str(port))
    page, _ = tab
    run_id = server.run("chatty", parameters={"lines": 400, "pause_ms": 25})["run_id"]
    follow(page, server)
    lines(page, 20)
    server.kill()
    expect(page.locator("#connection")).to_contain_text("reconnecting")
    before = page.locator("#lines .line").count()
    server.start()
    complete(page)
    has(page, "succeeded")
    assert text(page) == log_text(state_dir, run_id)
    assert 20 <= before < 400
    assert page.locator("#lines .boundary").all_inner_texts() == ["succeeded"]


def test_the_next_run(server: LocalServer, tab: tuple[Page, Seen], state_dir: Path) -> None:
    """With the box checked the page stays, and the next run's log follows; lines are text, whatever they look like."""
    page, _ = tab
    runs = [server.run("params", parameters={"markup": "<img src=x onerror='alert(1)'> &lt;"})["run_id"]]
    follow(page, server, f"?run_id={runs[0]}")
    complete(page)
    page.get_by_label("Stay for the next run").check()
    expect(page.locator("#connection")).to_have_text("live")
    runs.append(server.run("fail")["run_id"])
    has(page, "failed")
    expect(page.locator("#connection")).to_have_text("waiting for the next run")
    assert text(page) == "".join(log_text(state_dir, run_id) for run_id in runs)
    boundaries = page.locator("#lines .boundary").all_inner_texts()
    assert boundaries == ["succeeded", f"{runs[1]}: tests/pipelines/fail.nf", "failed"]
    page.get_by_label("Stay for the next run").uncheck()
    complete(page)


def test_what_is_no_line(make_server: Callable[..., LocalServer], tab: tuple[Page, Seen]) -> None:
    """Where lines are missing and where the next attempt begins is seen among the lines."""
    run = RunStatus(**dict(samples.run(status=State.SUCCEEDED, attempt=2)))
    told, reason = run.model_dump(mode="json"), "Its node was drained. It is started again."
    first = [Line(LineId(n, 0), n, stream, b"%d" % n) for n, stream in ((1, "stdout"), (2, GAP), (3, "stderr"))]
    frames: list[Frame] = [
        status_notice(run, Cursor(run.run_id, 1, ZERO)),
        Lines(run.run_id, 1, ZERO, first),
        Notice(event("restarted", Cursor(run.run_id, 2, ZERO), {"attempt": 2, "reason": reason})),
        Lines(run.run_id, 2, ZERO, first[:1]),
        Notice(event("complete", Cursor(run.run_id, 2, None), told)),
    ]
    page, _ = tab
    page.route("**/pipeline/status*", lambda route: route.fulfill(json=told))
    page.route(
        "**/pipeline/stream?*",
        lambda route: route.fulfill(content_type="text/event-stream", body=b"".join(map(sse, frames))),
    )
    page.goto(f"{make_server(AUTH='off').url}/follow")
    complete(page)
    parts = page.locator("#lines > *")
    assert parts.all_inner_texts() == ["1", "gap: 2", "3", f"attempt 2: {reason}", "1", "succeeded"]
    assert page.locator("#lines .boundary").all_inner_texts() == ["gap: 2", f"attempt 2: {reason}", "succeeded"]
    expect(page.locator("#facts")).to_contain_text("Attempt")


def test_the_log_keeps_to_its_end_until_the_reader_goes_up(server: LocalServer, tab: tuple[Page, Seen]) -> None:
    """New lines scroll in; who has gone up stays there, and comes back with a button, by keyboard too."""
    page, _ = tab
    server.run("chatty", parameters={"lines": 300, "pause_ms": 20})
    follow(page, server)
    box, jump = page.locator("#lines"), page.get_by_role("button", name="Jump to the end")
    lines(page, 100)
    assert box.evaluate("box => box.scrollTop") > 500
    expect(jump).to_be_hidden()
    box.focus()
    page.keyboard.press("Home")
    expect(jump).to_be_visible()
    complete(page)
    assert box.evaluate("box => box.scrollTop") < 100
    page.keyboard.press("Tab")
    expect(jump).to_be_focused()
    page.keyboard.press("Enter")
    expect(jump).to_be_hidden()
    assert box.evaluate("box => box.scrollHeight - box.scrollTop - box.clientHeight") < 2
    expect(box).to_be_focused()


def test_a_long_log_is_bounded(server: LocalServer, tab: tuple[Page, Seen], state_dir: Path) -> None:
    """The page keeps the newest lines, and says how many it does not show."""
    page, _ = tab
    run_id = server.run("chatty", parameters={"lines": 12_000, "pause_ms": 0})["run_id"]
    follow(page, server, f"?run_id={run_id}")
    complete(page)
    expect(page.locator("#earlier")).to_be_visible()
    shown, log = text(page).splitlines(), log_text(state_dir, run_id).splitlines()
    assert page.locator("#lines > *").count() == 5000
    assert shown == log[-len(shown) :]
    hidden = len(log) - len(shown)
    expect(page.locator("#earlier")).to_contain_text(f"{hidden:,} earlier lines")
    expect(page.locator("#count")).to_have_text(f"{len(log):,} lines")


def test_without_callers_no_token_is_asked_for(make_server: Callable[..., LocalServer], tab: tuple[Page, Seen]) -> None:
    """Where authentication is off the page goes straight to the run; a run that there is not is told."""
    server = make_server(AUTH="off")
    page, seen = tab
    page.goto(f"{server.url}/follow?run_id=run-aaaaaaaaaaaaaaaa")
    expect(page.locator("#connection")).to_contain_text("run-aaaaaaaaaaaaaaaa")
    assert page.locator("#connection").get_attribute("data-kind") == "lost"
    expect(page.get_by_label("Token")).to_be_hidden()
    assert [json.dumps(said) for said in seen.said if "404" not in said] == []
