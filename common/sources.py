"""Where pipelines may come from: whoever may name one can run its code.

An allow-list of prefixes, matched on names in which nothing means anything else to Git or a file
system than it does here: no `..`, no escapes, no credentials.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath

from common.errors import Invalid, NotAllowed

LOCAL = "./"  # in the allow-list: whatever is below the directory of pipelines
ANY = "*"

_POINTER = "/pipeline"
_REMOTE = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_URL = re.compile(
    # ASCII, or other signs would be the letters whose capitals they are: the Kelvin sign is a K.
    r"(?P<place>(?ai:(?:https?|git|ssh)://(?:git@)?[a-z0-9][a-z0-9.-]*(?::\d+)?|file://))(?P<path>/[^\s%\\?#@]*)"
)


@dataclass(frozen=True, slots=True)
class Sources:
    """What may be run.

    Attributes:
        allowed: prefixes that end with a slash, whole names, `./`, or `*`.
        root: the directory that a relative path is below; None where none is to be seen from here.
        launch: where Nextflow is started; None where that is not to be seen from here.
    """

    allowed: tuple[str, ...]
    root: Path | None
    launch: Path | None = None

    def resolve(self, pipeline: str) -> str:
        """What Nextflow is told to run: the real path of what is below `root`, else the name itself.

        Raises:
            Invalid: the name leads out of `root`, to nothing, or is not plain.
            NotAllowed: it is from somewhere else than the allow-list says.
        """
        if "://" in pipeline or PurePath(pipeline).is_absolute():
            name = _plain(pipeline)
        elif (found := self._below_root(pipeline)) is not None:
            return found
        elif _REMOTE.fullmatch(pipeline) or ANY in self.allowed:
            name = pipeline
        else:
            raise Invalid(_POINTER, f"there is no {pipeline!r} in the directory of pipelines{self._others()}")
        if ANY in self.allowed:
            return name
        if any(_below(name, entry) for entry in self.allowed):
            return name if self.launch is None else unhidden(name, self.launch)
        raise NotAllowed(_POINTER, f"{pipeline!r} is not from an allowed source{self._others()}")

    def root_of(self, resolved: str) -> str | None:
        """The directory of pipelines, if what `resolve` has given is in it."""
        root = os.path.realpath(self.root) if self.root is not None else None
        return root if root is not None and PurePath(resolved).is_relative_to(root) else None

    def _below_root(self, pipeline: str) -> str | None:
        if self.root is None or not {LOCAL, ANY} & set(self.allowed):
            return None
        # Not Path.resolve: it raises where links go round in a circle.
        root = os.path.realpath(self.root)
        found = os.path.realpath(os.path.join(root, pipeline))
        if not PurePath(found).is_relative_to(root):
            raise Invalid(_POINTER, "it leads out of the directory of pipelines; name one below it")
        return found if os.path.exists(found) else None

    def _others(self) -> str:
        names = ("paths below the directory of pipelines" if entry == LOCAL else entry for entry in self.allowed)
        return f"; allowed are: {', '.join(names)}"


def unhidden(name: str, launch: Path) -> str:
    """The name of a pipeline, if nothing lies under it where Nextflow is started: it would run that and fetch nothing.

    Raises:
        NotAllowed: an earlier run has put something there.
    """
    if not PurePath(name).is_absolute() and os.path.lexists(launch / name):
        reason = f"there is a {name!r} in the launch directory, which Nextflow would run instead; remove that"
        raise NotAllowed(_POINTER, reason)
    return name


def _below(name: str, entry: str) -> bool:
    name, entry = _lower_host(name), _lower_host(entry)
    return name == entry or (entry.endswith("/") and entry != LOCAL and name.startswith(entry))


def _lower_host(name: str) -> str:
    found = _URL.fullmatch(name)
    return found["place"].lower() + found["path"] if found else name


def _plain(pipeline: str) -> str:
    path = pipeline
    if "://" in pipeline:
        found = _URL.fullmatch(pipeline)
        if found is None:
            raise Invalid(
                _POINTER, "use a URL like https://host/owner/name: without credentials, query, fragment or escapes"
            )
        path = found["path"]
    if {".", ".."} & set(path.split("/")):
        raise Invalid(_POINTER, "write the path without `.` and `..`")
    return pipeline
