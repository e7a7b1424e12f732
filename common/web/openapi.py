"""The OpenAPI 3.1 document, made of what the endpoints declare and of the models they use.

A pure function: the same endpoints give the same document, so the one that is committed can be compared.
Nothing is described here that a declaration could say; this file knows what is common to all endpoints.
"""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from common.web.call import Answer, Endpoint, Nothing
from common.web.endpoint import PREFIX
from common.web.messages import PROBLEM_URN, PROBLEMS, Problem
from common.web.problem import MEDIA_TYPE

_JSON = "application/json"
_SAFE = frozenset({"GET", "HEAD"})
_TICKET = "ticket"  # the query parameter that is described as a way to show who calls

_HEADERS = {
    "RateLimit": 'What is left of the quota: `"NAME";r=CALLS;t=SECONDS`. Not with `RATE_LIMITS=off`.',
    "RateLimit-Policy": 'The quota: `"NAME";q=CALLS;w=SECONDS`; counted by each caller and function.',
    "Retry-After": "Seconds after which to come back.",
    "WWW-Authenticate": "`Bearer`, and what was wrong with the token or ticket if there was one (RFC 6750).",
    "X-Request-Id": "This request's id in the server's log: the caller's own, if it sent one that is fit to be logged.",
}
_LIMIT_HEADERS = ("RateLimit", "RateLimit-Policy")
_PROBLEM_HEADERS: Mapping[int, tuple[str, ...]] = {
    401: ("WWW-Authenticate",),
    409: ("Retry-After",),
    429: (*_LIMIT_HEADERS, "Retry-After"),
    503: ("Retry-After",),
}
_PROBLEMS = {
    400: "The body is not JSON; or the request is not as HTTP has it, or names no server or several in `Host`.",
    401: "No token was shown, or one that is nobody's; or a ticket that was used or is too old.",
    403: "The token is of the role `read` and this takes `run`, or the request comes from a page of another origin.",
    413: "The body is too long.",
    415: "The body is not sent as `application/json`.",
    421: "The server is not called by this name: see its `ALLOWED_HOSTS`.",
    422: "A parameter, a header or the body is not valid: `errors` says where.",
    429: "Too many calls.",
    500: "Something is wrong on the server's side, and was logged.",
    503: "A dependency does not answer, or the outcome of what was begun is not known: then `run_id` says of what.",
}
# Sequences of JSON documents, and how one is written in each.
_SEQUENCES = {
    "text/event-stream": "id: {id}\nevent: {type}\ndata: {json}\n\n",
    "application/x-ndjson": "{json}\n",
}
_SECURITY = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of the role `read` or `run`; `run` may read, too. With `AUTH=off` none is asked for.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": _TICKET,
        "description": "From `POST /stream/ticket`; of use once and soon. "
        "For a browser's `EventSource` and `WebSocket`, which cannot send a token.",
    },
}


@dataclass(frozen=True, slots=True)
class Section:
    """Endpoints that are shown together."""

    name: str
    description: str
    endpoints: Sequence[Endpoint]


def document(info: Mapping[str, Any], sections: Sequence[Section]) -> dict[str, Any]:
    """The OpenAPI document of these endpoints."""
    every = [endpoint for section in sections for endpoint in section.endpoints]
    schemas = _Schemas(every)
    paths: dict[str, dict[str, Any]] = {}
    for section in sections:
        for endpoint in section.endpoints:
            operation = {"tags": [section.name], **_operation(endpoint, schemas)}
            paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": dict(info),
        "servers": [{"url": "/"}],
        "tags": [{"name": section.name, "description": section.description} for section in sections],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {f"Problem{status}": _problem(status, text) for status, text in _PROBLEMS.items()},
            "headers": {name: _text(description) for name, description in _HEADERS.items()},
            "securitySchemes": _SECURITY,
        },
    }


class _Schema(GenerateJsonSchema):
    """Schemas without what says nothing: titles made of names, and defaults of what is always there or null."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if self.mode == "serialization" or made.get("default", ...) is None:
            made.pop("default", None)
        return made


class _Schemas:
    """The schemas of all models that go in or out, each under its name."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        models = dict.fromkeys(_models(endpoints))
        template = "#/components/schemas/{model}"
        self._found, made = models_json_schema(tuple(models), ref_template=template, schema_generator=_Schema)
        self.components: dict[str, Any] = dict(sorted(made["$defs"].items()))

    def into(self, model: type[BaseModel]) -> JsonSchemaValue:
        """A reference to the schema of a model that comes in."""
        return self._found[model, "validation"]

    def out(self, model: type[BaseModel]) -> JsonSchemaValue:
        """A reference to the schema of a model that goes out."""
        return self._found[model, "serialization"]


def _models(endpoints: Sequence[Endpoint]) -> Iterator[tuple[type[BaseModel], JsonSchemaMode]]:
    yield Problem, "serialization"
    for endpoint in endpoints:
        if endpoint.body is not Nothing:
            yield endpoint.body, "validation"
        answers = [model for answer in endpoint.answers.values() for model in answer.content.values()]
        for model in (*answers, endpoint.messages):
            if model is not None:
                yield model, "serialization"


def _operation(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    summary, _, more = inspect.cleandoc(endpoint.handler.__doc__ or "").partition("\n")
    operation: dict[str, Any] = {
        "operationId": _name(endpoint),
        "summary": summary.rstrip("."),
        "description": _description(endpoint, more),
        "security": _security(endpoint),
    }
    if parameters := [*_parameters(endpoint)]:
        operation["parameters"] = parameters
    if endpoint.body is not Nothing:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": schemas.into(endpoint.body)}}}
    operation["responses"] = _responses(endpoint, schemas)
    if endpoint.messages is not None:
        operation["x-websocket"] = {
            "url": endpoint.path,
            "messages": schemas.out(endpoint.messages),
            "closes": dict(endpoint.closes),
        }
    return operation


def _description(endpoint: Endpoint, more: str) -> str:
    role = "Open to everybody." if endpoint.role is None else f"Takes a token of the role `{endpoint.role}`."
    parts = [more.strip(), role, endpoint.notes.strip()]
    if endpoint.closes:
        table = "\n".join(f"| {code} | {meaning} |" for code, meaning in endpoint.closes.items())
        parts.append(f"A WebSocket is closed with\n\n| code | means |\n| --- | --- |\n{table}")
    return "\n\n".join(part for part in parts if part)


def _name(endpoint: Endpoint) -> str:
    """`run` for /api/v1/pipeline/run, `stream_ticket` for …/stream/ticket."""
    return endpoint.path.removeprefix(PREFIX).strip("/").replace("/", "_")


def _security(endpoint: Endpoint) -> list[dict[str, list[str]]]:
    if endpoint.role is None:
        return []
    return [{"bearer": []}, {"ticket": []}] if endpoint.tickets else [{"bearer": []}]


def _parameters(endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    schema = endpoint.query.model_json_schema(schema_generator=_Schema)
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        if endpoint.tickets and name == _TICKET:
            continue
        description = field.pop("description", "")
        where = {"name": name, "in": "query", "required": name in required}
        yield where | {"description": description, "schema": _without_null(field)}
    for name, header in endpoint.headers.items():
        schema = {"type": "string", "pattern": header.pattern, "examples": [header.example]}
        yield {"name": name, "in": "header", "required": False, "description": header.description, "schema": schema}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query string cannot say null: what may be null is what may be left out."""
    some: list[dict[str, Any]] = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(some) != 1:
        return schema
    return some[0] | {name: value for name, value in schema.items() if name != "anyOf"}


def _responses(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    found = {status: _answer(endpoint, answer, schemas) for status, answer in endpoint.answers.items()}
    for status in _common(endpoint):
        found[status] = {"$ref": f"#/components/responses/Problem{status}"}
    for status, description in endpoint.problems.items():
        found[status] = _problem(status, description)
    return {str(status): found[status] for status in sorted(found)}


def _common(endpoint: Endpoint) -> Iterator[int]:
    """The problems that an endpoint may have for what it is, whatever it does."""
    yield from (400, 422, 500)
    if endpoint.role is not None:
        yield from (401, 421, 429, 503)
    if endpoint.role == "run" or endpoint.method not in _SAFE:
        yield 403
    if endpoint.body is not Nothing:
        yield from (413, 415)


def _answer(endpoint: Endpoint, answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    general = ("X-Request-Id", *(_LIMIT_HEADERS if endpoint.role is not None else ()))
    headers = _references(general) | {name: _text(text) for name, text in answer.headers.items()}
    found: dict[str, Any] = {"description": answer.description, "headers": headers}
    if answer.content:
        found["content"] = {kind: _content(kind, model, schemas) for kind, model in answer.content.items()}
    return found


def _content(kind: str, model: type[BaseModel] | None, schemas: _Schemas) -> dict[str, Any]:
    if model is None:
        return {"schema": {"type": "string"}}
    if kind == _JSON:
        return {"schema": schemas.out(model)}
    # OpenAPI 3.2 has `itemSchema` for what each of a sequence is, 3.1 nothing.
    found: dict[str, Any] = {"schema": {"type": "string"}, "x-itemSchema": schemas.out(model)}
    for example in schemas.components[model.__name__].get("examples", ()):
        text = json.dumps(example, separators=(",", ":"), ensure_ascii=False)
        found["example"] = _SEQUENCES[kind].format(**example, json=text)
    return found


def _problem(status: int, description: str) -> dict[str, Any]:
    kind = next(kind for kind, its_status in PROBLEMS.items() if its_status == status)
    example = {"type": PROBLEM_URN + kind, "title": "…", "status": status, "detail": "…", "request_id": "…"}
    return {
        "description": description,
        "headers": _references(("X-Request-Id", *_PROBLEM_HEADERS.get(status, ()))),
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}},
    }


def _references(headers: Sequence[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}


def _text(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}
