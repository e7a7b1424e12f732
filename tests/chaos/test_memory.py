"""A server has no memory left, and the kernel kills it."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.chaos.conftest import Judge
from tests.chaos.midrun import followed
from tests.chaos.places import Local

pytestmark = pytest.mark.slow

_GROUPS = Path("/sys/fs/cgroup")
_MORE_BYTES = 4 * 2**20
_CALLS = 200


@contextmanager
def little_memory(process: psutil.Process) -> Iterator[None]:
    """Let a process have a little more memory than it has, and be killed by the kernel when it wants more than that."""
    one, all_of_it = _GROUPS / "memory", _GROUPS / "cgroup.subtree_control"
    if one.is_dir():
        parent, limit = one, "memory.limit_in_bytes"
    elif all_of_it.is_file() and "memory" in all_of_it.read_text().split():
        parent, limit = _GROUPS, "memory.max"
    else:
        pytest.skip("there is no memory controller of control groups")
    group = parent / f"nfc-chaos-{secrets.token_hex(3)}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error.strerror}")
    try:
        (group / limit).write_text(str(_MORE_BYTES))
        (group / "cgroup.procs").write_text(str(process.pid))  # what it has already counts where it was
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.kill()
            process.wait()
        group.rmdir()


@pytest.mark.fault("a server is killed for want of memory, with hundreds of requests open")
def test_out_of_memory(directory: Path, judge: Judge) -> None:
    """Whoever asked it got a true answer or none; the run goes on, and others serve as before."""
    with closing(Local(directory)) as local:
        audit = judge(local)
        victim = local.server()
        with followed(audit) as run_id, little_memory(victim.process), ThreadPoolExecutor(_CALLS) as pool:
            # Attached to what runs, each of them, after its body was read.
            body = {"pipeline": "owner/stub", "parameters": {"long": "x" * 100_000}}

            def call(_: int) -> int | None:
                with suppress(httpx.TransportError):
                    answer = victim.call("POST", "/run", json=body)
                    assert answer.json()["run_id"] == run_id
                    return answer.status_code
                return None

            assert set(pool.map(call, range(_CALLS))) <= {200, None}
            assert not victim.alive
        audit.finish()
