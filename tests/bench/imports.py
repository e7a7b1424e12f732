"""Where a cold start goes: what importing costs until the first answer, by package, beyond what the bare one imports.

Measured in the very process (`PYTHONPROFILEIMPORTTIME`), master and worker together. The measuring
itself makes everything a third slower: for comparing, not for adding up.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from statistics import median

from tests.bench.cold import FUNCTIONS, HELLO, first_answer
from tests.bench.scene import Scene

_LINE = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s*(\S+)$", re.MULTILINE)


def costs(scene: Scene, rounds: int, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Milliseconds by function and package; our own modules one by one."""
    say("imports")
    bare = _modules(scene, HELLO)
    found: dict[str, dict[str, float]] = {}
    for name in FUNCTIONS:
        seen = [_modules(scene, name) for _ in range(rounds)]
        added = {module for modules in seen for module in modules} - set(bare)
        found[name] = _by_package({module: median(one.get(module, 0) for one in seen) for module in added})
    return found


def _modules(scene: Scene, name: str) -> Mapping[str, float]:
    written = first_answer(scene, name, {**scene.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    return {module: int(microseconds) / 1000 for microseconds, module in _LINE.findall(written)}


def _by_package(modules: Mapping[str, float]) -> dict[str, float]:
    packages: dict[str, float] = defaultdict(float)
    for module, milliseconds in modules.items():
        ours = module.startswith(("common.", "functions."))
        packages[module if ours else module.partition(".")[0]] += milliseconds
    return {package: round(milliseconds, 1) for package, milliseconds in packages.items()}
