"""The test hub is proven with the libraries that labsync's users have: huggingface_hub and transformers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.fakes.http_faults import Fault
from tests.fakes.hub import STRANGER, TOKEN, Hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEIGHTS = bytes(range(256)) * 400
FILES = {"config.json": b'{"a": 1}', "model.safetensors": WEIGHTS, "sub/deep/note.txt": b"note"}
REPO = "org/name"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with Hub(page_size=2) as hub:
        hub.add_repo("models", REPO, FILES, tags=["v1"], branches=["odd/name"])
        yield hub


def api(hub: Hub, token: str | bool = False) -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


def test_info_names_the_commit_of_main_tag_branch_and_commit_alike(hub: Hub) -> None:
    first = api(hub).model_info(REPO)
    assert len(first.sha) == 40
    for revision in ("main", "v1", "odd/name", first.sha):
        assert api(hub).model_info(REPO, revision=revision).sha == first.sha
    assert hub.commit(REPO, {"config.json": b"{}"}) == api(hub).model_info(REPO).sha != first.sha
    assert api(hub).model_info(REPO, revision="v1").sha == first.sha


def test_commits_are_the_same_in_two_hubs(hub: Hub) -> None:
    with Hub() as other:
        assert other.add_repo("models", REPO, FILES) == api(hub).model_info(REPO).sha


def test_info_with_blobs_tells_sizes_and_digests(hub: Hub) -> None:
    siblings = {s.rfilename: s for s in api(hub).model_info(REPO, files_metadata=True).siblings}
    assert siblings["model.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert siblings["config.json"].size == 8


def test_the_tree_comes_in_pages_and_is_whole(hub: Hub) -> None:
    tree = {item.path: item for item in api(hub).list_repo_tree(REPO, recursive=True)}
    assert sorted(tree) == ["config.json", "model.safetensors", "sub", "sub/deep", "sub/deep/note.txt"]
    assert tree["model.safetensors"].lfs.size == len(WEIGHTS)
    assert tree["config.json"].blob_id == hashlib.sha1(b"blob 8\0" + FILES["config.json"]).hexdigest()
    assert len([r for r in hub.requests if "/tree/" in r.path]) == 3


def test_paths_info_answers_a_form_and_json(hub: Hub) -> None:
    assert [item.path for item in api(hub).get_paths_info(REPO, ["config.json"])] == ["config.json"]
    request = urllib.request.Request(
        f"{hub.url}/api/models/{REPO}/paths-info/main",
        data=json.dumps({"paths": ["sub/deep/note.txt"]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        assert [item["path"] for item in json.load(answer)] == ["sub/deep/note.txt"]


def test_refs_commits_and_whoami(hub: Hub) -> None:
    hub.commit(REPO, {"new": b""})
    refs = api(hub).list_repo_refs(REPO)
    assert {ref.name for ref in refs.branches} == {"main", "odd/name"}
    assert [ref.name for ref in refs.tags] == ["v1"]
    assert len(api(hub).list_repo_commits(REPO)) == 2
    assert api(hub, TOKEN).whoami()["name"] == "member"
    with pytest.raises(HfHubHTTPError):
        api(hub, "hf_wrong").whoami()


def test_snapshot_download_brings_exactly_the_files_and_no_token_to_the_cdn(hub: Hub, tmp_path: Path) -> None:
    folder = snapshot_download(REPO, endpoint=hub.url, cache_dir=tmp_path, token=TOKEN)
    found = {
        os.path.relpath(os.path.join(root, name), folder): name
        for root, _, names in os.walk(folder)
        for name in names
    }
    assert sorted(found) == sorted(FILES)
    for path, data in FILES.items():
        with open(os.path.join(folder, path), "rb") as file:
            assert file.read() == data
    assert any("authorization" in request.headers for request in hub.requests)
    assert hub.cdn.requests
    assert not any("authorization" in request.headers for request in hub.cdn.requests)


def test_the_cdn_refuses_a_token_and_a_link_that_ran_out(hub: Hub) -> None:
    link = hub.cdn.link(hub.repos["models", REPO].commits[api(hub).model_info(REPO).sha]["model.safetensors"])
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(link, headers={"Authorization": "Bearer x"}))
    with urllib.request.urlopen(urllib.request.Request(link, headers={"Range": "bytes=100000-"})) as answer:
        assert (answer.status, answer.read()) == (206, WEIGHTS[100000:])
    hub.expire_links()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(link)


def test_links_can_be_good_for_a_number_of_requests(hub: Hub) -> None:
    hub.cdn.uses = 2
    file = hub.repos["models", REPO].commits[api(hub).model_info(REPO).sha]["model.safetensors"]
    link = hub.cdn.link(file)
    for _ in range(2):
        with urllib.request.urlopen(link) as answer:
            assert answer.read() == WEIGHTS
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(link)
    with urllib.request.urlopen(hub.cdn.link(file)) as answer:
        assert answer.status == 200


def test_datasets_have_addresses_of_their_own(hub: Hub, tmp_path: Path) -> None:
    hub.add_repo("datasets", "org/data", {"a.txt": b"data", "clip.mp4": b"video"})
    assert api(hub).dataset_info("org/data").sha
    path = hf_hub_download(
        "org/data", "clip.mp4", repo_type="dataset", endpoint=hub.url, cache_dir=tmp_path, token=False
    )
    with open(path, "rb") as file:
        assert file.read() == b"video"
    with pytest.raises(RepositoryNotFoundError):
        api(hub).model_info("org/data")


def test_missing_things_have_the_errors_of_the_real_hub(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api(hub).model_info("org/nothing")
    with pytest.raises(RevisionNotFoundError):
        api(hub).model_info(REPO, revision="nothing")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(REPO, "nothing", endpoint=hub.url, cache_dir=tmp_path, token=False)
    assert list(tmp_path.rglob(".no_exist/*/nothing"))


def test_private_repositories_look_missing_to_strangers(hub: Hub) -> None:
    hub.add_repo("models", "org/secret", FILES, private=True)
    for token in (False, STRANGER):
        with pytest.raises(RepositoryNotFoundError) as caught:
            api(hub, token).model_info("org/secret")
        assert not isinstance(caught.value, GatedRepoError)
    assert api(hub, TOKEN).model_info("org/secret").private


@pytest.mark.parametrize("token", [False, STRANGER])
def test_gated_files_need_a_grant(hub: Hub, tmp_path: Path, token: str | bool) -> None:
    hub.add_repo("models", "org/gated", FILES, gated="manual")
    assert api(hub).model_info("org/gated").gated == "manual"
    with pytest.raises(GatedRepoError):
        hf_hub_download("org/gated", "config.json", endpoint=hub.url, cache_dir=tmp_path, token=token)
    with pytest.raises(GatedRepoError):
        api(hub, token).auth_check("org/gated")
    api(hub, TOKEN).auth_check("org/gated")
    assert hf_hub_download("org/gated", "config.json", endpoint=hub.url, cache_dir=tmp_path, token=TOKEN)


def test_faults_hit_what_they_name_as_often_as_they_say(hub: Hub, tmp_path: Path) -> None:
    hub.fault(Fault("*/config.json", status=503, times=1, method="HEAD"))
    hub.rate_limit(1, "/api/models/*", times=1)
    with pytest.raises(HfHubHTTPError, match="429"):
        api(hub).model_info(REPO)
    assert api(hub).model_info(REPO)
    hub.cdn.fault(Fault("*", cut_after=70_000, times=1))
    path = hf_hub_download(REPO, "model.safetensors", endpoint=hub.url, cache_dir=tmp_path, token=False)
    with open(path, "rb") as file:
        assert file.read() == WEIGHTS
    assert len(hub.cdn.requests) == 2


def test_transformers_loads_a_model_through_the_hub(hub: Hub, tmp_path: Path) -> None:
    """Runs in a process of its own, because HF_ENDPOINT is read once, at import."""
    shim = "from labsync.smoke import torchvision_cpu; torchvision_cpu.install(); "
    make = (
        shim + "import sys, torch; from transformers import BertConfig, BertModel; torch.manual_seed(0); "
        "BertModel(BertConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, "
        "intermediate_size=8, max_position_embeddings=8)).save_pretrained(sys.argv[1])"
    )
    load = (
        shim + "from transformers import AutoConfig, AutoModel; "
        "print(AutoConfig.from_pretrained('org/bert').hidden_size, "
        "sum(p.numel() for p in AutoModel.from_pretrained('org/bert').parameters()))"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    env |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    subprocess.run([sys.executable, "-c", make, str(tmp_path / "bert")], env=env, check=True, timeout=120)
    hub.add_repo(
        "models", "org/bert", {p.name: p.read_bytes() for p in sorted((tmp_path / "bert").iterdir())}
    )
    done = subprocess.run(
        [sys.executable, "-c", load], env=env, check=True, timeout=120, capture_output=True, text=True
    )
    width, count = map(int, done.stdout.split())
    assert width == 8
    assert count > 100
    assert any(r.path.endswith("/config.json") for r in hub.requests)
    assert len(hub.cdn.requests) >= 1
