"""/docs in a real browser: everything is there, nothing comes from elsewhere, and calls can be tried out."""

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from functions.openapi import openapi
from tests.browser.conftest import PATIENCE_MS, Seen
from tests.integration.server import LocalServer

pytestmark = pytest.mark.slow


def operation(page: Page, tag: str, name: str) -> Locator:
    """An operation on the page, opened and ready to be tried."""
    found = page.locator(f"#operations-{tag}-{name}")
    found.locator(".opblock-summary-control").click()
    found.locator(".try-out__btn").click()
    return found


def tried(found: Locator) -> tuple[int, Any]:
    """Execute an operation: the status, and the JSON of the answer, as the page shows them."""
    with found.page.expect_response(lambda response: "/api/" in response.url) as response:
        found.locator("button.execute").click()
    answer = found.locator(".live-responses-table tbody tr").first
    expect(answer.locator(".response-col_status").first).to_contain_text(str(response.value.status))
    return response.value.status, json.loads(answer.locator(".highlight-code code").first.inner_text())


def test_every_operation_is_shown(server: LocalServer, tab: tuple[Page, Seen]) -> None:
    """All of the document, without an error, and without a request to any other host."""
    page, seen = tab
    page.goto(server.url + "/docs")
    shown = page.locator(".opblock")
    expected = [(method, path) for path, methods in openapi()["paths"].items() for method in methods]
    expect(shown).to_have_count(len(expected), timeout=PATIENCE_MS)
    found = [
        (
            block.locator(".opblock-summary-method").inner_text().lower(),
            block.locator(".opblock-summary-path").inner_text(),
        )
        for block in shown.all()
    ]
    assert [(method, path.replace("\u200b", "")) for method, path in found] == expected
    page.locator("#operations-stream-stream .opblock-summary-control").click()
    tables = page.locator("#operations-stream-stream .opblock-description table")
    expect(tables).to_have_count(3)  # transports, odd lines, close codes
    assert (seen.hosts - {""}, seen.said) == ({urlsplit(server.url).netloc}, [])


def test_calls_can_be_tried_out(server: LocalServer, tab: tuple[Page, Seen]) -> None:
    """Refused without a token, answered with one; what changes something, too, with its example as it stands."""
    page, seen = tab
    page.goto(server.url + "/docs")
    active = operation(page, "runs", "active")
    status, problem = tried(active)
    assert (status, problem["type"]) == (401, "urn:nextflow-controller:problem:token")
    page.locator(".btn.authorize").click()
    page.get_by_label("bearer-value").fill(server.authorization["authorization"].removeprefix("Bearer "))
    page.locator(".auth-btn-wrapper .authorize").first.click()
    page.locator(".btn-done").first.click()
    assert tried(active) == (200, {"active": False, "run": None})
    status, answer = tried(operation(page, "runs", "cancel"))
    assert (status, answer["type"]) == (404, "urn:nextflow-controller:problem:nothing-active")
    run = operation(page, "runs", "run")
    examples = openapi()["components"]["schemas"]["RunRequest"]["examples"]
    assert json.loads(run.locator("textarea").input_value()) == examples[0]
    assert [said for said in seen.said if "401" not in said and "404" not in said] == []
    assert seen.hosts - {""} == {urlsplit(server.url).netloc}
