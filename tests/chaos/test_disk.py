"""The disk under the state directory, and so under logs and archive, is full."""

from contextlib import closing
from pathlib import Path

import pytest

from tests.chaos.conftest import Judge
from tests.chaos.disks import small_disk
from tests.chaos.places import Local
from tests.integration.server import poll, processes

pytestmark = pytest.mark.slow


@pytest.mark.fault("the disk under the runs' logs and their archive is full")
def test_no_room_for_logs(directory: Path, judge: Judge) -> None:
    """A run's output waits for room and none of it is lost; what cannot be written is refused, and not half done."""
    with small_disk(directory / "state") as disk, closing(Local(directory)) as local:
        audit = judge(local)
        run_id = audit.started(audit.witness)
        (tag,) = audit.accepted
        disk.fill()
        answer = audit.ask(audit.witness)
        assert (answer.status_code, answer.json().get("run_id")) in ((200, run_id), (503, None))
        assert audit.cancel(audit.witness, run_id).status_code == 503
        audit.may_be_cancelled.clear()  # nothing was done
        local.let(run_id, [tag])
        for _ in poll("the head to be gone"):
            if not processes("bash", tag):
                break
        disk.free()
        audit.check()
        disk.fill()
        assert audit.ask(audit.witness).status_code == 503
        disk.free()
        audit.finish()
