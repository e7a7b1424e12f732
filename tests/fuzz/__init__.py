"""What others may have written: each parser is given what it was not made for, and has to say so or make sense of it.

`make fuzz EXAMPLES=…` plays as many inputs a test as it is told; `make test` plays a few.
"""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = settings(
    max_examples=int(os.environ.get("EXAMPLES", "100")),
    # Of a test's fixtures nothing remembers an input.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
