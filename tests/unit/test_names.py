"""A run id is plain everywhere it goes, and one key has one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.names import is_run_id, keyed_run_id, new_run_id

NEXTFLOW_NAME = re.compile(r"^[a-z](?:[a-z\d]|[-_](?=[a-z\d])){0,79}\Z")  # nextflow.cli.CmdRun, 24.10
DNS_LABEL = re.compile(r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")


def _is_plain(run_id: str) -> bool:
    return bool(is_run_id(run_id) and NEXTFLOW_NAME.match(run_id) and DNS_LABEL.match(run_id) and len(run_id) == 20)


def test_new_ids_are_plain_and_differ() -> None:
    """A fresh id suits Nextflow, Kubernetes, paths and keys; none comes twice."""
    made = {new_run_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(map(_is_plain, made))


@given(st.text(), st.text())
def test_keyed_ids_are_plain_and_stay(caller: str, key: str) -> None:
    """Whatever a client sends as its key, the id is plain, and the same each time."""
    assert _is_plain(keyed_run_id(caller, key))
    assert keyed_run_id(caller, key) == keyed_run_id(caller, key)


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_another_caller_or_key_is_another_id(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Two callers never share a run by their keys."""
    assert (keyed_run_id(*one) == keyed_run_id(*other)) == (one == other)


@given(st.text(min_size=1), st.integers(0, 20), st.integers(0, 20))
def test_the_cut_between_caller_and_key_counts(text: str, one: int, other: int) -> None:
    """("ab", "c") and ("a", "bc") are different keys."""
    first, second = (text[:one], text[one:]), (text[:other], text[other:])
    assert (keyed_run_id(*first) == keyed_run_id(*second)) == (first == second)


def test_keyed_ids_do_not_change_with_releases() -> None:
    """A retry may reach a newer release: the derivation is part of the wire format."""
    assert keyed_run_id("alice", "key-1") == "run-552gdocpiu73a5tf"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "run-",
        "run-aaaaaaaaaaaaaaa",
        "run-aaaaaaaaaaaaaaaaa",
        "run-aaaaaaaaaaaaaaa1",
        "run-aaaaaaaaaaaaaaaA",
        "run-aaaaaaaaaaaaaaaa\n",
        " run-aaaaaaaaaaaaaaaa",
        "run-aaaaaaaaaaaaaaa٢",
        "../run-aaaaaaaaaaaaaaaa",
        "Run-aaaaaaaaaaaaaaaa",
    ],
)
def test_what_is_no_run_id(text: str) -> None:
    """Only the exact form is taken."""
    assert not is_run_id(text)
