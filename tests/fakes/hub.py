"""The project's own Hugging Face hub: two servers on loopback, the hub and the CDN of its large files.

Faithful to what `huggingface_hub` 2.4 and `transformers` 5 ask: information, recursive trees in pages,
paths-info (as a form and as JSON), refs, commits, whoami, auth-check, and `resolve` with a redirect to the
CDN for LFS files and to the resolve cache for the others. Errors carry `X-Error-Code` as the hub's do.

```python
with Hub() as hub:
    commit = hub.add_repo("models", "org/name", {"config.json": b"{}", "model.safetensors": b"..."})
    hub.fault(Fault("*/config.json", status=503, times=1))
    hub.url, hub.requests, hub.cdn.requests
```
"""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

from tests.fakes import hub_repo
from tests.fakes.http_faults import Fault, FaultyServer, Reply, Request
from tests.fakes.hub_repo import LFS, Gate, HubFile, Repo, RepoKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TOKEN = "hf_test_of_a_member_1234"  # may read everything
STRANGER = "hf_test_of_a_stranger_5678"  # valid, but granted nothing
_FILE = re.compile(r"/(?P<data>datasets/)?(?P<id>[^/]+(?:/[^/]+)?)/resolve/(?P<rev>[^/]+)/(?P<path>.+)")
_CACHED = re.compile(r"/api/resolve-cache/(?P<kind>models|datasets)/(?P<rest>.+)")
_API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<id>.+?)"
    r"(?:/(?P<verb>revision|tree|paths-info|refs|commits|auth-check)(?:/(?P<rest>.+))?)?"
)


class Cdn(FaultyServer):
    """Serves LFS files by signed links; refuses links that ran out, and requests that carry a token.

    `uses` is how many requests a link is good for: 1 refuses a second one.
    """

    def __init__(self) -> None:
        self.files: dict[str, HubFile] = {}
        self.uses = math.inf
        self.left: dict[str, float] = {}
        self._signatures = itertools.count(1)
        super().__init__()

    def link(self, file: HubFile) -> str:
        """Return a fresh signed link."""
        self.files[file.sha256] = file
        signature = f"sig{next(self._signatures)}"
        self.left[signature] = self.uses
        return f"{self.url}/lfs/{file.sha256}?X-Amz-Signature={signature}"

    def answer(self, request: Request) -> Reply:
        if "authorization" in request.headers:
            return Reply(400, b"only one auth mechanism allowed")
        if not self._is_good(parse_qs(request.query).get("X-Amz-Signature", [""])[0]):
            return Reply(
                403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
            )
        file = self.files[request.path.removeprefix("/lfs/")]
        return Reply(200, file.data, {"ETag": '"cdn"', "Content-Type": "binary/octet-stream"}, ranged=True)

    def _is_good(self, signature: str) -> bool:
        with self._lock:
            left = self.left.get(signature, 0)
            self.left[signature] = left - 1
        return left > 0


class Hub(FaultyServer):
    """A hub with models and datasets; `page_size` says how many tree items come at once."""

    def __init__(self, page_size: int = 1000) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.page_size = page_size
        self.cdn = Cdn()
        super().__init__()

    def close(self) -> None:
        super().close()
        self.cdn.close()

    def add_repo(
        self,
        kind: RepoKind,
        repo_id: str,
        files: Mapping[str, bytes],
        *,
        lfs: tuple[str, ...] = LFS,
        gated: Gate = False,
        private: bool = False,
        tags: Iterable[str] = (),
        branches: Iterable[str] = (),
    ) -> str:
        """Add a repository with one commit on `main`, which the tags and branches name too."""
        repo = Repo(kind, repo_id, lfs, gated, private)
        commit = repo.commit(files)
        repo.tags = dict.fromkeys(tags, commit)
        repo.history.update({branch: [commit] for branch in branches})
        self.repos[kind, repo_id] = repo
        return commit

    def commit(
        self,
        repo_id: str,
        files: Mapping[str, bytes],
        *,
        kind: RepoKind = "models",
        branch: str = "main",
        delete: Iterable[str] = (),
    ) -> str:
        """Add a commit to a branch (made from `main` where it is new) and return it."""
        return self.repos[kind, repo_id].commit(files, branch, delete)

    def remove_repo(self, repo_id: str, kind: RepoKind = "models") -> None:
        """Delete a repository."""
        del self.repos[kind, repo_id]

    def expire_links(self) -> None:
        """Let every signed link given so far run out."""
        self.cdn.left.clear()

    def rate_limit(self, seconds: int, path: str = "*", times: int = -1) -> None:
        """Answer 429 as the hub does when nothing of the quota is left."""
        headers = {
            "RateLimit": f'"api";r=0;t={seconds}',
            "RateLimit-Policy": '"fixed window";"api";q=500;w=300',
        }
        self.fault(Fault(path, status=429, headers=headers, times=times))

    def answer(self, request: Request) -> Reply:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in {"", TOKEN, STRANGER}:
            return _error(401, "", "Invalid credentials in Authorization header")
        if request.path == "/api/whoami-v2":
            return self._whoami(token)
        path = request.raw_path
        if match := _CACHED.fullmatch(path):
            prefix = "/datasets/" if match["kind"] == "datasets" else "/"
            if file := _FILE.fullmatch(prefix + match["rest"]):
                return self._file(file, token, cached=True)
        if match := _FILE.fullmatch(path):
            return self._file(match, token)
        if path in {"/api/models", "/api/datasets"}:
            return self._listing(path.rpartition("/")[2], parse_qs(request.query))
        if match := _API.fullmatch(path):
            return self._api(match, request, token)
        return _error(404, "", "Not Found")

    def _listing(self, kind: str, query: dict[str, list[str]]) -> Reply:
        """List what everybody may see: of one owner, or with a word in the name."""
        owner, word = query.get("author", [""])[0], query.get("search", [""])[0]
        return _json(
            [
                {"id": repo_id}
                for (its_kind, repo_id), repo in self.repos.items()
                if its_kind == kind and not repo.private
                if repo_id.startswith(f"{owner}/" if owner else "") and word.lower() in repo_id.lower()
            ]
        )

    def _whoami(self, token: str) -> Reply:
        if not token:
            return _error(401, "", "Invalid username or password.")
        auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": "read"}}
        return _json({"type": "user", "name": "member" if token == TOKEN else "stranger", "auth": auth})

    def _open(self, kind: str, repo_id: str, token: str) -> Repo | Reply:
        repo = self.repos.get((kind, repo_id))
        if repo is None or (repo.private and token != TOKEN):
            # The hub does not tell a stranger whether a repository is missing or private.
            return _error(404 if token else 401, "RepoNotFound", "Repository not found")
        return repo

    def _api(self, match: re.Match[str], request: Request, token: str) -> Reply:
        repo = self._open(match["kind"], match["id"], token)
        if isinstance(repo, Reply):
            return repo
        verb, (quoted, _, below) = match["verb"], (match["rest"] or "").partition("/")
        revision, below = unquote(quoted), unquote(below)
        if verb == "refs":
            return _json(hub_repo.refs(repo))
        if verb == "auth-check":
            return _gate(repo, token) or Reply(200)
        commit = repo.find(revision or "HEAD")
        if commit is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if verb == "tree":
            return self._tree(repo, commit, below, request)
        if verb == "paths-info":
            return _paths_info(repo.commits[commit], request)
        if verb == "commits":
            return _json(hub_repo.commits(repo, commit))
        return _json(hub_repo.info(repo, commit, blobs="blobs" in request.query))

    def _tree(self, repo: Repo, commit: str, below: str, request: Request) -> Reply:
        query = parse_qs(request.query)
        items = hub_repo.items(repo.commits[commit], below, query.get("recursive") in (["true"], ["True"]))
        if below and not items:
            return _error(404, "EntryNotFound", f"{below} does not exist", {"X-Repo-Commit": commit})
        cursor = int(query.get("cursor", ["0"])[0])
        page = items[cursor : cursor + self.page_size]
        headers = {}
        if cursor + self.page_size < len(items):
            query["cursor"] = [str(cursor + self.page_size)]
            text = "&".join(f"{name}={values[0]}" for name, values in query.items())
            headers["Link"] = f'<{self.url}{request.raw_path}?{text}>; rel="next"'
        return _json(page, headers)

    def _file(self, match: re.Match[str], token: str, *, cached: bool = False) -> Reply:
        kind = "datasets" if match["data"] else "models"
        repo = self._open(kind, match["id"], token)
        if isinstance(repo, Reply):
            return repo
        if refusal := _gate(repo, token):
            return refusal
        revision, path = unquote(match["rev"]), unquote(match["path"])
        commit = repo.find(revision)
        if commit is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        headers = {"X-Repo-Commit": commit}
        file = repo.commits[commit].get(path)
        if file is None:
            return _error(404, "EntryNotFound", "Entry not found", headers)
        if file.lfs:
            linked = {"X-Linked-Size": str(len(file.data)), "X-Linked-Etag": f'"{file.sha256}"'}
            return Reply(302, headers={**headers, **linked, "Location": self.cdn.link(file)})
        headers["ETag"] = f'"{file.oid}"'
        if not cached:
            target = f"/api/resolve-cache/{kind}/{match['id']}/resolve/{commit}/{match['path']}"
            return Reply(307, headers={**headers, "Location": target})
        return Reply(200, file.data, {**headers, "Content-Type": "text/plain; charset=utf-8"}, ranged=True)


def _json(value: object, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    named = {"X-Error-Code": code} if code else {}
    body = json.dumps({"error": message}).encode()
    return Reply(status, body, {**named, "X-Error-Message": message, **(headers or {})})


def _gate(repo: Repo, token: str) -> Reply | None:
    """Return the refusal of a gated repository, None where the token was granted access."""
    if not repo.gated or token == TOKEN:
        return None
    start = f"Access to model {repo.id} is restricted"
    if not token:
        tail = "You must have access to it and be authenticated to access it. Please log in."
        return _error(401, "GatedRepo", f"{start}. {tail}")
    tail = f"Visit https://huggingface.co/{repo.id} to ask for access."
    return _error(403, "GatedRepo", f"{start} and you are not in the authorized list. {tail}")


def _paths_info(tree: Mapping[str, HubFile], request: Request) -> Reply:
    if "json" in request.headers.get("content-type", ""):
        paths = json.loads(request.body)["paths"]
    else:
        paths = parse_qs(request.body.decode())["paths"]
    items = hub_repo.items(tree, "", recursive=True)
    return _json([item for item in items if item["path"] in paths])
