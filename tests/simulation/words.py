"""What a step is called in a trace, and its result in short."""

from collections.abc import Mapping
from typing import Any

from common.kube import objects
from common.kube.transport import Object
from tests.simulation.api_server import Answer


def describe(method: str, path: str, body: Object | None, query: Mapping[str, str]) -> str:
    """What a call to the API server is for, in the words of the runner's contract."""
    _, kind, name = [*path.partition("/namespaces/")[2].split("/"), ""][:3]
    spec = (body or {}).get("spec", {})
    annotations = (body or {}).get("metadata", {}).get("annotations", {})
    match method, kind:
        case "GET", "leases":
            return "lease"
        case (("PUT" | "POST"), "leases"):
            return f"lease write {spec.get('holderIdentity', 'empty')} at {body['metadata'].get('resourceVersion')}"  # type: ignore[index]
        case "POST", _:
            return f"create {body['metadata']['name']}"  # type: ignore[index] # a POST has one
        case "GET", "jobs" if name:
            return f"job {name}"
        case "GET", _:
            return f"{kind} {name} {query.get('labelSelector', '')}"
        case "DELETE", "jobs" if name.startswith("run-"):
            return f"delete {name}"
        case "DELETE", _:
            return f"sweep {name}"
    version = body["metadata"].get("resourceVersion")  # type: ignore[index] # a patch has one
    if "parallelism" in spec:
        return f"launch {name} at {version}"
    return f"{'seal' if objects.SEALED in annotations else 'stop'} {name} at {version}"


def short(value: Any) -> str:
    """An answer, an object or a value of Redis' on one line."""
    match value:
        case Answer(status=status, body=body):
            return f"{status} {short(body)}"
        case {"kind": "Status"}:
            return str(value.get("message", ""))
        case {"items": items}:
            return f"[{', '.join(map(short, items))}]"
        case {"kind": kind, "metadata": metadata}:
            spec, status = value.get("spec", {}), value.get("status", {})
            shown = [kind, metadata["name"], metadata.get("uid", ""), f"v{metadata['resourceVersion']}"]
            shown += [str(spec[key]) for key in ("holderIdentity",) if key in spec]
            shown += [f"{key}={spec[key]}" for key in ("parallelism", "activeDeadlineSeconds") if key in spec]
            shown += [
                key.partition("/")[2]
                for key in (objects.SEALED, objects.CANCEL)
                if key in metadata.get("annotations", {})
            ]
            shown += [condition["type"] for condition in status.get("conditions", [])]
            shown += [str(status["phase"])] if "phase" in status else []
            shown += ["ending"] if "deletionTimestamp" in metadata else []
            return " ".join(shown)
        case bytes():
            return value.decode()[:40]
        case list() | tuple():
            return "[" + ", ".join(short(item) for item in value) + "]"
    return str(value)
