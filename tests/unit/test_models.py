"""What may come in over the wire, field by field, and that nothing changes on the way through."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.models import LEVELS, CancelMark, Progress, RunInfo, RunRecord, RunRequest
from tests.unit.samples import MARK, RUN_ID, record, run


def _refused(**values: Any) -> list[tuple[Any, ...]]:
    with pytest.raises(ValidationError) as caught:
        RunRequest.model_validate({"pipeline": "p", **values})
    return sorted({error["loc"][:1] for error in caught.value.errors()})


def test_defaults() -> None:
    """Only the pipeline has to be said."""
    assert RunRequest(pipeline="p").model_dump() == {
        "pipeline": "p",
        "revision": None,
        "profile": None,
        "workdir": None,
        "parameters": {},
        "resume": False,
        "triggered_by": None,
        "on_busy": "attach",
    }


@pytest.mark.parametrize(
    "values",
    [
        {"pipeline": "examples/simple-pipeline"},
        {"pipeline": "https://github.com/nf-core/rnaseq.git"},
        {"pipeline": "git@host:owner/name.git"},
        {"pipeline": "x" * 1024},
        {"pipeline": "weird but harmless; $(true) 'name'"},
        {"revision": "v1.2.3-rc.1"},
        {"revision": "feature/a_b@c+d"},
        {"revision": "0" * 40},
        {"profile": "docker,test_full,a-b"},
        {"workdir": "team/a_b-c.d/2030"},
        {"resume": True},
        {"resume": RUN_ID},
        {"triggered_by": "Ada Lovelace <ada@example.org> ☃"},
        {"triggered_by": "-x"},
        {"on_busy": "reject"},
        {"parameters": {"--outdir": "-x", "a b": None, "list": [1, 2.5, "$(x)\n", True, {"deep": []}]}},
    ],
)
def test_accepted_as_it_is(values: dict[str, Any]) -> None:
    """Good values pass unchanged."""
    given = {"pipeline": "p", **values}
    assert RunRequest.model_validate(given).model_dump(exclude_unset=True) == given


_CONTROL = ["a\nb", "a\n", "\na", "a\x00", "a\x1b[0m", "a\x7f", "a\x85"]


@pytest.mark.parametrize("text", ["", "-profile", "--x", "@options", " p", "\tp", "x" * 1025, *_CONTROL])
def test_pipelines_refused(text: str) -> None:
    """A pipeline can neither be taken for an option, or a file of them, nor carry control characters."""
    assert _refused(pipeline=text) == [("pipeline",)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-r",
        "../x",
        "a..b",
        "a/../b",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a b",
        "a:b",
        "a^",
        "a~1",
        "é",
        "x" * 256,
        *_CONTROL,
    ],
)
def test_revisions_refused(text: str) -> None:
    """A revision is the name of a branch, a tag or a commit, and nothing else."""
    assert _refused(revision=text) == [("revision",)]


@pytest.mark.parametrize("text", ["", "-x", "a,", ",a", "a,,b", "a,-b", "a b", "a.b", "a/b", "é", "x" * 256, *_CONTROL])
def test_profiles_refused(text: str) -> None:
    """Profiles are plain names between commas."""
    assert _refused(profile=text) == [("profile",)]


@pytest.mark.parametrize(
    "text",
    [
        *["", "/", "/abs", "..", "../x", "a/..", "a/../b", ".", "./a", "a/./b", ".hidden", "a/.hidden", "a//b", "a/"],
        *["-a", "a/-b", "~", "~root", "$HOME", "a b", "a\\b", "a\\..\\b", "%2e%2e", "a:b", "s3://b/k", "é", "x" * 256],
        *_CONTROL,
    ],
)
def test_work_directories_refused(text: str) -> None:
    """A work directory stays below the volume's root, whatever is tried."""
    assert _refused(workdir=text) == [("workdir",)]


@pytest.mark.parametrize("text", ["", "x" * 129, *_CONTROL])
def test_people_refused(text: str) -> None:
    """A name fits on one line."""
    assert _refused(triggered_by=text) == [("triggered_by",)]


@pytest.mark.parametrize("value", ["", "true", "latest", "run-1", RUN_ID + "\n", RUN_ID.upper(), 1, 0, None, [], {}])
def test_resumes_refused(value: Any) -> None:
    """`resume` is a boolean or a run id; what merely looks like one is a mistake."""
    assert _refused(resume=value) == [("resume",)]


@pytest.mark.parametrize("value", ["", "wait", "ATTACH", None, True])
def test_other_ways_to_be_busy_refused(value: Any) -> None:
    """There are two."""
    assert _refused(on_busy=value) == [("on_busy",)]


@pytest.mark.parametrize("field", ["params", "Pipeline", "work_dir", "__class__", ""])
def test_unknown_fields_are_refused(field: str) -> None:
    """A misspelt field is not ignored."""
    assert _refused(**{field: 1}) == [(field,)]


@pytest.mark.parametrize("field", ["pipeline", "revision", "profile", "workdir", "triggered_by"])
@pytest.mark.parametrize("value", [1, True, ["p"], {"p": 1}])
def test_other_types_are_refused(field: str, value: Any) -> None:
    """Nothing is made a string that was none."""
    assert _refused(**{field: value}) == [(field,)]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_json_are_refused(number: float) -> None:
    """Neither at the top nor deep inside."""
    assert _refused(parameters={"x": number}) == [("parameters",)]
    assert _refused(parameters={"x": [{"y": [number]}]}) == [("parameters",)]


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**40])
def test_integers_that_nextflow_would_wrap_are_refused(number: int) -> None:
    """A value that would arrive as another is a mistake to be told, at the top and deep inside."""
    assert _refused(parameters={"x": number}) == [("parameters",)]
    assert _refused(parameters={"x": [{"y": [number]}]}) == [("parameters",)]
    edges = {"x": 2**63 - 1, "y": -(2**63)}
    assert RunRequest(pipeline="p", parameters=edges).parameters == edges


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", "[" * 50_000, '"\\ud800"'])
def test_bodies_that_are_no_parameters_are_refused(text: str) -> None:
    """A hostile body is a validation error, never a crash."""
    with pytest.raises(ValidationError):
        RunRequest.model_validate_json(f'{{"pipeline": "p", "parameters": {{"x": {text}}}}}')


@pytest.mark.parametrize("inmost", [1, "x", None, True, [], {}])
def test_what_is_accepted_is_not_too_deep_to_be_read_in_its_record(inmost: Any) -> None:
    """A record is a level deeper than its request: at the bound it is read back, beyond it the request is refused."""

    def nested(levels: int) -> dict[str, Any]:
        value = inmost
        for level in range(levels - (inmost in ([], {}))):  # an empty one is a level, too
            value = [value] if level % 2 else {"x": value}
        return {"x": value}

    accepted = record(request=RunRequest(pipeline="p", parameters=nested(LEVELS - 2)))
    assert RunRecord.model_validate_json(accepted.model_dump_json()) == accepted
    assert _refused(parameters=nested(LEVELS - 1)) == [("parameters",)]


@pytest.mark.parametrize("parameters", [[], "x", None, {"": 1}, {"x" * 257: 1}, {"x": {1, 2}}, {"x": b"b"}, {1: 1}])
def test_parameters_refused(parameters: Any) -> None:
    """Parameters are a JSON object with names."""
    assert _refused(parameters=parameters) == [("parameters",)]


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(min_size=1, max_size=256), _JSON, max_size=5))
def test_parameters_keep_value_and_type(parameters: dict[str, Any]) -> None:
    """Whatever JSON is sent is what is in the record after its way into the Job and back."""
    body = json.dumps({"pipeline": "p", "parameters": parameters})
    accepted = record(request=RunRequest.model_validate_json(body))
    back = RunRecord.model_validate_json(accepted.model_dump_json())
    assert back == accepted
    assert repr(back.request.parameters) == repr(parameters)


@pytest.mark.parametrize(
    "change", [{"run_id": "../run"}, {"session_id": "'; x = '"}, {"session_id": "-c"}, {"resumed_from": "run-1"}]
)
def test_a_record_that_somebody_has_changed_brings_no_text_of_its_own_into_commands_and_paths(
    change: dict[str, str],
) -> None:
    """What is put into Nextflow's command line and configuration, and into paths, has one form."""
    with pytest.raises(ValidationError):
        RunRecord.model_validate(dict(record()) | change)
    with pytest.raises(ValidationError):
        RunInfo.model_validate(dict(run(3)) | change)


@pytest.mark.parametrize("value", [record(), run(3), MARK, Progress()])
def test_round_trip(value: RunRecord | RunInfo | CancelMark | Progress) -> None:
    """What was written is what is read."""
    assert type(value).model_validate_json(value.model_dump_json()) == value


def test_values_are_frozen() -> None:
    """Nobody changes what others may hold."""
    with pytest.raises(ValidationError):
        record().run_id = "x"  # type: ignore[misc]  # what the test is about


def test_times_are_rfc_3339_in_utc() -> None:
    """Times go over the wire with a Z."""
    assert json.loads(MARK.model_dump_json()) == {
        "requested_by": "ada",
        "requested_at": "2030-01-01T12:00:00Z",
        "reason": None,
    }
