"""The OpenAPI document: what is made of a declaration, and that the whole of it is valid, complete and current."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import BaseModel, ConfigDict, Field
from schemathesis.specs.openapi.definitions import OPENAPI_31
from starlette.responses import Response
from starlette.types import ASGIApp

from common import errors
from common.web import problem
from common.web.call import Answer, Call, Endpoint, Header
from common.web.call import json as answered
from common.web.messages import PROBLEM_URN, PROBLEMS
from common.web.openapi import Section, document
from functions.openapi import openapi, render
from functions.server import application

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = openapi()


class Asked(BaseModel):
    """Query parameters of the tests' endpoint."""

    size: int = Field(ge=1, description="How large.")
    name: str | None = Field(None, max_length=9, description="Whose.")
    ticket: str | None = None


class Brought(BaseModel):
    """What is brought."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"size": 2}]})

    size: int = 1
    note: str | None = None


class Made(BaseModel):
    """What is made."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    size: int = 1


class Said(BaseModel):
    """What is said."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "1", "type": "a"}]})

    id: str
    type: str


async def make(call: Call[Asked, Brought]) -> Response:
    """Make something.

    As large as it is said to be.
    """
    raise NotImplementedError


async def hear(call: Call[Any, Any]) -> ASGIApp:
    """Listen."""
    raise NotImplementedError


def common(*statuses: int) -> dict[str, Any]:
    """Answers that are the same for every endpoint."""
    return {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in statuses}


def test_an_endpoint_that_changes_something() -> None:
    """Its parameters, body, answers and refusals, all from its declaration."""
    made = Endpoint(
        "make",
        "POST",
        "/api/v1/pipeline/make/it",
        make,
        role="run",
        query=Asked,
        body=Brought,
        answers={201: answered(Made, "It was made.", {"Location": "Where it is."})},
        problems={404: "There is none."},
        headers={"Idempotency-Key": Header("What makes it the same.", "^k+$", "kk")},
    )
    found = document({"title": "T", "version": "1"}, [Section("things", "All things.", [made])])
    assert found["paths"] == {
        "/api/v1/pipeline/make/it": {
            "post": {
                "tags": ["things"],
                "operationId": "make_it",
                "summary": "Make something",
                "description": "As large as it is said to be.\n\nTakes a token of the role `run`.",
                "security": [{"bearer": []}],
                "parameters": [
                    {
                        "name": "size",
                        "in": "query",
                        "required": True,
                        "description": "How large.",
                        "schema": {"type": "integer", "minimum": 1},
                    },
                    {
                        "name": "name",
                        "in": "query",
                        "required": False,
                        "description": "Whose.",
                        "schema": {"type": "string", "maxLength": 9},
                    },
                    {
                        "name": "ticket",
                        "in": "query",
                        "required": False,
                        "description": "",
                        "schema": {"type": "string"},
                    },
                    {
                        "name": "Idempotency-Key",
                        "in": "header",
                        "required": False,
                        "description": "What makes it the same.",
                        "schema": {"type": "string", "pattern": "^k+$", "examples": ["kk"]},
                    },
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Brought"}}},
                },
                "responses": {
                    "201": {
                        "description": "It was made.",
                        "headers": {
                            "X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"},
                            "RateLimit": {"$ref": "#/components/headers/RateLimit"},
                            "RateLimit-Policy": {"$ref": "#/components/headers/RateLimit-Policy"},
                            "Location": {"description": "Where it is.", "schema": {"type": "string"}},
                        },
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Made"}}},
                    },
                    **common(400, 401, 403),
                    "404": {
                        "description": "There is none.",
                        "headers": {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}},
                        "content": {
                            "application/problem+json": {
                                "schema": {"$ref": "#/components/schemas/Problem"},
                                "example": {
                                    "type": PROBLEM_URN + "run-not-found",
                                    "title": "…",
                                    "status": 404,
                                    "detail": "…",
                                    "request_id": "…",
                                },
                            }
                        },
                    },
                    **common(413, 415, 421, 422, 429, 500, 503),
                },
            }
        }
    }
    schemas = found["components"]["schemas"]
    assert list(schemas) == ["Brought", "Made", "Place", "Problem"]
    assert schemas["Brought"] == {
        "title": "Brought",
        "description": "What is brought.",
        "type": "object",
        "examples": [{"size": 2}],
        "properties": {
            "size": {"type": "integer", "default": 1},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
    }
    assert schemas["Made"] == {
        "title": "Made",
        "description": "What is made.",
        "type": "object",
        "properties": {"size": {"type": "integer"}},
        "required": ["size"],
    }


def test_an_endpoint_that_streams() -> None:
    """Sequences name what each of them is; a ticket is a way to show who calls, and no parameter; a WebSocket."""
    made = Endpoint(
        "listen",
        "GET",
        "/listen",
        make,
        query=Asked,
        tickets=True,
        answers={
            200: Answer("What is said.", {"text/event-stream": Said, "text/plain": None}),
            204: Answer("Silence."),
        },
        socket=hear,
        messages=Said,
        closes={"1000": "All is said.", "1012": "Come back."},
        notes="\nMore about it.\n",
    )
    found = document({}, [Section("things", "All things.", [made])])["paths"]["/listen"]["get"]
    said = {"$ref": "#/components/schemas/Said"}
    assert [parameter["name"] for parameter in found["parameters"]] == ["size", "name"]
    assert found["security"] == [{"bearer": []}, {"ticket": []}]
    assert found["responses"]["200"]["content"] == {
        "text/event-stream": {
            "schema": {"type": "string"},
            "x-itemSchema": said,
            "example": 'id: 1\nevent: a\ndata: {"id":"1","type":"a"}\n\n',
        },
        "text/plain": {"schema": {"type": "string"}},
    }
    assert list(found["responses"]) == ["200", "204", "400", "401", "421", "422", "429", "500", "503"]
    assert "content" not in found["responses"]["204"]
    assert found["description"] == (
        "As large as it is said to be.\n\nTakes a token of the role `read`.\n\nMore about it.\n\n"
        "A WebSocket is closed with\n\n| code | means |\n| --- | --- |\n| 1000 | All is said. |\n| 1012 | Come back. |"
    )
    assert found["x-websocket"] == {
        "url": "/listen",
        "messages": said,
        "closes": {"1000": "All is said.", "1012": "Come back."},
    }


def test_an_endpoint_for_everybody() -> None:
    """It asks for no token, has no quota, and is refused nothing for either."""
    made = Endpoint("probe", "GET", "/probe", make, role=None, answers={200: answered(Made, "It serves.")})
    found = document({}, [Section("things", "All things.", [made])])["paths"]["/probe"]["get"]
    assert found["security"] == []
    assert found["description"] == "As large as it is said to be.\n\nOpen to everybody."
    assert list(found["responses"]) == ["200", "400", "422", "500"]
    assert list(found["responses"]["200"]["headers"]) == ["X-Request-Id"]


def test_the_committed_document_is_up_to_date() -> None:
    """It says what the declarations say; `make openapi` renews it."""
    assert (ROOT / "functions" / "docs" / "openapi.json").read_text("utf-8") == render()


def test_the_document_is_valid() -> None:
    """By the specification's own schema of OpenAPI 3.1; every schema in it by JSON Schema's; every reference leads."""
    jsonschema_rs.Draft202012Validator(OPENAPI_31).validate(DOCUMENT)
    for schema in schemas(DOCUMENT):
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    references = set(re.findall(r'"#/([^"]+)"', render()))
    assert len(references) > 30
    for reference in references:
        place: Any = DOCUMENT
        for part in reference.split("/"):
            place = place[part]


def schemas(value: Any) -> Iterator[dict[str, Any]]:
    """All schemas of a document: components', parameters', headers', media types'."""
    if isinstance(value, dict):
        yield from value.get("schemas", {}).values()
        if isinstance(value.get("schema"), dict):
            yield value["schema"]
        for inner in value.values():
            yield from schemas(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from schemas(inner)


def test_everything_that_is_served_is_described() -> None:
    """Every path and method of every function, but for the pages; no operation has another's name."""
    served = {(endpoint.path, endpoint.method.lower()) for endpoint in application().endpoints}
    health = {(path, "get") for path in ("/healthz", "/health", "/readyz", "/metrics")}
    pages = {(path, method) for path, method in served if path.startswith(("/docs", "/follow", "/openapi"))}
    described = {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == (served - pages) | health
    names = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert names == [
        *("run", "status", "active", "cancel", "history", "stream", "stream_ticket"),
        *("healthz", "health", "readyz", "metrics"),
    ]


def test_everything_is_explained() -> None:
    """Each parameter, header and answer says what it means, each operation what it does."""
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            described = [*operation.get("parameters", ()), *operation["responses"].values()]
            assert [part for part in described if "$ref" not in part and not part["description"]] == []
            assert operation["summary"]
            assert operation["description"]


def test_every_type_of_problem_is_named() -> None:
    """Those in the document are those in the code, each with its status."""
    found = set()
    for path in sorted((ROOT / "common").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            match call:
                case ast.Call(
                    func=ast.Name("problem") | ast.Attribute(attr="problem"),
                    args=[ast.Constant(status), ast.Constant(kind), *_],
                ):
                    found.add((kind, status))
    assert found == set(PROBLEMS.items())


@pytest.mark.parametrize(
    "error",
    [
        errors.ControllerError("x"),
        errors.Invalid("limit", "too many"),
        errors.NotAllowed("/pipeline", "not from there"),
        errors.RunNotFound("run-aaaaaaaaaaaaaaaa"),
        errors.NothingActive(),
        errors.Busy("run-aaaaaaaaaaaaaaaa", "busy", pipeline="owner/name", triggered_by="ada", retry_after_seconds=3),
        errors.KeyReused("run-aaaaaaaaaaaaaaaa"),
        errors.OutcomeUnknown("runner", "away", run_id="run-aaaaaaaaaaaaaaaa"),
        errors.Unavailable("redis", "away"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_problems_fit_their_schema(error: errors.ControllerError) -> None:
    """What is told of an error is what the document says of problems, member by member."""
    told = json.loads(bytes(problem.of_error(error).body))
    components = DOCUMENT["components"]
    fits = jsonschema_rs.Draft202012Validator({"$ref": "#/components/schemas/Problem", "components": components})
    fits.validate(told)
    assert told.keys() <= components["schemas"]["Problem"]["properties"].keys()
    assert PROBLEMS[told["type"].removeprefix(PROBLEM_URN)] == told["status"]


def test_websocket_codes_are_those_that_are_sent() -> None:
    """The table of close codes has each code that the stream ends with, and no other."""
    source = (ROOT / "common" / "web" / "websocket.py").read_text("utf-8")
    sent = set(re.findall(r"Close\((\d+),", source))
    closes = DOCUMENT["paths"]["/api/v1/pipeline/stream"]["get"]["x-websocket"]["closes"]
    assert closes.keys() == sent | {"4000 + status"}
