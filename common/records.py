"""A run's record as Redis has it: what it says is taken for what was last seen of the run, if it can be that at all."""

from contextlib import suppress

from pydantic import ValidationError

from common.errors import Unavailable
from common.models import RunInfo


def told(raw: bytes | str, run_id: str) -> RunInfo:
    """What a record says of this run.

    Raises:
        Unavailable: nobody of ours has written it, so Redis does not know.
    """
    with suppress(ValidationError):
        found = RunInfo.model_validate_json(raw)
        if found.run_id == run_id:
            return found
    raise Unavailable("redis", f"The record of {run_id} in Redis is damaged.")
