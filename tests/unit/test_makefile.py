"""What people are told to make is there to be made."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*## .", MAKEFILE, re.MULTILINE))


def test_each_target_says_what_it_does() -> None:
    """As `make` alone shows them; of one without a rule it would say that there is nothing to be done."""
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony.split()) == TARGETS


def test_each_target_that_is_named_anywhere_is_there() -> None:
    """In what people read, and in what the code says of itself."""
    files = [*ROOT.glob("*.md"), *(path for name in ("common", "functions", "chart", "tests") for path in _texts(name))]
    named = {target: path for path in files for target in re.findall(r"`make ([a-z-]+)", path.read_text())}
    assert {"faults", "demo"} <= named.keys()
    assert {target: path for target, path in named.items() if target not in TARGETS} == {}


def _texts(directory: str) -> list[Path]:
    return [path for path in (ROOT / directory).rglob("*") if path.suffix in (".md", ".py") and path != Path(__file__)]
