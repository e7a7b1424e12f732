"""The events that are sent are those that the OpenAPI document describes."""

import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema_rs
import pytest

from common.events import GAP, ZERO, Cursor, Line, LineId, encode
from common.frames import Lines
from common.models import ProcessProgress, Progress
from functions.openapi import openapi
from tests.unit import samples
from tests.unit.logs import World, world
from tests.unit.test_follow import hurry

__all__ = ["hurry"]  # a fixture

DOCUMENT = openapi()


@pytest.fixture
async def given(redis_url: str) -> AsyncIterator[World]:
    """An empty world."""
    async with world(redis_url) as made:
        yield made


def fits(event: dict[str, Any]) -> bool:
    """Whether an event is as described, formats included."""
    schema = {"$ref": "#/components/schemas/Event", "components": DOCUMENT["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    sent = json.loads(encode(event))
    named = DOCUMENT["components"]["schemas"]["Event"]["discriminator"]["mapping"][sent["type"]]
    by_type = jsonschema_rs.Draft202012Validator({**schema, "$ref": named}, validate_formats=True)
    return validator.is_valid(sent) and by_type.is_valid(sent)


@pytest.mark.slow
async def test_real_events_fit(given: World) -> None:
    """All that followers of real feeds are sent, of every type, with text of every kind."""
    old, new = given.runner.start(1), given.runner.start(2)
    given.runner.write(new, b"2026-11-24T01:02:03Z begins", b"", "ünï \u2028".encode(), b"\xff\x00\r raw", b"oops!")
    live = given.follow(run_id=new, after=Cursor(old, 1, ZERO))
    await live.until(lambda follower: len(follower.lines) == 5)
    counts = ProcessProgress(submitted=1, running=1)
    given.runner.runs[new].progress = Progress(total=counts, processes={"A": counts})
    await live.until(lambda follower: "progress" in follower.kinds)
    given.runner.skip(new, b"It is gone.")
    given.runner.restart(new)
    given.runner.end(new)
    await live.end()
    lost = given.follow(run_id=old)
    await lost.until(lambda follower: bool(follower.frames))
    given.runner.lose(old)
    await lost.end()
    sent = [event for follower in given.all for frame in follower.frames for event in frame.events()]
    assert {event["type"] for event in sent} == {"status", "log", "progress", "complete", "gap", "restarted", "error"}
    assert [event for event in sent if not fits(event)] == []


def _gap() -> dict[str, Any]:
    [event] = Lines(samples.RUN_ID, 1, ZERO.next(), [Line(LineId(1, 0), 1_000_000, GAP, b"It is gone.")]).events()
    return event


def test_rarer_events_fit() -> None:
    """A gap between two lines, and progress that is not known at this moment."""
    unknown = {**_gap(), "type": "progress", "data": {}}
    assert [fits(_gap()), fits(unknown)] == [True, True]


def test_what_is_no_event_does_not_fit() -> None:
    """The schema tells: a cursor, a type, a time, and the data of the type have to be there and nothing else."""
    good = _gap()
    changes: list[dict[str, Any]] = [
        {"id": "0-0"},
        {"type": "log"},
        {"run_id": "mine"},
        {"timestamp": "now"},
        {"data": {}},
        {"data": {**good["data"], "more": 1}},
        {"more": 1},
    ]
    assert [change for change in changes if fits({**good, **change})] == []
