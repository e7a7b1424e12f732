"""Run ids, and how one is derived from an Idempotency-Key.

A run id is at once the name of the run's Job (a DNS label), Nextflow's `-name` (its pattern is
`^[a-z](?:[a-z\\d]|[-_](?=[a-z\\d])){0,79}$`), a directory, and a part of cursors and Redis keys, so
it is made of the characters that are plain in all of them: `run-` and 16 of `[a-z2-7]` (80 bits).
"""

import base64
import hashlib
import re
import secrets

RUN_ID = re.compile(r"run-[a-z2-7]{16}")
_BYTES = 10


def new_run_id() -> str:
    """A run id nobody else has."""
    return _run_id(secrets.token_bytes(_BYTES))


def keyed_run_id(caller: str, key: str) -> str:
    """The one run id of (caller, Idempotency-Key): a retry finds its Job even after Redis lost everything."""
    # The length prefix keeps ("ab", "c") and ("a", "bc") apart.
    return _run_id(hashlib.sha256(f"{len(caller)}:{caller}{key}".encode()).digest()[:_BYTES])


def is_run_id(text: str) -> bool:
    """Whether `text` has the form of a run id."""
    return RUN_ID.fullmatch(text) is not None


def _run_id(raw: bytes) -> str:
    return "run-" + base64.b32encode(raw).decode("ascii").lower()
