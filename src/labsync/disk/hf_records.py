"""What makes a Hugging Face cache folder whole beside blobs and links: the listing and the ref."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from labsync.atomic import disk_errors, write_bytes
from labsync.digest import is_commit
from labsync.errors import ConflictError
from labsync.names import safe_join
from labsync.state import path_key

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.lock import LockedArtifact, LockedFile
    from labsync.manifest.model import Artifact
    from labsync.state import State

TREE_FORMAT = 1
DEFAULT_REVISION = "main"
REF = "hugging face ref"  # the state keeps under this kind which commits labsync wrote into a ref
RefState = Literal["right", "missing", "ours", "foreign"]


class HfRecords:
    """The listing `trees/<commit>.json` and the ref `refs/<revision>` of one repository folder.

    With the listing, huggingface_hub knows offline whether a snapshot is complete, so a part of a
    repository gets none. The ref is the revision that the manifest asks for; a commit needs none.
    """

    def __init__(
        self, repo: Path, artifact: Artifact, locked: LockedArtifact, state: State, root: Path
    ) -> None:
        revision = artifact.revision or DEFAULT_REVISION
        self._name = artifact.name
        self._commit = locked.revision
        self._files = {file.entry.path: file for file in locked.files}
        self._is_part = bool(locked.filtered or locked.skipped)
        self._tree = repo / "trees" / f"{locked.revision}.json"
        self._ref = None if is_commit(revision) else safe_join(repo / "refs", revision)
        self._state = state
        self._key = path_key(self._ref, root) if self._ref else ""

    @property
    def are_whole(self) -> bool:
        """Say whether listing and ref are as `finish` leaves them."""
        return self._is_listing_right() and self._ref_state() == "right"

    def write_listing(self) -> None:
        """Write the listing, unless it is there or this is only a part of the repository."""
        with disk_errors(self._tree):
            is_right = self._is_listing_right()
        if not is_right:
            files = {path: _listed(file) for path, file in sorted(self._files.items())}
            data = {"format_version": TREE_FORMAT, "files": files}
            write_bytes(self._tree, json.dumps(data, indent=1).encode())

    def write_ref(self) -> None:
        """Let the ref name the locked commit; ConflictError when it names another, not by labsync."""
        ref = self._ref
        if ref is None:
            return
        with disk_errors(ref):
            state = self._ref_state()
        if state == "right":
            return
        if state == "foreign":
            raise ConflictError(
                f"`{ref}` names another commit than the lock, {self._commit}",
                safe=f"the files are there; `revision={self._commit!r}` loads them",
                hint=f"`rm {ref}` and run it again, or `labsync lock --upgrade {self._name}`",
                path=str(ref),
            )
        # Noted first and beside the older ones: a crash in between leaves a ref that still counts as ours.
        noted = self._state.get(REF, self._key) or b""
        self._state.put(REF, self._key, noted + self._commit.encode() + b"\n")
        write_bytes(ref, self._commit.encode())

    def _is_listing_right(self) -> bool:
        if self._is_part:
            return True
        try:
            listed = json.loads(self._tree.read_bytes())
        except FileNotFoundError:
            return False
        except ValueError:
            return False
        if not isinstance(listed, dict) or listed.get("format_version") != TREE_FORMAT:
            return False
        entries = listed.get("files")
        return isinstance(entries, dict) and entries.keys() == self._files.keys()

    def _ref_state(self) -> RefState:
        """Say what the ref is; `ours` is an older commit that labsync wrote, free to be moved."""
        if self._ref is None:
            return "right"
        try:
            text = self._ref.read_bytes()
        except FileNotFoundError:
            return "missing"
        commit = self._commit.encode()
        if text.strip() == commit:
            return "right" if text == commit else "ours"  # huggingface_hub does not strip a newline
        noted = (self._state.get(REF, self._key) or b"").split(b"\n")
        return "ours" if text and text in noted else "foreign"


def _listed(file: LockedFile) -> dict[str, str | int]:
    item: dict[str, str | int] = {"size": file.entry.size, "blob_id": file.oid}
    if file.lfs:
        item |= {"lfs_sha256": file.entry.sha256, "lfs_size": file.entry.size}
    if file.xet:
        item["xet_hash"] = file.xet
    return item
