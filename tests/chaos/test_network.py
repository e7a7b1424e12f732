"""The network between a server and Redis is cut: what was sent may have arrived, and nothing comes back."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.chaos.conftest import Judge
from tests.chaos.midrun import followed
from tests.chaos.places import Local
from tests.chaos.wires import network
from tests.integration.server import PROGRAM

pytestmark = pytest.mark.slow


@pytest.mark.fault("the network between a server and Redis is cut, without a word")
def test_cut_off_from_redis(directory: Path, judge: Judge) -> None:
    """The server that is cut off starts, attaches and cancels as the others do, and they see what it did."""
    with (
        network() as own,
        closing(Local(directory, f"bind 127.0.0.1 {own.outward.here}", "protected-mode no")) as local,
    ):
        audit = judge(local)
        victim = local.server(
            (*own.enter, *PROGRAM),
            HOST=own.inward.there,
            ALLOWED_HOSTS=own.inward.there,
            REDIS_URL=f"redis://{own.outward.here}:{local.redis.port}",
        )
        with followed(audit, audit.witness, victim):
            own.outward.cut()
        run_id = audit.started(victim)
        audit.gone(audit.witness, run_id)
        run_id = audit.started(audit.witness)
        audit.gone(victim, run_id)
        with followed(audit, victim, audit.witness):
            own.outward.join()
        audit.finish()
