"""Reading from git: by gits that stay, any part of a file, whatever becomes of them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from labsync.digest import sha256_bytes
from labsync.errors import NotFoundError, UnavailableError
from labsync.manifest.model import Artifact
from labsync.origins import git_blobs
from labsync.origins.git import GitOrigin
from labsync.origins.git_command import git_servant
from labsync.places import Ref
from labsync.snapshot import FileEntry
from tests.fakes.git_server import GitRepo

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.origins.git_command import Remote
    from labsync.process import Servant

FILES = {"setup.py": b"print()\n", "pkg/__init__.py": b""}


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    repo = GitRepo(tmp_path / "repo")
    repo.commit(FILES)
    return repo


@pytest.fixture
def origin(tmp_path: Path) -> GitOrigin:
    return GitOrigin(tmp_path / "scratch")


def artifact(repo: GitRepo) -> Artifact:
    return Artifact("libraries", "lib", origin=f"git+file://{repo.folder}")


def read(origin: GitOrigin, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(map(bytes, origin.read(ref, entry, start, stop)))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Servant]:
    """The gits that were started to stay."""
    started: list[Servant] = []

    def remember(*words: str, remote: Remote, repository: Path) -> Servant:
        started.append(git_servant(*words, remote=remote, repository=repository))
        return started[-1]

    monkeypatch.setattr(git_blobs, "git_servant", remember)
    return started


def test_one_git_reads_all_files_whatever_they_hold(
    origin: GitOrigin, repo: GitRepo, started: list[Servant]
) -> None:
    files = {f"{n}.bin": b"\n" * n + b"blob 5\n" * (n * 3_000) for n in range(30)}
    commit = repo.commit(files)
    listing = origin.resolve(artifact(repo))
    assert {file.path: file.sha256 for file in listing.files} == {
        path: sha256_bytes(data) for path, data in {**FILES, **files}.items()
    }
    for path, data in files.items():
        ref, entry = Ref(artifact(repo).origin, commit, path), FileEntry(path, "", len(data))
        assert read(origin, ref, entry) == data
        assert read(origin, ref, entry, 3, len(data) // 2) == data[3 : len(data) // 2]
    assert len(started) == 1


def test_a_git_whose_answer_was_left_in_the_middle_is_not_asked_again(
    origin: GitOrigin, repo: GitRepo, started: list[Servant]
) -> None:
    data = bytes(range(256)) * 20_000
    ref = Ref(artifact(repo).origin, repo.commit({"big": data}), "big")
    entry = FileEntry("big", "", len(data))
    blocks = origin.read(ref, entry)
    first = bytes(next(blocks))
    blocks.close()
    assert data.startswith(first)
    assert read(origin, ref, entry, 0, 5) == data[:5]
    assert read(origin, ref, entry, 100, 3_000_000) == data[100:3_000_000]
    assert (
        read(origin, ref, entry, len(data) - 7, len(data) - 1) == data[-7:-1]
    )  # little left: read to the end
    assert read(origin, ref, entry) == data
    assert len(started) == 4


def test_a_git_that_was_killed_is_noticed_and_replaced(
    origin: GitOrigin, repo: GitRepo, started: list[Servant]
) -> None:
    ref = Ref(artifact(repo).origin, repo.git("rev-parse", "HEAD"), "setup.py")
    entry = FileEntry("setup.py", "", len(FILES["setup.py"]))
    assert read(origin, ref, entry) == FILES["setup.py"]
    (known,) = (servant._last.peek() for servant in started)
    assert known
    known[2][0].kill()
    with pytest.raises(UnavailableError, match="git failed"):
        read(origin, ref, entry)
    assert read(origin, ref, entry) == FILES["setup.py"]
    assert len(started) == 2


@pytest.mark.parametrize(
    "path", ["pkg/none.py", "setup.py/x", "pkg", "sub", "", "x blob 5", "setup.py\nsetup.py"]
)
def test_what_is_no_file_of_the_commit_is_not_found(origin: GitOrigin, repo: GitRepo, path: str) -> None:
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    ref = Ref(artifact(repo).origin, repo.save(), path)
    with pytest.raises(NotFoundError, match="no such file"):
        read(origin, ref, FileEntry(path, "", 3))


def test_a_scratch_that_was_deleted_is_made_again(origin: GitOrigin, repo: GitRepo, tmp_path: Path) -> None:
    ref = Ref(artifact(repo).origin, repo.git("rev-parse", "HEAD"), "setup.py")
    entry = FileEntry("setup.py", "", len(FILES["setup.py"]))
    for _ in range(2):
        assert read(origin, ref, entry) == FILES["setup.py"]
        shutil.rmtree(tmp_path / "scratch")
