"""Break the code on purpose: replace text in a function's source, for the length of a test."""

import inspect
import linecache
import textwrap
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest


def replaced(source: str, changes: dict[str, str]) -> str:
    """The source with each old text, which is there once, replaced by its new one."""
    for old, new in changes.items():
        assert source.count(old) == 1, f"not there once: {old}"
        source = source.replace(old, new)
    return source


def mutate(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], changes: dict[str, str]) -> None:
    """Let `function` run as if its source were changed so, for all who hold it."""
    assert isinstance(function, FunctionType)
    linecache.checkcache()
    source = textwrap.dedent(inspect.getsource(function))
    names: dict[str, Any] = {}
    exec(compile(replaced(source, changes), "<mutant>", "exec"), function.__globals__, names)  # noqa: S102 # our own source
    monkeypatch.setattr(function, "__code__", names[function.__name__].__code__)
