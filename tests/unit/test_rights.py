"""The chart grants each function what its code calls, and nothing else: compared with the calls of played histories."""

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # comes without types

from common import cancel, claim, look
from common.kube import prepare
from functions.server import FUNCTIONS
from tests.simulation.history import play
from tests.simulation.redis_model import RedisModel
from tests.simulation.world import World

pytestmark = pytest.mark.slow

Rights = dict[str, set[str]]  # verbs by resource

_CHART = Path(__file__).resolve().parents[2] / "chart"
_PATH = re.compile(r"/apis?/.*/namespaces/[^/]+/(?P<resource>[a-z]+)(?P<one>/[^/]+)?")
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_LEAST, _MOST = (
    200,
    4000,
)  # histories; the rarest call, for what holds up a run that is asked for, is in one of a hundred

# What each function asks the library for.
_CALLS: dict[str, tuple[Any, str]] = {
    "run": (claim, "start"),
    "cancel": (cancel, "cancel"),
    "active": (look, "active"),
    "status": (look, "run"),
    "history": (look, "history"),
}


def granted() -> dict[str, Rights]:
    """The chart's table."""
    table = yaml.safe_load((_CHART / "files" / "rights.yaml").read_text())
    return {
        function: {resource: set(verbs) for resource, verbs in rights.items()} for function, rights in table.items()
    }


@pytest.fixture(scope="module")
def called() -> dict[str, Rights]:
    """What each function was seen to call: starts, cancels and readers, with everything that can go wrong."""
    found: dict[str, Rights] = {who: defaultdict(set) for who in (*_CALLS, "head")}
    asking: ContextVar[str | None] = ContextVar("asking", default=None)

    def labelled(function: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def labelled_call(*args: Any, **options: Any) -> Any:
            token = asking.set(asking.get() or function)  # of calls within calls the outermost is the function's
            try:
                return await call(*args, **options)
            finally:
                asking.reset(token)

        return labelled_call

    step = World.api_step

    async def recorded(world: World, process: Any, method: str, path: str, *rest: Any) -> Any:
        call = _PATH.fullmatch(path)
        assert call is not None
        verb = _VERBS.get(method, "get" if call["one"] else "list")
        if (function := asking.get()) is not None:
            found[function][call["resource"]].add(verb)
        return await step(world, process, method, path, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "api_step", recorded)
        for function, (module, name) in _CALLS.items():
            patch.setattr(module, name, labelled(function, getattr(module, name)))
        patch.setattr(prepare, "_end_earlier", labelled("head", prepare._end_earlier))
        store = RedisModel()
        for seed in range(_MOST):
            if seed >= _LEAST and not _unused(found):
                break
            play(seed, store)
    return {function: dict(rights) for function, rights in found.items()}


def _unused(found: dict[str, Rights]) -> bool:
    return any(verbs - found[one][resource] for one in _CALLS for resource, verbs in granted()[one].items())


def test_every_function_has_its_rights() -> None:
    """The table has the functions, all of them, and the clean-up, and nobody else."""
    assert set(granted()) == {*FUNCTIONS, "cleanup"}


@pytest.mark.parametrize("function", _CALLS)
def test_a_function_may_do_what_it_calls(function: str, called: dict[str, Rights]) -> None:
    """Not a verb less, and not one more."""
    assert granted()[function] == called[function]


def test_a_head_may_end_what_the_last_one_left(called: dict[str, Rights]) -> None:
    """Its Role is for Nextflow; what prepares a later attempt calls nothing that is not in it."""
    role = (_CHART / "templates" / "runs-role.yaml").read_text().partition("---")[0]
    rules = yaml.safe_load("\n".join(line for line in role.splitlines() if "{{" not in line))["rules"]
    allowed = {resource: set(rule["verbs"]) for rule in rules for resource in rule["resources"]}
    assert called["head"].keys() == {"pods", "jobs"}
    assert {kind: verbs - allowed[kind] for kind, verbs in called["head"].items()} == {"pods": set(), "jobs": set()}


def test_a_stream_reads_as_status_does_and_the_log_besides() -> None:
    """It looks at runs in the same way."""
    assert granted()["stream"] == {**granted()["status"], "pods/log": {"get"}}


def test_the_docs_are_ready_when_the_lease_can_be_read() -> None:
    """Which is all that anybody's `/readyz` asks of the cluster."""
    assert granted()["docs"] == {"leases": {"get"}}
