"""A Git server on port 3000: Git's own protocol, and as much of Gitea's API as Nextflow asks before it clones.

`lab/hello` is for everybody, `lab/private` for the user `reader` whose password is the variable PASSWORD. Both have a
branch `main`, a tag `v2` behind it, and a program in `bin` that says which of them it is of.
"""

import base64
import json
import os
import re
from collections.abc import Iterable
from urllib.parse import parse_qs
from wsgiref.simple_server import make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from dulwich.index import commit_tree
from dulwich.object_store import tree_lookup_path
from dulwich.objects import Blob, Commit
from dulwich.repo import MemoryRepo
from dulwich.server import DictBackend
from dulwich.web import make_wsgi_chain

MAIN = """\
process GREET {
    container params.container
    output: stdout
    script: "greet"
}
workflow { GREET().view() }
"""
ALLOWED = "Basic " + base64.b64encode(f"reader:{os.environ['PASSWORD']}".encode()).decode()
API = re.compile(r"/api/v1/repos(?P<name>/[^/]+/[^/]+)(?:/raw/(?P<path>.+))?")


def repository(name: str) -> MemoryRepo:
    """One with two revisions."""
    repo = MemoryRepo()
    repo.refs.set_symbolic_ref(b"HEAD", b"refs/heads/main")
    repo.refs[b"refs/heads/main"] = commit(repo, f"{name} of main")
    repo.refs[b"refs/tags/v2"] = commit(repo, f"{name} of v2")
    return repo


def commit(repo: MemoryRepo, greeting: str) -> bytes:
    """Make a commit of a pipeline that says this greeting; its name."""
    files = {b"main.nf": (0o100644, MAIN), b"bin/greet": (0o100755, f"#!/bin/sh\necho hello from {greeting}\n")}
    blobs = {path: (mode, Blob.from_string(text.encode())) for path, (mode, text) in files.items()}
    made = Commit()
    made.tree = commit_tree(repo.object_store, [(path, blob.id, mode) for path, (mode, blob) in blobs.items()])
    made.author = made.committer = b"lab <lab@example.org>"
    made.author_time = made.commit_time = 0
    made.author_timezone = made.commit_timezone = 0
    made.message = greeting.encode()
    repo.object_store.add_objects([*((blob, None) for _, blob in blobs.values()), (made, None)])
    return bytes(made.id)


REPOSITORIES = {name: repository(name) for name in ("/lab/hello", "/lab/private")}
git = make_wsgi_chain(DictBackend(REPOSITORIES))


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Whoever asks for what is private says who he is."""
    if "/lab/private" in environ["PATH_INFO"] and environ.get("HTTP_AUTHORIZATION") != ALLOWED:
        start_response("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="lab"')])
        return [b"401\n"]
    asked = API.fullmatch(environ["PATH_INFO"])
    if asked is None:
        return git(environ, start_response)  # type: ignore[no-any-return]
    found = api(asked["name"], asked["path"], environ)
    start_response("200 OK" if found is not None else "404 Not Found", [])
    return [found or b"404\n"]


def api(name: str, path: str | None, environ: WSGIEnvironment) -> bytes | None:
    """A repository, or one file of it."""
    if (repo := REPOSITORIES.get(name)) is None:
        return None
    if path is None:
        return json.dumps({"clone_url": f"http://{environ['HTTP_HOST']}{name}"}).encode()
    (ref,) = parse_qs(environ["QUERY_STRING"]).get("ref", ["main"])
    try:
        head = next(repo.refs[full] for full in refs(ref) if full in repo.refs)
        _, blob = tree_lookup_path(repo.get_object, repo[head].tree, path.encode())
    except (StopIteration, KeyError):
        return None
    return bytes(repo[blob].data)


def refs(name: str) -> list[bytes]:
    """What a name may be short for."""
    return [f"refs/{kind}/{name}".encode() for kind in ("heads", "tags")]


if __name__ == "__main__":
    make_server("", 3000, app).serve_forever()
