"""What is made on one box arrives on another; what two boxes make at once is kept, all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST = """
version: 1
project: two-boxes
mirror: {mirror}
results:
  runs: {{path: outputs}}
checkpoints:
  finetune: {{path: checkpoints/finetune}}
"""


@pytest.fixture(params=["directory", "s3"])
def boxes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Box, Box]]:
    if request.param == "directory":
        yield _pair(tmp_path, str(tmp_path / "mirror"), {})
        return
    from tests.fakes.s3 import moto_server

    with moto_server() as server:
        server.make_bucket("lab")
        mirror = f"{{url: s3://lab/two, endpoint: '{server.url}', region: us-east-1}}"
        yield _pair(tmp_path, mirror, server.env)


def _pair(tmp_path: Path, mirror: str, env: dict[str, str]) -> tuple[Box, Box]:
    text = MANIFEST.format(mirror=mirror)
    return Box(tmp_path / "a", text, env), Box(tmp_path / "b", text, env)


def test_results_travel_from_box_to_box(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    a.write("outputs/run1/metrics.json", b"{}")
    a.write("outputs/run1/deep/log with space.txt", b"epoch 1\n")
    pushed = a.labsync("push", "results")
    assert pushed.code == 0, pushed.messages
    assert pushed.transferred["to_mirror"] == 10

    pulled = b.labsync("pull", "results")
    assert pulled.code == 0, pulled.messages
    assert b.tree("outputs") == a.tree("outputs")
    assert pulled.artifacts["results/runs"]["disk"] == "ok"


def test_a_second_push_of_one_changed_file_uploads_one_file_and_one_index(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    for number in range(20):
        a.write(f"outputs/{number}.txt", b"%d" % number)
    assert a.labsync("push").code == 0
    a.write("outputs/7.txt", b"changed")
    second = a.labsync("push")
    assert second.code == 0
    assert second.transferred["to_mirror"] == len(b"changed")
    # one file, one index, one head
    assert second.requests["PUT"] == 3
    assert second.requests["LIST"] == 1
    assert b.labsync("pull").code == 0
    assert b.tree("outputs") == a.tree("outputs")


def test_nothing_to_push_sends_one_request(boxes: tuple[Box, Box]) -> None:
    a, _ = boxes
    a.write("outputs/x", b"x")
    assert a.labsync("push").code == 0
    again = a.labsync("push")
    assert again.requests == {"LIST": 1}
    assert a.labsync("status").requests == {"LIST": 1}


@pytest.mark.fault(65)
def test_two_boxes_push_different_files_and_both_are_in_the_head(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    a.write("outputs/a.txt", b"from a")
    b.write("outputs/b.txt", b"from b")
    assert a.labsync("push").code == 0
    assert b.labsync("push").code == 0
    assert a.labsync("pull").code == 0
    assert a.tree("outputs") == {"a.txt": b"from a", "b.txt": b"from b"}


@pytest.mark.fault(65)
def test_the_same_path_on_both_boxes_keeps_both_contents_and_says_how_to_choose(
    boxes: tuple[Box, Box],
) -> None:
    a, b = boxes
    a.write("outputs/same.txt", b"from a")
    b.write("outputs/same.txt", b"from b")
    b.write("outputs/only-b.txt", b"b alone")
    assert a.labsync("push").code == 0
    conflict = b.labsync("push")
    assert conflict.code == 11
    assert "labsync push results/runs --force" in conflict.messages
    assert "labsync pull results/runs --force" in conflict.messages
    assert b.read("outputs/same.txt") == b"from b"
    assert b.labsync("status").artifacts["results/runs"]["disk"] == "conflict"

    # The head has theirs, and what was no conflict of mine.
    assert a.labsync("pull").code == 0
    assert a.tree("outputs") == {"only-b.txt": b"b alone", "same.txt": b"from a"}

    # The other content is there, too, under the name that the message gave.
    loser = next(
        line for line in b.labsync("log", "results").lines if line.get("label", "").startswith("conflict")
    )
    c = Box(b.root.parent / "c", b.manifest.read_text(), b.env | {"HOME": str(b.root.parent / "c-home")})
    assert c.labsync("pull", f"runs@{loser['snapshot'][:12]}").code == 0
    assert c.read("outputs/same.txt") == b"from b"


@pytest.mark.fault(27)
def test_force_takes_theirs_and_sets_mine_aside(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    a.write("outputs/same.txt", b"from a")
    b.write("outputs/same.txt", b"from b")
    assert a.labsync("push").code == 0
    assert b.labsync("pull").code == 11
    assert b.read("outputs/same.txt") == b"from b"
    assert b.labsync("pull", "--force").code == 0
    assert b.read("outputs/same.txt") == b"from a"
    aside = [p for p in (b.root / ".labsync" / "aside").rglob("*") if p.is_file()]
    assert [p.read_bytes() for p in aside] == [b"from b"]
    assert b.labsync("push").code == 0


def test_force_push_makes_mine_the_head(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    a.write("outputs/same.txt", b"from a")
    b.write("outputs/same.txt", b"from b")
    assert a.labsync("push").code == 0
    assert b.labsync("push").code == 11
    assert b.labsync("push", "--force").code == 0
    assert a.labsync("pull").code == 0
    assert a.read("outputs/same.txt") == b"from b"


@pytest.mark.fault(37)
def test_deleting_here_deletes_nothing_there_unless_pruned(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    for name in ("one", "two", "three"):
        a.write(f"outputs/{name}", name.encode())
    assert a.labsync("push").code == 0
    (a.root / "outputs/two").unlink()
    assert a.labsync("push").code == 0
    assert b.labsync("pull").code == 0
    assert (b.root / "outputs/two").exists()
    assert a.labsync("push", "--prune").code == 0
    assert a.labsync("pull").code == 0
    assert not (a.root / "outputs/two").exists()
    # Gone from the head is not gone from the disk.
    assert b.labsync("pull").code == 0
    assert (b.root / "outputs/two").exists()


def test_an_older_snapshot_comes_back_by_its_name(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    a.write("outputs/x", b"first")
    assert a.labsync("push").code == 0
    first = a.labsync("log", "results").lines[0]["snapshot"]
    a.write("outputs/x", b"second")
    assert a.labsync("push").code == 0
    assert b.labsync("pull", f"runs@{first[:8]}").code == 0
    assert b.read("outputs/x") == b"first"
    assert b.labsync("pull").code == 0
    assert b.read("outputs/x") == b"second"


@pytest.mark.fault(38, 39)
def test_a_lost_or_emptied_folder_is_an_error_and_the_mirror_keeps_everything(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    a.write("outputs/x", b"x")
    assert a.labsync("push").code == 0
    (a.root / "outputs/x").unlink()
    assert a.labsync("push").code == 12
    (a.root / "outputs").rmdir()
    assert a.labsync("push").code == 6
    assert b.labsync("pull").code == 0
    assert b.read("outputs/x") == b"x"


@pytest.mark.fault(39)
def test_mass_pruning_is_refused(boxes: tuple[Box, Box]) -> None:
    a, _ = boxes
    for number in range(4):
        a.write(f"outputs/{number}", b"%d" % number)
    assert a.labsync("push").code == 0
    for number in range(3):
        (a.root / f"outputs/{number}").unlink()
    assert a.labsync("push", "--prune").code == 12
    assert a.labsync("push", "--prune", "--force").code == 0


@pytest.mark.fault(36)
def test_checkpoints_are_units_and_the_head_is_the_newest_complete_one(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    a.write("checkpoints/finetune/checkpoint-1/model.safetensors", b"weights 1")
    a.write("checkpoints/finetune/checkpoint-1/trainer_state.json", b"{}")
    assert a.labsync("push", "finetune").code == 0
    a.write("checkpoints/finetune/checkpoint-2/model.safetensors", b"half written")
    unfinished = a.labsync("push", "finetune")
    assert unfinished.code == 0
    assert unfinished.report["skipped"] == [
        {"path": "checkpoint-2", "reason": "the checkpoint is not finished"}
    ]
    assert b.labsync("pull", "finetune").code == 0
    assert set(b.tree("checkpoints/finetune")) == {
        "checkpoint-1/model.safetensors",
        "checkpoint-1/trainer_state.json",
    }
    a.write("checkpoints/finetune/checkpoint-2/trainer_state.json", b"{}")
    assert a.labsync("push", "finetune").code == 0
    c = Box(b.root.parent / "c", b.manifest.read_text(), b.env | {"HOME": str(b.root.parent / "c-home")})
    assert c.labsync("pull", "finetune").code == 0
    assert {p.split("/")[0] for p in c.tree("checkpoints/finetune")} == {"checkpoint-2"}


@pytest.mark.fault(37)
def test_a_rotated_checkpoint_stays_in_the_mirror(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    a.write("checkpoints/finetune/one/w.bin", b"1")
    assert a.labsync("push", "finetune").code == 0
    first = a.labsync("log", "finetune").lines[0]["snapshot"]
    a.write("checkpoints/finetune/two/w.bin", b"2")
    (a.root / "checkpoints/finetune/one/w.bin").unlink()
    assert a.labsync("push", "finetune").code == 0
    assert a.labsync("status").artifacts["checkpoints/finetune"]["disk"] == "ok"
    assert b.labsync("pull", f"finetune@{first[:12]}").code == 0
    assert b.read("checkpoints/finetune/one/w.bin") == b"1"


@pytest.mark.fault(65)
def test_two_boxes_with_checkpoints_of_their_own_conflict_and_keep_both(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    a.write("checkpoints/finetune/from-a/w.bin", b"a")
    b.write("checkpoints/finetune/from-b/w.bin", b"b")
    assert a.labsync("push", "finetune").code == 0
    assert b.labsync("push", "finetune").code == 11
    assert b.labsync("pull", "finetune").code == 0
    assert set(b.tree("checkpoints/finetune")) == {"from-a/w.bin", "from-b/w.bin"}
    assert b.labsync("push", "finetune").code == 0
    assert b.labsync("log", "finetune").code == 0


@pytest.mark.fault(36)
def test_a_file_open_for_writing_waits_for_its_writer(boxes: tuple[Box, Box]) -> None:
    a, _ = boxes
    a.write("outputs/done", b"done")
    with a.write("outputs/busy", b"half").open("ab"):
        pushed = a.labsync("push")
    assert pushed.code == 0
    assert [item["path"] for item in pushed.report["skipped"]] == ["busy"]
    assert a.labsync("push").transferred["to_mirror"] == 4


@pytest.mark.fault(80)
def test_secrets_are_never_pushed(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    a.write("outputs/.env", b"TOKEN=1")
    a.write("outputs/key.pem", b"private")
    a.write("outputs/ok", b"ok")
    assert a.labsync("push").code == 0
    assert b.labsync("pull").code == 0
    assert set(b.tree("outputs")) == {"ok"}


def test_nothing_pushed_yet_is_nothing_to_pull(boxes: tuple[Box, Box]) -> None:
    a, _ = boxes
    assert a.labsync("pull").code == 0
    assert a.labsync("push").code == 0
    assert a.labsync("status").code == 0
