"""The API server, as far as the library and the controllers use it: HTTP in, HTTP out, one step a call.

What it keeps of Kubernetes: versions of all objects from one counter, a write that changes nothing makes no
version, what a stale version, another UID or a missing object is answered with, graceful deletion and
finalizers of pods, label selectors, pages. tests/cluster compares it with a real one, call by call.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from common.kube.transport import Object

_PATH = re.compile(
    r"(?P<collection>/apis?/[a-z0-9./]+/namespaces/[^/]+/(?P<kind>jobs|pods|leases|events))"
    r"(?:/(?P<name>[^/]+)(?P<eviction>/eviction)?)?"
)
_KINDS = {"jobs": "Job", "pods": "Pod", "leases": "Lease", "events": "Event"}
_GROUPS = {"jobs": "jobs.batch", "pods": "pods", "leases": "leases.coordination.k8s.io"}
# Of a Job's spec.
_FIXED = ("template", "completions", "selector", "podFailurePolicy", "completionMode", "backoffLimitPerIndex")
_OVER = ("Succeeded", "Failed")
TRACKING = "batch.kubernetes.io/job-tracking"


class Answer(NamedTuple):
    """A status code and what comes with it."""

    status: int
    body: Object


class ApiServer:
    """All objects there are. None is ever changed in place: a write puts another one there.

    Attributes:
        watchers: each is told, at the step, (object before or None, object after or None).
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._collections: dict[str, dict[str, Object]] = {}
        self._pages: dict[str, list[Object]] = {}
        self._encoded: dict[tuple[str, str], bytes] = {}  # by uid and version
        self._version = 100
        self._uids = 0
        self.watchers: list[Callable[[Object | None, Object | None], None]] = []

    def call(
        self, method: str, path: str, body: Object | None = None, query: Mapping[str, str] | None = None
    ) -> Answer:
        """One call, from beginning to end."""
        found = _PATH.fullmatch(path)
        assert found is not None, f"the model has no {path}"
        collection, kind, name = found["collection"], found["kind"], found["name"]
        objects = self._collections.setdefault(collection, {})
        if name is None:
            return (
                self._list(objects, kind, query or {}) if method == "GET" else self._create(objects, kind, body or {})
            )
        if method == "PUT" and name not in objects:  # a Lease is made by that, whatever version was named
            return self._create(objects, kind, body or {})
        if name not in objects:
            return _refusal(404, "NotFound", f'{_GROUPS[kind]} "{name}" not found')
        if found["eviction"] is not None:
            return self._evict(objects, name)
        match method:
            case "GET":
                return Answer(200, objects[name])
            case "PUT":
                return self._replace(objects, kind, name, body or {})
            case "PATCH":
                return self._merge(objects, kind, name, body or {})
            case "DELETE":
                return self._delete(objects, kind, name, body or {})
        raise AssertionError(f"the model has no {method}")

    def encoded(self, body: Object) -> bytes:
        """An answer's body as it is sent; each version of an object is encoded once."""
        if "items" in body:
            rest = json.dumps({key: value for key, value in body.items() if key != "items"}).encode()
            return b'%b,"items":[%b]}' % (rest[:-1], b",".join(map(self.encoded, body["items"])))
        metadata = body.get("metadata", {})
        if "resourceVersion" not in metadata:
            return json.dumps(body).encode()
        key = metadata["uid"], metadata["resourceVersion"]
        if key not in self._encoded:
            self._encoded[key] = json.dumps(body).encode()
        return self._encoded[key]

    # The controllers' way in: what they change of an object besides its spec.

    def objects(self, collection: str) -> Iterable[Object]:
        """All of a collection."""
        return self._collections.setdefault(collection, {}).values()

    def find(self, path: str) -> Object | None:
        """The object at a path."""
        collection, _, name = path.rpartition("/")
        return self._collections.get(collection, {}).get(name)

    def update(self, path: str, changes: Object) -> Object | None:
        """Merge changes of a status or of metadata into an object, whatever its version; None if it is gone."""
        found = self.find(path)
        if found is None:
            return None
        collection, _, name = path.rpartition("/")
        return self._write(self._collections[collection], name, merged(found, changes))

    def remove(self, path: str) -> None:
        """Take a pod away whose containers are gone, unless a finalizer holds it."""
        found = self.find(path)
        if found is not None and not found["metadata"].get("finalizers"):
            collection, _, name = path.rpartition("/")
            self._drop(self._collections[collection], name)

    # Reading.

    def _list(self, objects: dict[str, Object], kind: str, query: Mapping[str, str]) -> Answer:
        unknown = (
            query.keys() - {"labelSelector", "limit", "continue"} - ({"fieldSelector"} if kind == "events" else set())
        )
        assert not unknown, f"the model has no {unknown}"
        if "continue" in query:  # goes on with what was there when the first page was asked for
            rest = self._pages.get(query["continue"])
            if rest is None:
                return _refusal(410, "Expired", "The provided continue parameter is too old to display")
        else:
            chosen = selector(query.get("labelSelector", ""))
            rest = [found for _, found in sorted(objects.items()) if chosen(found["metadata"].get("labels", {}))]
        limit = int(query.get("limit", 0)) or len(rest)
        metadata = {"resourceVersion": str(self._version)}
        if rest[limit:]:
            metadata["continue"] = f"page-{len(self._pages)}"
            self._pages[metadata["continue"]] = rest[limit:]
        return Answer(200, {"kind": f"{_KINDS[kind]}List", "metadata": metadata, "items": rest[:limit]})

    # Writing.

    def _create(self, objects: dict[str, Object], kind: str, body: Object) -> Answer:
        name = body["metadata"]["name"]
        if name in objects:
            return _refusal(409, "AlreadyExists", f'{_GROUPS[kind]} "{name}" already exists')
        self._uids += 1
        own = {"uid": f"uid{self._uids}", "creationTimestamp": moment(self._now())}
        made = {**body, "kind": _KINDS[kind], "metadata": {**body["metadata"], **own}}
        if kind == "jobs":
            made |= {"spec": _defaults(body["spec"]) | body["spec"], "status": {}}
        if kind == "pods":
            made |= {"status": {"phase": "Pending"}}
        return Answer(201, self._write(objects, name, made))

    def _replace(self, objects: dict[str, Object], kind: str, name: str, body: Object) -> Answer:
        found = objects[name]
        assert kind == "leases", "the model replaces Leases only"
        if not body["metadata"].get("resourceVersion"):
            return _refusal(422, "Invalid", "metadata.resourceVersion: must be specified for an update")
        if (refusal := _condition(found, body["metadata"])) is not None:
            return refusal
        kept = {key: found["metadata"][key] for key in ("uid", "creationTimestamp")}
        return Answer(200, self._write(objects, name, {**body, "metadata": {**body["metadata"], **kept}}))

    def _merge(self, objects: dict[str, Object], kind: str, name: str, patch: Object) -> Answer:
        found = objects[name]
        wanted = patch.get("metadata", {})
        if wanted.get("uid", found["metadata"]["uid"]) != found["metadata"]["uid"]:
            return _refusal(422, "Invalid", "metadata.uid: field is immutable")
        if (refusal := _condition(found, wanted)) is not None:
            return refusal
        changed = merged(found, {key: value for key, value in patch.items() if key != "status"})
        if kind == "jobs":
            spec = changed["spec"]
            for field in _FIXED:
                if spec.get(field) != found["spec"].get(field):
                    return _refusal(422, "Invalid", f'Job.batch "{name}" is invalid: spec.{field}: field is immutable')
            for field in ("parallelism", "activeDeadlineSeconds"):
                if spec.get(field, 0) < 0:
                    return _refusal(422, "Invalid", f'Job.batch "{name}" is invalid: spec.{field}: Invalid value')
        return Answer(200, self._write(objects, name, changed))

    def _delete(self, objects: dict[str, Object], kind: str, name: str, options: Object) -> Answer:
        found = objects[name]
        if (refusal := _condition(found, options.get("preconditions", {}))) is not None:
            return refusal
        if kind == "pods":
            return Answer(200, self._end(objects, name, options))
        policy = options.get("propagationPolicy", "Orphan" if kind == "jobs" else "Background")
        assert policy in ("Background", "Orphan"), f"the model has no {policy}"
        if policy == "Orphan":
            self._orphan(found["metadata"]["uid"])
        self._drop(objects, name)
        return Answer(200, {"kind": "Status", "status": "Success"})

    def _end(self, objects: dict[str, Object], name: str, options: Object) -> Object:
        """Ask for a pod's end: its kubelet sees to it, and it is there until its finalizers are gone, too."""
        pod = objects[name]
        if pod["status"]["phase"] in _OVER and not pod["metadata"].get("finalizers"):
            return self._drop(objects, name)
        if "deletionTimestamp" in pod["metadata"]:
            return pod
        grace = options.get("gracePeriodSeconds", pod["spec"].get("terminationGracePeriodSeconds", 30))
        if pod["status"]["phase"] in _OVER:
            grace = 0
        at = moment(self._now() + timedelta(seconds=grace))
        ending = {"metadata": {"deletionTimestamp": at, "deletionGracePeriodSeconds": grace}}
        return self._write(objects, name, merged(pod, ending))

    def _evict(self, objects: dict[str, Object], name: str) -> Answer:
        """Say that it is taken, though it may have ended already, and delete it: two writes."""
        pod = objects[name]
        disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        told = [*pod["status"].get("conditions", []), {**disrupted, "message": "Eviction API: evicting"}]
        self._write(objects, name, merged(pod, {"status": {"conditions": told}}))
        self._end(objects, name, {})
        return Answer(201, {"kind": "Status", "status": "Success"})

    def _orphan(self, owner: str) -> None:
        for objects in self._collections.values():
            for name, found in list(objects.items()):
                if owner in owners(found):
                    self._write(objects, name, merged(found, {"metadata": {"ownerReferences": None}}))

    def _write(self, objects: dict[str, Object], name: str, made: Object) -> Object:
        before = objects.get(name)
        if before is not None:
            made = {**made, "metadata": {**made["metadata"], "resourceVersion": before["metadata"]["resourceVersion"]}}
            if made == before:  # a write that changes nothing
                return before
        self._version += 1
        made = {**made, "metadata": {**made["metadata"], "resourceVersion": str(self._version)}}
        ended = "deletionTimestamp" in made["metadata"] and made.get("status", {}).get("phase") in _OVER
        if (
            ended
            and before is not None
            and before["metadata"].get("finalizers")
            and not made["metadata"].get("finalizers")
        ):
            return self._drop(objects, name)  # the last one that held it
        objects[name] = made
        self._tell(before, made)
        return made

    def _drop(self, objects: dict[str, Object], name: str) -> Object:
        self._version += 1
        gone = objects.pop(name)
        self._tell(gone, None)
        return gone

    def _tell(self, before: Object | None, after: Object | None) -> None:
        for watcher in self.watchers:
            watcher(before, after)


def moment(at: datetime) -> str:
    """A time as the API server writes it: in whole seconds."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def owners(found: Object) -> list[str]:
    """The UIDs of the objects that own this one."""
    return [owner["uid"] for owner in found["metadata"].get("ownerReferences", [])]


def selector(text: str) -> Callable[[Mapping[str, str]], bool]:
    """Whether labels are those that a selector of `=`, `!=`, names and `!names` chooses."""
    terms: list[Callable[[Mapping[str, str]], bool]] = []
    for term in filter(None, text.split(",")):
        key, unequal, value = term.partition("!=")
        if unequal and key:
            terms.append(lambda labels, key=key, value=value: labels.get(key) != value)  # type: ignore[misc]
            continue
        key, equal, value = term.partition("=")
        if equal:
            value = value.removeprefix("=")
            terms.append(lambda labels, key=key, value=value: labels.get(key) == value)  # type: ignore[misc]
        else:
            wanted = not key.startswith("!")
            key = key.removeprefix("!")
            terms.append(lambda labels, key=key, wanted=wanted: (key in labels) is wanted)  # type: ignore[misc]
    return lambda labels: all(fits(labels) for fits in terms)


def merged(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386), which leaves its target as it was."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def _defaults(spec: Object) -> Object:
    """What a Job's spec says where it says nothing."""
    by_index, with_policy = "backoffLimitPerIndex" in spec, "podFailurePolicy" in spec
    return {
        "parallelism": 1,
        "completions": 1,
        "completionMode": "NonIndexed",
        "suspend": False,
        "backoffLimit": 2**31 - 1 if by_index else 6,
        "podReplacementPolicy": "Failed" if with_policy else "TerminatingOrFailed",
    }


def _condition(found: Object, wanted: Mapping[str, Any]) -> Answer | None:
    """The refusal of a write whose condition does not hold."""
    for key in ("uid", "resourceVersion"):
        if wanted.get(key) and wanted[key] != found["metadata"][key]:
            words = f"{key} in precondition: {wanted[key]}, in object: {found['metadata'][key]}"
            return _refusal(409, "Conflict", words)
    return None


def _refusal(status: int, reason: str, message: str) -> Answer:
    return Answer(status, {"kind": "Status", "status": "Failure", "reason": reason, "code": status, "message": message})
