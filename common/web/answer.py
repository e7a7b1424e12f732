"""Answers as JSON."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response


def answer(body: BaseModel | dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; never cached, for what it says is about now."""
    content = body.model_dump_json() if isinstance(body, BaseModel) else to_json(body)
    return Response(content, status, {"cache-control": "no-store", **(headers or {})}, "application/json")
