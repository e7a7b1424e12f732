"""Values that are nearly right, or not at all."""

import json
from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([10**400, -1, 2**63, "\x00", "\u2028", "\U0001f600", "../..", "$(PATH)"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
DEEP = st.builds(
    lambda opened, count, closed: opened * count + "1" + closed * count,
    st.sampled_from(["[", '{"x":']),
    st.sampled_from([150, 197, 198, 199, 200, 1000, 5000]),
    st.sampled_from(["]", "}", ""]),
)
TIMES = st.sampled_from(
    [
        "2030-01-02T03:04:05Z",
        "2030-01-02",
        "2030-01-02T03:04:05",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "1969-12-31T23:59:59.999999999Z",
        "9999-99-99T99:99:99Z",
        "never",
        "",
    ]
) | st.text(max_size=20)
# As JSON has it, and JSON's parsers may not.
ODD_JSON = st.sampled_from(
    [
        "NaN",
        "-Infinity",
        "1e999",
        "-0",
        "9" * 5000,
        "1." + "0" * 400,
        '"\\ud800"',
        '"\\u0000"',
        "'x'",
        "/**/1",
        "01",
        "",
    ]
)


def text_of(value: Any) -> str:
    """A value as JSON, half of a surrogate pair and numbers without an end included."""
    try:
        return json.dumps(value)
    except ValueError:  # more digits than Python writes
        return "9" * 5000


def members(whole: dict[str, Any]) -> st.SearchStrategy[str]:
    """An object of these members, some of them replaced, left out, given twice, or besides others."""
    names = st.sampled_from([*sorted(whole), "x", "__class__", ""])
    value = st.one_of(JSON.map(text_of), TIMES.map(text_of), ODD_JSON, DEEP)
    changed = st.dictionaries(names, value, max_size=2)
    twice = st.lists(st.tuples(names, value), max_size=1)

    def told(changes: dict[str, str], again: list[tuple[str, str]], gone: set[str]) -> str:
        kept = {name: text_of(value) for name, value in whole.items() if name not in gone} | changes
        return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in [*kept.items(), *again]) + "}"

    return st.builds(told, changed, twice, st.sets(names, max_size=1))


def changed(model: BaseModel) -> st.SearchStrategy[str]:
    """A model's JSON with something else in it, or in its place."""
    return st.one_of(
        st.just(model.model_dump_json()), members(model.model_dump(mode="json")), JSON.map(text_of), DEEP, st.text()
    )
