"""The Hugging Face hub: models as `hf://org/name`, datasets as `hf://datasets/org/name`.

The listing comes from `huggingface_hub`; the bytes come through labsync's own reader, because the library
neither resumes across calls nor notices a flipped byte. However many ranges of a file are read, the hub is
asked for it once, and again only when the signed link it gave has run out.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from labsync.errors import InvalidError, LabsyncError, NotAllowedError, NotFoundError, UnavailableError
from labsync.origins.base import Listed, Listing
from labsync.origins.http import READ_TIMEOUT, HttpReader
from labsync.origins.http_errors import Answer, status_error
from labsync.origins.hub_names import closest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import HfApi

    from labsync.manifest.model import Artifact
    from labsync.places import Blocks, Ref
    from labsync.snapshot import FileEntry

_LISTED = 200  # names of an owner that are compared with a wrong one
_ORIGIN = re.compile(r"hf://(?P<kind>datasets/)?(?P<id>[\w.-]+(?:/[\w.-]+)?)")


@dataclass(frozen=True, slots=True)
class _Repo:
    """A repository of the hub, by kind and id."""

    is_dataset: bool
    id: str

    @classmethod
    def of(cls, origin: str) -> _Repo:
        """Return the repository that an origin names; raises InvalidError (3)."""
        match = _ORIGIN.fullmatch(origin)
        if match is None:
            raise InvalidError(
                f"`{origin}` does not name a repository of the hub",
                hint="write `hf://org/name` or `hf://datasets/org/name`",
            )
        return cls(match["kind"] is not None, match["id"])

    @property
    def address(self) -> str:
        """The repository's part of an address."""
        return f"datasets/{self.id}" if self.is_dataset else self.id

    @property
    def kind(self) -> str:
        """The hub's word for the kind."""
        return "dataset" if self.is_dataset else "model"


class HuggingFaceOrigin:
    """The hub at `endpoint`, else at `HF_ENDPOINT`; `token` replaces the one that `hf auth login` keeps."""

    def __init__(self, endpoint: str | None = None, token: str | None = None) -> None:
        self._endpoint = endpoint
        self._own_token = token
        self._http = HttpReader()

    def resolve(self, artifact: Artifact) -> Listing:
        """Fulfil the contract of `Resolver.resolve` by two requests, three for a gated repository."""
        from huggingface_hub import HfApi, get_session

        repo = _Repo.of(artifact.origin)
        api = HfApi(endpoint=self._url(), token=self._token() or False)
        get_session().timeout = READ_TIMEOUT  # the library's own client waits for ever
        try:
            with self._hub_errors(repo):
                info = api.repo_info(repo.id, repo_type=repo.kind, revision=artifact.revision or None)
        except _NoRevisionError as error:
            raise self._no_revision(api, repo, artifact.revision) from error
        except _NoRepositoryError as error:
            raise self._no_repository(api, repo, error) from error
        with self._hub_errors(repo):
            if info.gated:
                api.auth_check(repo.id, repo_type=repo.kind)
            files = tuple(_files(api, repo, info.sha))
        kept = tuple(file for file in files if artifact.filter.keeps(file.path))
        return Listing(info.sha, kept, {}, filtered=len(kept) < len(files))

    def read(self, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> Blocks:
        """Fulfil the contract of `Reader.read`."""
        repo, token = _Repo.of(ref.location), self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"{self._url()}/{repo.address}/resolve/{quote(ref.revision, safe='')}/{quote(ref.path)}"
        reader = self._http.explaining(lambda answer: self._explain(repo, answer))
        yield from reader.read(url, entry, start, stop, headers)

    def _url(self) -> str:
        from huggingface_hub import constants

        return (self._endpoint or os.environ.get("HF_ENDPOINT") or str(constants.ENDPOINT)).rstrip("/")

    def _token(self) -> str:
        from huggingface_hub import get_token

        return self._own_token or get_token() or ""

    def _token_used(self) -> str:
        if token := self._token():
            return f"the token ending in `{token[-4:]}` was used"
        return "no token is set: `hf auth login` or `HF_TOKEN`"

    def _explain(self, repo: _Repo, answer: Answer) -> LabsyncError:
        """Return the error behind an answer of the hub, which names the cause in a header of its own."""
        page = f"{self._url()}/{repo.address}"
        code = answer.headers.get("x-error-code", "")
        is_token_bad = "Invalid credentials" in answer.headers.get("x-error-message", "")
        if code == "GatedRepo":
            return NotAllowedError(
                f"the {repo.kind} `{repo.id}` is gated and access was not granted",
                hint=f"ask for access on {page}; {self._token_used()}",
            )
        if code == "RevisionNotFound":
            return _NoRevisionError(
                f"the revision is not in the {repo.kind} `{repo.id}` any more", hint=f"see {page}"
            )
        if code == "EntryNotFound":
            return NotFoundError(f"the {repo.kind} `{repo.id}` has no such file at this revision")
        if answer.status == 401 and is_token_bad:
            return NotAllowedError(
                "the hub does not accept the token", hint=f"`hf auth login`; {self._token_used()}"
            )
        is_of_the_hub = answer.url.startswith(f"{self._url()}/")
        if code == "RepoNotFound" or (answer.status in {401, 404} and is_of_the_hub):
            return _NoRepositoryError(
                f"the {repo.kind} `{repo.id}` does not exist, or it is private and you may not see it",
                hint=f"check the name on {page}; {self._token_used()}",
            )
        return status_error(answer)

    @contextlib.contextmanager
    def _hub_errors(self, repo: _Repo) -> Iterator[None]:
        """Translate what `huggingface_hub` raises in the block."""
        from huggingface_hub import errors

        try:
            yield
        except errors.HfHubHTTPError as error:
            response = error.response
            headers = {name.lower(): value for name, value in response.headers.items()}
            answer = Answer(str(response.url), response.status_code, headers)
            raise self._explain(repo, answer) from error
        except errors.HFValidationError as error:
            raise InvalidError(f"`{repo.id}` is not a name that the hub allows") from error
        except errors.OfflineModeIsEnabled as error:
            raise UnavailableError(
                "the hub was not asked because `HF_HUB_OFFLINE` is set", hint="`unset HF_HUB_OFFLINE`"
            ) from error
        except (errors.HTTPError, OSError) as error:
            raise UnavailableError(
                f"the hub at `{self._url()}` cannot be reached", hint="check the network"
            ) from error
        except (ValueError, KeyError) as error:
            raise UnavailableError(
                f"`{self._url()}` does not answer as a hub does",
                hint="this network may want you to sign in first; open the address in a browser",
            ) from error

    def _no_revision(self, api: HfApi, repo: _Repo, revision: str) -> NotFoundError:
        with self._hub_errors(repo):
            refs = api.list_repo_refs(repo.id, repo_type=repo.kind)
        names = [ref.name for ref in (*refs.branches, *refs.tags)]
        close = difflib.get_close_matches(revision, names, n=3, cutoff=0.4) or names[:3]
        return NotFoundError(
            f"the {repo.kind} `{repo.id}` has no revision `{revision}`",
            hint="it has " + ", ".join(f"`{name}`" for name in close),
        )

    def _no_repository(self, api: HfApi, repo: _Repo, error: NotFoundError) -> NotFoundError:
        """Return the error with what may be meant: of the names known here, and those of the same owner."""
        owner = repo.id.partition("/")[0] if "/" in repo.id else None
        listing = api.list_datasets if repo.is_dataset else api.list_models
        names: list[str] = []
        with contextlib.suppress(LabsyncError), self._hub_errors(repo):
            names = [
                found.id for found in listing(author=owner, search=None if owner else repo.id, limit=_LISTED)
            ]
        close = closest(repo.id, names)
        meant = f"did you mean {' or '.join(f'`{name}`' for name in close)}? " if close else ""
        return NotFoundError(error.what, hint=f"{meant}{error.hint}")


class _NoRepositoryError(NotFoundError):
    """There is no repository of that name for who asks."""


class _NoRevisionError(NotFoundError):
    """The repository exists, its revision does not."""


def _files(api: HfApi, repo: _Repo, commit: str) -> Iterator[Listed]:
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repo.id, repo_type=repo.kind, revision=commit, recursive=True)
    files = (item for item in tree if isinstance(item, RepoFile))
    for item in sorted(files, key=lambda file: file.path.encode("utf-8", "surrogatepass")):
        lfs = item.lfs
        yield Listed(
            item.path,
            lfs.size if lfs else item.size,
            sha256=lfs.sha256 if lfs else "",
            oid=item.blob_id,
            lfs=lfs is not None,
            xet=item.xet_hash or "",
        )
