"""What can go wrong, as facts without HTTP.

    ControllerError
    ├── Invalid            a value the caller sent cannot be used (and where it stands)
    ├── NotAllowed         a value the caller sent could be used, but settings do not allow it
    ├── RunNotFound        no retained run has this id
    ├── NothingActive      there is no run to act on
    ├── Busy               another run has the slot, and the caller did not want to be attached
    ├── KeyReused          an Idempotency-Key came back with another request
    ├── Unavailable        a dependency does not answer; nothing was done
    │   └── OutcomeUnknown     a write may or may not have happened
    └── Conflict           a conditional write met another version (never leaves the library)

`common.web.problem` is the only place that turns these into status codes and problem documents.
"""


class ControllerError(Exception):
    """Base of every error this library raises on purpose; `str()` is a sentence for people."""


class Invalid(ControllerError):
    """A value the caller sent cannot be used.

    Attributes:
        pointer: where it stands: a JSON pointer into the body (`/parameters/reads`), or the name
            of a query parameter or header.
        reason: what is wrong and what would be right.
    """

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(f"{pointer}: {reason}")
        self.pointer = pointer
        self.reason = reason


class NotAllowed(ControllerError):
    """A value the caller sent could be used, but settings do not allow it.

    Attributes:
        pointer, reason: as those of `Invalid`.
    """

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(f"{pointer}: {reason}")
        self.pointer = pointer
        self.reason = reason


class RunNotFound(ControllerError):
    """No retained run has this id, or (None) there is no run at all."""

    def __init__(self, run_id: str | None) -> None:
        super().__init__(
            "There is no run yet. POST /api/v1/pipeline/run starts one."
            if run_id is None
            else f"No retained run has the id {run_id!r}. GET /api/v1/pipeline/history lists those that are."
        )
        self.run_id = run_id


class NothingActive(ControllerError):
    """There is no run to act on."""

    def __init__(self, detail: str = "No run is active.") -> None:
        super().__init__(detail)


class Busy(ControllerError):
    """Another run has the slot.

    Attributes:
        run_id: the run that has it.
        pipeline, triggered_by: what it runs and for whom.
        retry_after_seconds: set where the slot is about to come free (the run is ending).
    """

    def __init__(
        self,
        run_id: str,
        detail: str,
        *,
        pipeline: str,
        triggered_by: str | None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.run_id = run_id
        self.pipeline = pipeline
        self.triggered_by = triggered_by
        self.retry_after_seconds = retry_after_seconds


class KeyReused(ControllerError):
    """An Idempotency-Key came back with a request that differs from its first."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            "This Idempotency-Key was used before with another body. "
            "Send the first body again to get its answer, or use a new key for a new run."
        )
        self.run_id = run_id


class Unavailable(ControllerError):
    """A dependency does not answer; nothing was done.

    Attributes:
        dependency: its name as `/readyz` shows it (`redis`, `runner`).
        retry_after_seconds: when asking again makes sense.
    """

    def __init__(self, dependency: str, detail: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.dependency = dependency
        self.retry_after_seconds = retry_after_seconds


class OutcomeUnknown(Unavailable):
    """A write may or may not have happened, or may still: read again and decide again.

    Attributes:
        run_id: the run the write was about, where there is one.
    """

    def __init__(self, dependency: str, detail: str, *, run_id: str | None = None) -> None:
        super().__init__(dependency, detail)
        self.run_id = run_id


class Conflict(ControllerError):
    """A conditional write met another version than its writer had read: definitely not done."""
