"""The Hugging Face origin against the test hub: what it says when things go wrong, and to whom it says it."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from labsync.errors import (
    InvalidError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
)
from labsync.filters import Filter
from labsync.manifest.model import Artifact
from labsync.origins.huggingface import HuggingFaceOrigin
from labsync.places import Ref
from labsync.snapshot import FileEntry
from tests.fakes.http_client import Client
from tests.fakes.http_faults import Fault
from tests.fakes.hub import STRANGER, TOKEN, Hub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WEIGHTS = bytes(range(256)) * 4000
FILES = {"config.json": b'{"a": 1}', "model.safetensors": WEIGHTS}
ARTIFACT = Artifact("models", "m", origin="hf://org/name")
BIG = FileEntry("model.safetensors", hashlib.sha256(WEIGHTS).hexdigest(), len(WEIGHTS))


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(page_size=2) as hub:
        hub.add_repo("models", "org/name", FILES, tags=["v1.0", "v2.0"], branches=["feature/odd"])
        yield hub


def read(
    origin: HuggingFaceOrigin, commit: str, entry: FileEntry = BIG, start: int = 0, stop: int | None = None
) -> bytes:
    ref = Ref("hf://org/name", commit, entry.path)
    return b"".join(map(bytes, origin.read(ref, entry, start, stop)))


def asked(hub: Hub) -> int:
    """Return how often the hub was asked for a file."""
    return len([request for request in hub.requests if "/resolve/" in request.path])


def test_the_listing_knows_what_the_hub_knows(hub: Hub) -> None:
    listing = HuggingFaceOrigin(hub.url).resolve(ARTIFACT)
    config, weights = listing.files
    assert config.sha256 == ""
    assert config.oid == hashlib.sha1(b"blob 8\0" + FILES["config.json"]).hexdigest()
    assert (weights.sha256, weights.lfs) == (BIG.sha256, True)
    assert weights.oid != config.oid


@pytest.mark.fault(61)
def test_a_revision_is_pinned_to_its_commit(hub: Hub) -> None:
    origin = HuggingFaceOrigin(hub.url)
    old = origin.resolve(ARTIFACT).revision
    assert f"/api/models/org/name/tree/{old}" in [request.path for request in hub.requests]
    new = hub.commit("org/name", {"model.safetensors": WEIGHTS[::-1]})
    assert origin.resolve(ARTIFACT).revision == new
    for revision in ("v1.0", "feature/odd", old):
        assert origin.resolve(replace(ARTIFACT, revision=revision)).revision == old
    assert read(origin, old) == WEIGHTS


def test_filtering_costs_no_request(hub: Hub) -> None:
    listing = HuggingFaceOrigin(hub.url).resolve(replace(ARTIFACT, filter=Filter(("*.json",))))
    assert [file.path for file in listing.files] == ["config.json"]
    assert listing.filtered
    assert len(hub.requests) == 2


def test_the_endpoint_of_the_environment_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
    assert HuggingFaceOrigin().resolve(ARTIFACT).files


@pytest.mark.fault(68)
def test_a_missing_page_of_the_tree_is_an_error_and_not_fewer_files(hub: Hub) -> None:
    hub.add_repo("models", "org/name", {f"{n}.json": b"{}" for n in range(6)})
    hub.fault(Fault("*/tree/*", status=500))
    hub.fault(Fault("*/tree/*", times=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        with pytest.raises(UnavailableError):
            HuggingFaceOrigin(hub.url).resolve(ARTIFACT)


@pytest.mark.fault(59)
@pytest.mark.parametrize(("token", "said"), [(None, "hf auth login"), (STRANGER, "`5678`")])
def test_a_gated_model_names_the_page_and_the_token(hub: Hub, token: str | None, said: str) -> None:
    commit = hub.add_repo("models", "org/name", FILES, gated="manual")
    origin = HuggingFaceOrigin(hub.url, token)
    with pytest.raises(NotAllowedError, match="gated") as listing:
        origin.resolve(ARTIFACT)
    with pytest.raises(NotAllowedError, match="gated") as reading:
        read(origin, commit)
    for caught in (listing, reading):
        assert f"{hub.url}/org/name" in caught.value.hint
        assert said in caught.value.hint
        assert STRANGER not in caught.value.hint
    granted = HuggingFaceOrigin(hub.url, TOKEN)
    assert granted.resolve(ARTIFACT).revision == commit
    assert read(granted, commit) == WEIGHTS


@pytest.mark.fault(60)
@pytest.mark.parametrize("token", [None, STRANGER])
def test_a_missing_and_a_private_repository_look_alike(hub: Hub, token: str | None) -> None:
    commit = hub.add_repo("models", "org/secret", FILES, private=True)
    origin = HuggingFaceOrigin(hub.url, token)
    for name in ("hf://org/secret", "hf://org/nothing"):
        with pytest.raises(NotFoundError, match="does not exist, or it is private"):
            origin.resolve(replace(ARTIFACT, origin=name))
        with pytest.raises(NotFoundError, match="does not exist, or it is private"):
            list(origin.read(Ref(name, commit, BIG.path), BIG))


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("org/nane", "`org/name`"),  # the owner has one like it
        ("facebook/dinov3-large", "`facebook/dinov3-vitl16-pretrain-lvd1689m`"),  # goes round, never existed
        ("qwen/qwen2-vl-2b-instuct", "`Qwen/Qwen2-VL-2B-Instruct`"),
        ("org/something-else", ""),
    ],
)
def test_a_wrong_name_is_answered_with_what_may_be_meant(hub: Hub, wrong: str, meant: str) -> None:
    hub.add_repo("models", "org/name", FILES)
    hub.add_repo("models", "org/nave", FILES, private=True)
    with pytest.raises(NotFoundError) as caught:
        HuggingFaceOrigin(hub.url).resolve(replace(ARTIFACT, origin=f"hf://{wrong}"))
    assert meant in caught.value.hint
    assert ("did you mean" in caught.value.hint) == bool(meant)
    assert "nave" not in caught.value.hint


def test_a_hub_that_lists_nothing_does_not_hide_that_a_name_is_wrong(hub: Hub) -> None:
    hub.fault(Fault("/api/models", status=500))
    with pytest.raises(NotFoundError, match="does not exist, or it is private"):
        HuggingFaceOrigin(hub.url).resolve(replace(ARTIFACT, origin="hf://org/nothing"))


def test_a_missing_revision_lists_close_names(hub: Hub) -> None:
    with pytest.raises(NotFoundError, match=r"no revision `v1\.1`") as caught:
        HuggingFaceOrigin(hub.url).resolve(replace(ARTIFACT, revision="v1.1"))
    assert "`v1.0`" in caught.value.hint


@pytest.mark.fault(62)
def test_a_commit_that_is_gone_and_a_missing_file_are_not_found(hub: Hub) -> None:
    origin = HuggingFaceOrigin(hub.url)
    with pytest.raises(NotFoundError, match="revision"):
        read(origin, "0" * 40)
    with pytest.raises(NotFoundError, match="no such file"):
        read(origin, origin.resolve(ARTIFACT).revision, FileEntry("no", "", 1))


def test_a_wrong_token_is_told(hub: Hub) -> None:
    origin = HuggingFaceOrigin(hub.url, "hf_revoked_9999")
    with pytest.raises(NotAllowedError, match="does not accept the token") as caught:
        origin.resolve(ARTIFACT)
    assert "`9999`" in caught.value.hint
    with pytest.raises(NotAllowedError, match="does not accept the token"):
        read(origin, "0" * 40)


@pytest.mark.fault(52)
def test_the_token_of_the_environment_goes_to_the_hub_and_never_to_the_cdn(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    commit = hub.add_repo("models", "org/name", FILES, private=True)
    read(HuggingFaceOrigin(hub.url), commit)
    assert hub.requests[-1].headers["authorization"] == f"Bearer {TOKEN}"
    assert "authorization" not in hub.cdn.requests[-1].headers


def test_a_cut_download_continues_from_the_cdn(hub: Hub) -> None:
    origin = HuggingFaceOrigin(hub.url)
    commit = origin.resolve(ARTIFACT).revision
    hub.cdn.fault(Fault("*", cut_after=70_000, times=1))
    client = Client()
    with pytest.raises(UnavailableError):
        client.take(origin.read(Ref("hf://org/name", commit, BIG.path), BIG))
    assert client.got == WEIGHTS[:70_000]
    hub.expire_links()
    assert client.got + read(origin, commit, start=70_000) == WEIGHTS
    assert hub.cdn.requests[-1].headers["range"] == f"bytes=70000-{len(WEIGHTS) - 1}"


def parts(origin: HuggingFaceOrigin, commit: str, expire: Callable[[int], None] = lambda at: None) -> bytes:
    """Read the big file by parts, several at once."""

    def read_part(at: int) -> bytes:
        expire(at)
        return read(origin, commit, BIG, at, min(at + 100_000, len(WEIGHTS)))

    with ThreadPoolExecutor(6) as pool:
        return b"".join(pool.map(read_part, range(0, len(WEIGHTS), 100_000)))


def test_the_hub_is_asked_once_for_all_parts_of_a_file_and_the_cdn_gets_no_token(hub: Hub) -> None:
    commit = hub.add_repo("models", "org/name", FILES, private=True)
    origin = HuggingFaceOrigin(hub.url, TOKEN)
    assert parts(origin, commit) == parts(origin, commit) == WEIGHTS
    assert asked(hub) == 1
    assert not [request for request in hub.cdn.requests if "authorization" in request.headers]


def test_links_that_run_out_in_the_middle_are_renewed(hub: Hub) -> None:
    commit = hub.add_repo("models", "org/name", FILES, private=True)
    origin = HuggingFaceOrigin(hub.url, TOKEN)

    def expire(at: int) -> None:
        if at == 500_000:
            hub.expire_links()

    assert read(origin, commit, stop=10) == WEIGHTS[:10]
    assert parts(origin, commit, expire) == WEIGHTS
    assert asked(hub) == 2
    for uses in (3, 1):
        hub.cdn.uses = uses
        hub.expire_links()
        assert parts(origin, commit) == WEIGHTS
    assert not [request for request in hub.cdn.requests if "authorization" in request.headers]


def test_a_link_that_ran_out_is_renewed_through_the_hub(hub: Hub) -> None:
    origin = HuggingFaceOrigin(hub.url)
    commit = origin.resolve(ARTIFACT).revision
    hub.cdn.fault(Fault("*", status=403, times=1))
    assert read(origin, commit) == WEIGHTS
    assert asked(hub) == 2


def test_access_that_was_withdrawn_in_the_middle_is_told_as_such(hub: Hub) -> None:
    commit = hub.add_repo("models", "org/name", FILES)
    origin = HuggingFaceOrigin(hub.url)
    read(origin, commit, stop=10)
    hub.repos["models", "org/name"].gated = "manual"
    hub.expire_links()
    with pytest.raises(NotAllowedError, match="gated"):
        read(origin, commit, start=10)


def test_small_files_are_read_by_parts_too(hub: Hub) -> None:
    origin = HuggingFaceOrigin(hub.url)
    entry = FileEntry("config.json", "", 8)
    commit = origin.resolve(ARTIFACT).revision
    assert read(origin, commit, entry, 2, 5) + read(origin, commit, entry, 5) == FILES["config.json"][2:]


@pytest.mark.fault(51)
def test_too_many_requests_say_how_long_to_wait(hub: Hub) -> None:
    origin = HuggingFaceOrigin(hub.url)
    commit = origin.resolve(ARTIFACT).revision
    hub.rate_limit(55)
    with pytest.raises(UnavailableError) as reading:
        read(origin, commit)
    with pytest.raises(UnavailableError) as listing:
        origin.resolve(ARTIFACT)
    assert (reading.value.retry_after, listing.value.retry_after) == (55, 55)


@pytest.mark.fault(47)
def test_a_sign_in_page_is_not_a_hub(hub: Hub) -> None:
    hub.fault(Fault("*", html=True))
    with pytest.raises(UnavailableError, match="does not answer as a hub does"):
        HuggingFaceOrigin(hub.url).resolve(ARTIFACT)


def test_offline_mode_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnavailableError, match="HF_HUB_OFFLINE"):
        HuggingFaceOrigin(hub.url).resolve(ARTIFACT)


@pytest.mark.parametrize("name", ["hf://", "hf://a/b/c", "hf://spaces/a/b", "hf://a/../b", "hf://org/na--me"])
def test_what_is_no_repository_is_invalid(hub: Hub, name: str) -> None:
    with pytest.raises(InvalidError) as caught:
        HuggingFaceOrigin(hub.url).resolve(replace(ARTIFACT, origin=name))
    assert isinstance(caught.value, LabsyncError)
    assert not [request for request in hub.requests if "tree" in request.path]
