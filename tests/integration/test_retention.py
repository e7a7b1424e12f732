"""A run of whose log Redis holds a few lines is followed like any other."""

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.integration.server import LocalServer, log_text
from tests.integration.test_crash import CHATTY, Follower, exact

pytestmark = pytest.mark.slow

HELD = 20


def test_a_log_that_redis_holds_little_of_is_told_whole(
    make_server: Callable[..., LocalServer], state_dir: Path
) -> None:
    """While it is written, to who is cut and comes back, and afterwards: as text, as events, and from its end."""
    server = make_server(REDIS_LOG_LINES=str(HELD))
    run_id = server.run("chatty", parameters=CHATTY)["run_id"]
    live, cut = Follower(server, run_id), Follower(server, run_id, cuts=10, seed=3)
    lines = live.wait()
    exact(server, run_id, lines)
    assert cut.wait() == lines
    assert Follower(server, run_id).wait() == lines
    with redis.Redis(unix_socket_path=str(state_dir / "redis" / "redis.sock")) as client:
        assert client.xlen(f"nfc:log:{run_id}:1") == HELD
    written = log_text(state_dir, run_id).splitlines(keepends=True)
    for tail in (5, HELD, 100):
        assert server.text(run_id, tail=tail) == "".join(written[-tail:])
