"""
What the small Hub of `hub_server` answers: repositories of models and data sets, as huggingface_hub asks for them.

A function for each kind of request, which asserts that it came as the Hub expects it.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

if TYPE_CHECKING:
    from hub_server import Handler

LFS_ENDINGS = (".safetensors", ".parquet", ".bin", ".model", ".png", ".jpg")
LFS_JSON = "application/vnd.git-lfs+json"
PAGE = 20  # files of a listing: few, so that tests turn a page
REPO = r"(?P<id>[^/]+/[^/]+)"
API = rf"/api/(?P<kind>model|dataset)s/{REPO}"
FILES = rf"/(?:(?P<kind>dataset)s/)?{REPO}"


class HubError(Exception):
    """An answer other than success: status, the Hub's code of the error, its words, further headers."""

    def __init__(self, status: int, code: str, message: str, **headers: str):
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message} | headers


@dataclass(frozen=True)
class Blob:
    """Content of a file in a repository."""

    data: bytes
    is_lfs: bool

    @property
    def etag(self) -> str:
        """SHA-256 of a large file, git's SHA-1 of any other."""
        if self.is_lfs:
            return hashlib.sha256(self.data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


@dataclass
class Repo:
    """A repository: trees of files by commit, commits by the name of a branch or tag."""

    private: bool
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, Blob], message: str) -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[oid], self.branches[branch], self.messages[oid] = files, oid, message
        return oid

    def resolve(self, revision: str) -> str:
        """The commit of a branch, tag or commit."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid


# ---- users and repositories -----------------------------------------------------------------------------------------


def whoami(request: "Handler") -> None:
    if (user := request.user()) is None:
        raise HubError(401, "", "Invalid username or password.")
    request.reply({"type": "user", "name": user, "orgs": [], "auth": {"type": "access_token"}})


def create_repo(request: "Handler") -> None:
    told, user = request.json_body(), request.user()
    assert set(told) <= {"name", "organization", "type", "visibility"}, sorted(told)
    kind, owner, name = told.get("type", "model"), told["organization"] or user, told["name"]
    assert kind in ("model", "dataset"), kind
    assert told.get("visibility") in (None, "private", "public"), told
    if user is None:
        raise HubError(401, "", "Invalid username or password.")
    if owner != user:
        raise HubError(403, "", f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
    url = f"{request.hub.url}/{'datasets/' if kind == 'dataset' else ''}{owner}/{name}"
    if (kind, f"{owner}/{name}") in request.hub.repos:
        request.reply({"error": "You already created this repo", "url": url}, 409)
        return
    repo = request.hub.repos[kind, f"{owner}/{name}"] = Repo(private=told.get("visibility") == "private")
    repo.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)}, "initial commit")
    request.reply({"url": url})


def repo_info(request: "Handler", kind: str, id: str, revision: str = "main") -> None:
    repo = request.repo(kind, id)
    oid = repo.resolve(revision)
    siblings = [{"rfilename": path} for path in sorted(repo.commits[oid])]
    request.reply(
        {"id": id, "sha": oid, "private": repo.private, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings}
        | {"lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z"}
    )


def refs(request: "Handler", kind: str, id: str) -> None:
    repo = request.repo(kind, id)
    listed = {
        what: [{"name": name, "ref": f"refs/{where}/{name}", "targetCommit": oid} for name, oid in found.items()]
        for what, where, found in (("branches", "heads", repo.branches), ("tags", "tags", repo.tags))
    }
    request.reply(listed | {"converts": []})


def create_branch(request: "Handler", kind: str, id: str, name: str) -> None:
    repo, start = request.repo(kind, id, write=True), request.json_body().get("startingPoint", "main")
    if name in repo.branches:
        raise HubError(409, "", f"Reference already exists: {name}")
    repo.branches[name] = repo.resolve(start)
    request.reply()


def create_tag(request: "Handler", kind: str, id: str, revision: str) -> None:
    repo = request.repo(kind, id, write=True)
    repo.tags[request.json_body()["tag"]] = repo.resolve(revision)
    request.reply()


def entry(path: str, blob: Blob) -> dict[str, Any]:
    """A file in a listing."""
    facts = {"type": "file", "oid": blob.etag[:40], "size": len(blob.data), "path": path}
    return facts | ({"lfs": {"oid": blob.etag, "size": len(blob.data), "pointerSize": 134}} if blob.is_lfs else {})


def tree(request: "Handler", kind: str, id: str, revision: str, below: str | None = None) -> None:
    """A listing, page by page."""
    repo = request.repo(kind, id)
    start = f"{below.strip('/')}/" if below and below.strip("/") else ""
    files = {path: blob for path, blob in repo.commits[repo.resolve(revision)].items() if path.startswith(start)}
    if start and not files:
        raise HubError(404, "EntryNotFound", f"{start} does not exist on {revision}")
    found = {}
    for path, blob in sorted(files.items()):
        folders = path[len(start) :].split("/")[:-1]
        for depth in range(1, len(folders) + 1):
            folder = start + "/".join(folders[:depth])
            found[folder] = {"type": "directory", "oid": hashlib.sha1(folder.encode()).hexdigest(), "path": folder}
            found[folder] |= {"size": 0}
        found[path] = entry(path, blob)
    if request.query.get("recursive", "false").lower() != "true":
        found = {path: facts for path, facts in found.items() if "/" not in path[len(start) :]}
    rows, at = list(found.values()), int(request.query.get("cursor", 0))
    link = {}
    if at + PAGE < len(rows):
        query = "&".join(f"{k}={quote(v)}" for k, v in (request.query | {"cursor": str(at + PAGE)}).items())
        link = {"Link": f'<{request.hub.url}{urlsplit(request.path).path}?{query}>; rel="next"'}
    request.reply(rows[at : at + PAGE], headers=link)


def paths_info(request: "Handler", kind: str, id: str, revision: str) -> None:
    told = request.read_body().decode()
    is_json = "json" in (request.headers["Content-Type"] or "")
    wanted = json.loads(told)["paths"] if is_json else parse_qs(told)["paths"]
    repo = request.repo(kind, id)
    files = repo.commits[repo.resolve(revision)]
    folders = {path.rpartition("/")[0] for path in files}
    rows = [entry(path, files[path]) for path in wanted if path in files]
    rows += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in wanted if path in folders]
    request.reply(rows)


# ---- uploading ------------------------------------------------------------------------------------------------------


def validate_yaml(request: "Handler") -> None:
    """The Hub reads the head of a card; here it has to be one."""
    told = request.json_body()
    assert told["repoType"] in ("model", "dataset"), told["repoType"]
    if not re.match(r"---\n.*?\n---\n", told["content"], re.DOTALL):
        request.reply({"warnings": [{"message": "empty or missing yaml metadata in repo card"}], "errors": []})
        return
    request.reply({"warnings": [], "errors": []})


def preupload(request: "Handler", kind: str, id: str, revision: str) -> None:
    repo, told = request.repo(kind, id, write=True), request.json_body()
    files = repo.commits[repo.resolve(revision)]
    rows = []
    for file in told["files"]:
        sample = base64.b64decode(file["sample"], validate=True)
        assert len(sample) == min(file["size"], 512), f"sample of {len(sample)} bytes of {file['size']}"
        assert not file["path"].startswith("/"), file["path"]
        mode = "lfs" if file["path"].endswith(LFS_ENDINGS) else "regular"
        request.hub.modes[file["path"]] = mode
        there = files.get(file["path"])
        rows.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
        rows[-1] |= {"oid": there.etag} if there else {}
    request.reply({"files": rows})


def lfs_batch(request: "Handler", kind: str | None, id: str) -> None:
    request.repo(kind, id, write=True)
    told = request.json_body()
    assert LFS_JSON in (request.headers["Accept"], request.headers["Content-Type"]), "not git-lfs"
    assert (told["operation"], told["hash_algo"]) == ("upload", "sha256"), told
    assert "basic" in told["transfers"], told["transfers"]
    rows = []
    for wanted in told["objects"]:
        assert re.fullmatch(r"[0-9a-f]{64}", wanted["oid"]), wanted
        upload = {"href": f"{request.hub.storage}/objects/{wanted['oid']}", "header": {}}
        verify = {"href": f"{request.hub.url}/{id}.git/info/lfs/verify", "header": {}}
        is_there = wanted["oid"] in request.hub.objects
        rows.append(wanted | ({} if is_there else {"actions": {"upload": upload, "verify": verify}}))
    request.reply({"transfer": "basic", "objects": rows})


def lfs_verify(request: "Handler", kind: str | None, id: str) -> None:
    told = request.json_body()
    assert len(request.hub.objects.get(told["oid"], b"")) == told["size"], "verified before it was uploaded"
    request.reply({"message": "ok"})


def store_object(request: "Handler", oid: str) -> None:
    assert "Authorization" not in request.headers, "a token was sent to the storage"
    data = request.read_body()
    assert hashlib.sha256(data).hexdigest() == oid, "content and oid differ"
    request.hub.objects[oid] = data
    request.reply(headers={"ETag": f'"{oid[:32]}"'})


def commit(request: "Handler", kind: str, id: str, revision: str) -> None:
    repo = request.repo(kind, id, write=True)
    assert request.headers["Content-Type"] == "application/x-ndjson", request.headers["Content-Type"]
    header, *operations = [json.loads(line) for line in request.read_body().splitlines()]
    assert header["key"] == "header", header
    assert header["value"]["summary"], "no commit message"
    if revision not in repo.branches:
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    files = dict(repo.commits[repo.branches[revision]])
    for operation in operations:
        told = operation["value"]
        if operation["key"] == "deletedFile":
            assert files.pop(told["path"], None) is not None, f"{told['path']} is not there to be deleted"
            continue
        is_lfs = operation["key"] == "lfsFile"
        assert request.hub.modes[told["path"]] == ("lfs" if is_lfs else "regular"), operation["key"]
        if is_lfs:
            data = request.hub.objects.get(told["oid"])
            assert data is not None, f"{told['path']} was not uploaded"
            assert (told["algo"], told["size"]) == ("sha256", len(data)), told
        else:
            assert told["encoding"] == "base64", told["encoding"]
            data = base64.b64decode(told["content"], validate=True)
        files[told["path"]] = Blob(data, is_lfs)
    oid = repo.commit(revision, files, header["value"]["summary"])
    place = f"{request.hub.url}/{'datasets/' if kind == 'dataset' else ''}{id}"
    request.reply({"success": True, "commitOid": oid, "commitUrl": f"{place}/commit/{oid}", "hookOutput": ""})


# ---- downloading ----------------------------------------------------------------------------------------------------


def resolve(request: "Handler", kind: str | None, id: str, revision: str, path: str) -> None:
    """A small file itself; of a large one, where the storage has it."""
    repo = request.repo(kind, id)
    oid = repo.resolve(revision)
    headers = {"X-Repo-Commit": oid}
    blob = repo.commits[oid].get(path)
    if blob is None:
        raise HubError(404, "EntryNotFound", "Entry not found", **headers)
    if blob.is_lfs:
        request.hub.objects.setdefault(blob.etag, blob.data)
        headers |= {"Location": f"{request.hub.storage}/objects/{blob.etag}"}
        headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.data))}
        request.reply(status=302, headers=headers)
        return
    request.reply_file(blob.data, headers | {"ETag": f'"{blob.etag}"'})


def fetch_object(request: "Handler", oid: str) -> None:
    assert "Authorization" not in request.headers, "a token was sent to the storage"
    request.reply_file(request.hub.objects[oid], {"ETag": f'"{oid}"'})


Route = tuple[tuple[str, ...], str, Callable[..., None]]
READ, GET, POST, PUT = ("GET", "HEAD"), ("GET",), ("POST",), ("PUT",)
HUB: list[Route] = [
    (GET, r"/api/whoami-v2", whoami),
    (POST, r"/api/repos/create", create_repo),
    (POST, r"/api/validate-yaml", validate_yaml),
    (GET, API, repo_info),
    (GET, rf"{API}/revision/(?P<revision>.+)", repo_info),
    (GET, rf"{API}/refs", refs),
    (GET, rf"{API}/tree/(?P<revision>[^/]+)(?P<below>/.*)?", tree),
    (POST, rf"{API}/paths-info/(?P<revision>.+)", paths_info),
    (POST, rf"{API}/branch/(?P<name>.+)", create_branch),
    (POST, rf"{API}/tag/(?P<revision>.+)", create_tag),
    (POST, rf"{API}/preupload/(?P<revision>.+)", preupload),
    (POST, rf"{API}/commit/(?P<revision>.+)", commit),
    (POST, rf"{FILES}\.git/info/lfs/objects/batch", lfs_batch),
    (POST, rf"{FILES}\.git/info/lfs/verify", lfs_verify),
    (READ, rf"{FILES}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", resolve),
]
STORAGE: list[Route] = [
    (PUT, r"/objects/(?P<oid>[0-9a-f]{64})", store_object),
    (READ, r"/objects/(?P<oid>[0-9a-f]{64})", fetch_object),
]
