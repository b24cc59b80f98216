"""The git origin against real repositories: what is pinned, what is refused, what never runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from labsync.digest import sha256_bytes
from labsync.errors import (
    IntegrityError,
    InvalidError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
)
from labsync.manifest.model import Artifact
from labsync.origins.git import GitOrigin
from labsync.origins.git_command import Remote, environment, git
from labsync.places import Ref
from labsync.snapshot import FileEntry, Snapshot
from tests.fakes.git_server import GitRepo, GitServer

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"setup.py": b"print()\n", "pkg/__init__.py": b"", "run.sh": b"#!/bin/sh\n"}


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    repo = GitRepo(tmp_path / "repo")
    repo.commit(FILES, executable=["run.sh"])
    return repo


@pytest.fixture
def origin(tmp_path: Path) -> GitOrigin:
    return GitOrigin(tmp_path / "scratch")


def artifact(where: GitRepo | str, revision: str = "") -> Artifact:
    url = where if isinstance(where, str) else f"git+file://{where.folder}"
    return Artifact("libraries", "lib", origin=url, revision=revision)


def read(origin: GitOrigin, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(map(bytes, origin.read(ref, entry, start, stop)))


def test_size_digest_mode_and_git_name_are_known(origin: GitOrigin, repo: GitRepo) -> None:
    files = {file.path: file for file in origin.resolve(artifact(repo)).files}
    assert sorted(files) == sorted(FILES)
    for path, data in FILES.items():
        assert files[path].sha256 == sha256_bytes(data)
        assert files[path].size == len(data)
        assert files[path].oid == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        assert files[path].executable == (path == "run.sh")


def test_branch_tag_annotated_tag_commit_and_head_are_one_commit(origin: GitOrigin, repo: GitRepo) -> None:
    commit = repo.git("rev-parse", "HEAD")
    repo.git("tag", "light")
    repo.git("tag", "--annotate", "heavy", "--message", "tag")
    repo.git("branch", "feature/x")
    assert repo.git("rev-parse", "heavy") != commit
    names = ["", "main", "light", "heavy", "feature/x", "refs/heads/main", "refs/tags/heavy", commit]
    assert {origin.resolve(artifact(repo, name)).revision for name in [*names, commit.upper()]} == {commit}


@pytest.mark.fault(61)
def test_a_moved_branch_does_not_move_what_is_pinned(
    origin: GitOrigin, repo: GitRepo, tmp_path: Path
) -> None:
    old = origin.resolve(artifact(repo, "main")).revision
    new = repo.commit({"setup.py": b"changed\n"})
    assert origin.resolve(artifact(repo, "main")).revision == new
    fresh = GitOrigin(tmp_path / "other")
    entry = FileEntry("setup.py", sha256_bytes(FILES["setup.py"]), len(FILES["setup.py"]))
    assert read(fresh, Ref(artifact(repo).origin, old, "setup.py"), entry) == FILES["setup.py"]


def test_a_name_of_two_commits_is_not_chosen_from(origin: GitOrigin, repo: GitRepo) -> None:
    repo.git("tag", "both")
    tagged = repo.git("rev-parse", "HEAD")
    repo.commit({"new": b""})
    repo.git("branch", "both")
    with pytest.raises(InvalidError, match="a branch and a tag") as caught:
        origin.resolve(artifact(repo, "both"))
    assert "`refs/tags/both`" in caught.value.hint
    assert origin.resolve(artifact(repo, "refs/tags/both")).revision == tagged


def test_a_short_commit_is_not_enough(origin: GitOrigin, repo: GitRepo) -> None:
    with pytest.raises(InvalidError, match="all 40 digits"):
        origin.resolve(artifact(repo, repo.git("rev-parse", "--short", "HEAD")))


def test_a_missing_branch_lists_close_names(origin: GitOrigin, repo: GitRepo) -> None:
    with pytest.raises(NotFoundError) as caught:
        origin.resolve(artifact(repo, "maim"))
    assert "`main`" in caught.value.hint
    with pytest.raises(NotFoundError):
        origin.resolve(artifact(repo, "0" * 40))


def test_an_empty_repository_has_no_commit(origin: GitOrigin, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no commit yet"):
        origin.resolve(artifact(GitRepo(tmp_path / "empty")))


@pytest.mark.fault(78)
def test_links_and_submodules_are_skipped_and_told(origin: GitOrigin, repo: GitRepo) -> None:
    (repo.folder / "link").symlink_to("/etc/passwd")
    repo.git("add", "link")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},vendor/sub")
    repo.save()
    listing = origin.resolve(artifact(repo))
    assert listing.skipped == {"link": "is a symbolic link", "vendor/sub": "is a submodule"}
    assert {file.path for file in listing.files} == set(FILES)


def test_lfs_pointers_are_carried_as_they_are(origin: GitOrigin, repo: GitRepo) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"
    repo.commit({"big.bin": pointer, ".gitattributes": b"*.bin filter=lfs diff=lfs merge=lfs -text\n"})
    files = {file.path: file for file in origin.resolve(artifact(repo)).files}
    assert files["big.bin"].sha256 == sha256_bytes(pointer)


def tree_of(repo: GitRepo, *entries: str) -> str:
    """Return a commit whose tree git itself would not write; `git mktree` does."""
    tree = repo.git("mktree", "--missing", stdin="".join(f"{entry}\n" for entry in entries).encode())
    return repo.git("commit-tree", tree, "-m", "bad")


@pytest.mark.fault(75, 78)
@pytest.mark.parametrize("name", [".git", ".GIT", "git~1"])
def test_a_tree_that_writes_into_the_git_folder_is_refused(
    origin: GitOrigin, repo: GitRepo, name: str
) -> None:
    blob = repo.git("hash-object", "-w", "--stdin", stdin=b"#!/bin/sh\ntouch /tmp/owned\n")
    inner = repo.git("mktree", stdin=f"100755 blob {blob}\tpost-checkout\n".encode())
    commit = tree_of(repo, f"040000 tree {inner}\t{name}")
    repo.git("update-ref", "refs/heads/bad", commit)
    with pytest.raises(RefusedError, match=r"inside `\.git`"):
        origin.resolve(artifact(repo, "bad"))


@pytest.mark.parametrize("name", ["new\nline", "bell\x07"])
def test_odd_names_arrive_as_they_are_and_the_name_policy_refuses_them(
    origin: GitOrigin, repo: GitRepo, name: str
) -> None:
    repo.commit({name: b"x"})
    listing = origin.resolve(artifact(repo))
    assert name in {file.path for file in listing.files}
    with pytest.raises(RefusedError):
        Snapshot.of(FileEntry(file.path, file.sha256, file.size) for file in listing.files)


@pytest.mark.fault(78)
@pytest.mark.parametrize(
    "url",
    [
        "git+ext::sh -c 'touch /tmp/owned'", "git+fd::17", "git+ssh://-oProxyCommand=touch/x", "git+https:///x",
        "git+ssh://git@-oProxyCommand=touch/x", "git+https:--upload-pack=touch", "git+--upload-pack=x:/y",
        "git+git://host/x", "git+https://--upload-pack=x/y",
    ],
)  # fmt: skip
def test_addresses_that_could_be_options_or_commands_are_refused(origin: GitOrigin, url: str) -> None:
    with pytest.raises(RefusedError):
        origin.resolve(artifact(url))


@pytest.mark.fault(78)
@pytest.mark.parametrize("revision", ["--upload-pack=touch", "-x", "a b", "a..b", "x:y", "a\nb", "x^{}", "*"])
def test_revisions_that_could_be_options_or_patterns_are_refused(
    origin: GitOrigin, repo: GitRepo, revision: str
) -> None:
    with pytest.raises(RefusedError):
        origin.resolve(artifact(repo, revision))
    assert not (repo.folder.parent / "scratch").exists()


@pytest.mark.fault(78)
def test_nothing_of_the_users_configuration_and_no_hook_counts(
    origin: GitOrigin, repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "owned"
    config = tmp_path / ".gitconfig"
    config.write_text(
        f'[core]\n\tfsmonitor = "touch {mark}"\n\thooksPath = {tmp_path}/hooks\n'
        f'\tsshCommand = "touch {mark}"\n'
        f'[url "ext::touch {mark} %S "]\n\tinsteadOf = file://\n[protocol "ext"]\n\tallow = always\n'
    )
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("reference-transaction", "post-checkout", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (hooks / name).chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", f"touch {mark}")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"touch {mark}")
    assert origin.resolve(artifact(repo)).files
    assert not mark.exists()
    assert not {"GIT_DIR", "GIT_EXTERNAL_DIFF", "GIT_CONFIG_COUNT"} & set(environment("https"))


@pytest.mark.fault(78)
def test_a_protocol_other_than_the_addresss_is_never_spoken(repo: GitRepo) -> None:
    https = Remote("https://example.org/x", "https")
    with pytest.raises(LabsyncError, match="not allowed"):
        git("ls-remote", "--", f"file://{repo.folder}", remote=https)


@pytest.mark.parametrize("old", [False, True])
def test_a_commit_behind_the_branch_is_fetched_also_from_old_servers(
    origin: GitOrigin, tmp_path: Path, old: bool
) -> None:
    with GitServer(tmp_path / "served", old=old) as server:
        repo = server.repo("lib")
        first = repo.commit({"a": b"1"})
        second = repo.commit({"a": b"2"})
        repo.commit({"a": b"3"})
        url = server.url_of("lib")
        assert origin.resolve(artifact(url, "main")).files[0].sha256 == sha256_bytes(b"3")
        for commit, data in ((second, b"2"), (first, b"1")):
            assert origin.resolve(artifact(url, commit)).files[0].sha256 == sha256_bytes(data)


@pytest.mark.fault(62)
@pytest.mark.parametrize("old", [False, True])
def test_a_commit_that_was_rewritten_away_is_told(origin: GitOrigin, tmp_path: Path, old: bool) -> None:
    with GitServer(tmp_path / "served", old=old) as server:
        repo = server.repo("lib")
        commit = repo.commit({"a": b"1"})
        repo.git("checkout", "--quiet", "--orphan", "fresh")
        repo.commit({"a": b"2"})
        repo.git("branch", "--force", "main", "fresh")
        repo.git("reflog", "expire", "--expire=now", "--all")
        repo.git("gc", "--quiet", "--prune=now")
        ref = Ref(server.url_of("lib"), commit, "a")
        with pytest.raises(NotFoundError, match="any more") as caught:
            read(origin, ref, FileEntry("a", sha256_bytes(b"1"), 1))
        assert "lock --upgrade" in caught.value.hint


def test_a_private_repository_needs_credentials_and_never_asks(
    origin: GitOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with GitServer(tmp_path / "served", password="s3cret") as server:
        server.repo("lib").commit({"a": b"1"})
        with pytest.raises(NotAllowedError) as caught:
            origin.resolve(artifact(server.url_of("lib")))
        assert "netrc" in caught.value.hint
        with pytest.raises(NotAllowedError) as caught:
            origin.resolve(artifact(server.url_of("lib").replace("//", "//git:wrong@")))
        assert "wrong" not in str(caught.value) + caught.value.hint
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login git password s3cret\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert origin.resolve(artifact(server.url_of("lib"))).files


def corrupt(scratch: Path, oid: str, content: bytes) -> None:
    """Give an object of the scratch other content, of a form that git reads without complaint."""
    packs = list((scratch / "objects" / "pack").glob("*.pack"))
    held = [pack.read_bytes() for pack in packs]
    for pack in (scratch / "objects" / "pack").iterdir():
        pack.unlink()  # objects that a pack holds would not be unpacked
    env = {**os.environ, "GIT_DIR": str(scratch)}
    for data in held:
        subprocess.run(["git", "unpack-objects", "-q"], env=env, input=data, check=True)
    loose = scratch / "objects" / oid[:2] / oid[2:]
    loose.unlink()
    loose.write_bytes(zlib.compress(content))


@pytest.mark.parametrize("sort", ["file", "tree"])
def test_a_damaged_scratch_is_noticed(origin: GitOrigin, repo: GitRepo, tmp_path: Path, sort: str) -> None:
    origin.resolve(artifact(repo))
    (scratch,) = (tmp_path / "scratch").glob("*.git")
    if sort == "file":
        corrupt(scratch, repo.git("rev-parse", "HEAD:setup.py"), b"blob 8\0garbage\n")
    else:
        entry = b"100644 other.py\0" + bytes.fromhex(repo.git("rev-parse", "HEAD:setup.py"))
        corrupt(scratch, repo.git("rev-parse", "HEAD^{tree}"), b"tree %d\0" % len(entry) + entry)
    with pytest.raises(IntegrityError, match="damaged"):
        origin.resolve(artifact(repo))


def test_a_tree_that_its_files_do_not_make_up_is_noticed(
    origin: GitOrigin, repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git checks the trees it reads; this stands for one that does not."""
    real = shutil.which("git")
    liar = tmp_path / "bin" / "git"
    liar.parent.mkdir()
    liar.write_text(
        f'#!/bin/sh\nfor word; do [ "$word" = write-tree ] && echo {"0" * 40} && exit; done\n'
        f'exec {real} "$@"\n'
    )
    liar.chmod(0o755)
    monkeypatch.setenv("PATH", f"{liar.parent}:{os.environ['PATH']}")
    with pytest.raises(IntegrityError, match="do not make up its tree"):
        origin.resolve(artifact(repo))


def test_an_object_that_the_scratch_lost_is_damage_and_not_absence(
    origin: GitOrigin, repo: GitRepo, tmp_path: Path
) -> None:
    origin.resolve(artifact(repo))
    (scratch,) = (tmp_path / "scratch").glob("*.git")
    oid = repo.git("rev-parse", "HEAD:setup.py")
    corrupt(scratch, oid, b"")
    (scratch / "objects" / oid[:2] / oid[2:]).unlink()
    ref = Ref(artifact(repo).origin, repo.git("rev-parse", "HEAD"), "setup.py")
    with pytest.raises(IntegrityError, match="damaged"):
        read(GitOrigin(tmp_path / "scratch"), ref, FileEntry("setup.py", "", 8))


def test_without_git_the_message_names_it(
    origin: GitOrigin, repo: GitRepo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFoundError, match="`git` was not found") as caught:
        origin.resolve(artifact(repo))
    assert "install" in caught.value.hint


def test_a_locked_revision_that_is_no_commit_is_invalid(origin: GitOrigin) -> None:
    with pytest.raises(InvalidError):
        read(origin, Ref("git+https://h/x", "main", "a"), FileEntry("a", "", 1))


def test_another_artifact_of_the_same_repository_uses_what_was_fetched(
    origin: GitOrigin, tmp_path: Path
) -> None:
    with GitServer(tmp_path / "served") as server:
        commit = server.repo("lib").commit({"a": b"1"})
        listing = origin.resolve(artifact(server.url_of("lib"), commit))
        asked = len(server.requests)
        again = GitOrigin(tmp_path / "scratch").resolve(
            replace(artifact(server.url_of("lib")), revision=commit)
        )
        assert again == listing
        assert len(server.requests) == asked
