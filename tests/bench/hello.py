"""The least that functions-framework can serve: what a function's cold start is compared with."""

from starlette.requests import Request


async def hello(request: Request) -> str:
    """Answer."""
    return "hello"
