"""What others may have written or sent: each parser says what it cannot use, or makes sense of it.

`make fuzz EXAMPLES=…` plays as many inputs a test as it is told, and ends with a table; `make test` plays a few.
"""

import functools
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

_EXAMPLES = int(os.environ.get("EXAMPLES", "60"))
_LEAST = 10

PLAYED: Counter[str] = Counter()  # by test: what it was given so far, in this process


def fuzz(*inputs: SearchStrategy[Any], share: int = 1) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Play a test with inputs of these kinds; with a `share`th of them where each takes long."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def counted(*args: Any, **kwargs: Any) -> None:
            PLAYED[test.__name__] += 1
            test(*args, **kwargs)

        limits = settings(
            max_examples=max(_EXAMPLES // share, _LEAST),
            # Of a test's fixtures nothing remembers an input.
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        )
        return limits(given(*inputs)(counted))

    return decorate
