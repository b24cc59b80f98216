"""Secrets leave no machine and stand in no output."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from labsync.mirrors.s3_policy import OBJECT_ACTIONS
from labsync.steps.writers import ALLOWED, secret_inside
from tests.fakes import canaries
from tests.fakes.box import Box
from tests.fakes.strict_s3 import Deny, StrictServer, strict_server
from tests.fakes.strict_s3.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "AKIA" + "IOSFODNN7EXAMPLE"
TOKEN = "hf_" + "a1B2" * 8
MANIFEST = """version: 1
project: secrets
mirror: {mirror}
results:
  runs: {{path: outputs}}
checkpoints:
  tuned: {{path: tuned}}
"""


def notebook(*sources: str, output: str = "") -> bytes:
    cells = [
        {
            "cell_type": "code",
            "source": [f"{source}\n"],
            "outputs": [{"output_type": "stream", "name": "stdout", "text": [output]}],
        }
        for source in sources
    ]
    return json.dumps({"cells": cells, "nbformat": 4, "metadata": {}}, indent=1).encode()


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "box", MANIFEST.format(mirror=tmp_path / "mirror"))


def mirrored(tmp_path: Path) -> bytes:
    return b"".join(path.read_bytes() for path in (tmp_path / "mirror").rglob("*") if path.is_file())


@pytest.mark.fault(80)
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.ipynb", notebook(f"key = '{KEY}'")),
        ("a.ipynb", notebook("print(token)", output=f"{TOKEN}\n")),
        ("deep/er.py", f"import os\nos.environ['HF_TOKEN'] = '{TOKEN}'\n".encode()),
        ("settings.toml", b'url = "https://me:secret@host/x"\n'),
        ("run.sh", b"-----BEGIN RSA PRIVATE KEY-----\n"),
    ],
)
def test_a_secret_inside_a_file_keeps_it_here(box: Box, tmp_path: Path, name: str, data: bytes) -> None:
    box.write(f"outputs/{name}", data)
    box.write("outputs/metrics.json", b"{}")
    pushed = box.labsync("push", "runs")
    assert pushed.code == 12
    assert name in pushed.errors[0]["message"]
    assert "exclude" in pushed.errors[0]["hint"]
    assert "renew" in pushed.errors[0]["hint"]
    for secret in (KEY, TOKEN, "me:secret"):
        assert secret not in json.dumps(pushed.lines) + pushed.stderr
        assert secret.encode() not in mirrored(tmp_path)
    assert box.labsync("log", "runs").lines[0]["files"] == 1
    box.write(f"outputs/{name}", b"clean now")
    assert box.labsync("push", "runs").code == 0
    assert box.labsync("log", "runs").lines[0]["files"] == 2


@pytest.mark.fault(80)
def test_a_file_that_becomes_secret_is_not_taken_for_deleted(box: Box) -> None:
    box.write("outputs/a.py", b"pass\n")
    box.write("outputs/b.py", b"pass\n")
    assert box.labsync("push", "runs").code == 0
    box.write("outputs/a.py", f"key = '{KEY}'\n".encode())
    assert box.labsync("push", "runs", "--prune").code == 12
    assert box.labsync("log", "runs").lines[0]["files"] == 2


def test_what_only_looks_like_a_secret_may_be_said_so(tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    script.write_text(f"example = '{KEY}'  # {ALLOWED}\n")
    assert secret_inside(script) == ""
    script.write_text(f"example = '{KEY}'  # {ALLOWED}\nreal = '{KEY}'\n")
    assert secret_inside(script) == "an AWS access key"
    (tmp_path / "weights.bin").write_text(KEY)
    assert secret_inside(tmp_path / "weights.bin") == ""
    assert secret_inside(tmp_path / "gone.py") == ""


@pytest.mark.fault(80)
def test_the_canaries_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / ".labsync").mkdir()
    (tmp_path / ".labsync/log").write_text(f"asked with {canaries.CANARIES[0]}")
    with pytest.raises(AssertionError, match="secret"):
        canaries.assert_none_below(tmp_path)
    with pytest.raises(AssertionError, match="secret"):
        canaries.assert_hidden(f"error: {canaries.CANARIES[1]}")


@pytest.fixture
def server() -> Iterator[StrictServer]:
    with strict_server() as server:
        server.make_bucket("lab")
        yield server


def bucket_box(root: Path, server: StrictServer, prefix: str = "/p") -> Box:
    mirror = f"{{url: 's3://lab{prefix}', endpoint: '{server.url}', region: us-east-1}}"
    return Box(root, MANIFEST.format(mirror=mirror), server.env)


@pytest.mark.fault(55)
@pytest.mark.parametrize("prefix", ["/p", "/deep/er", ""])
def test_the_printed_policy_is_enough_for_everything_and_for_nothing_else(
    tmp_path: Path, server: StrictServer, prefix: str
) -> None:
    box = bucket_box(tmp_path / "box", server, prefix)
    printed = box.labsync("iam-policy")
    assert printed.code == 0
    text = printed.lines[0]["text"]
    assert "Delete" not in text
    server.service.policies["testing"] = Policy(text)
    box.write("outputs/a.json", b"{}")
    box.write("tuned/step-1/model.bin", bytes(17 << 20))
    box.write("tuned/step-1/trainer_state.json", b"{}")
    for command in (["doctor"], ["push"], ["status"], ["log"]):
        ended = box.labsync(*command)
        assert ended.code == 0, (command, ended.messages, ended.lines)
    other = bucket_box(tmp_path / "other", server, prefix)
    assert other.labsync("pull").code == 0
    assert other.read("outputs/a.json") == b"{}"
    assert {request.action for request in server.service.log} <= {
        "s3:ListBucket",
        *OBJECT_ACTIONS,
    }
    if prefix:
        elsewhere = bucket_box(tmp_path / "elsewhere", server, "/somebody-elses")
        assert elsewhere.labsync("pull").code == 7
        server.service.policies["testing"] = Policy(text, secure=False)
        assert box.labsync("pull").code == 7


@pytest.mark.fault(55)
@pytest.mark.parametrize("action", [*OBJECT_ACTIONS, "s3:ListBucket"])
def test_doctor_names_the_right_that_is_missing(tmp_path: Path, server: StrictServer, action: str) -> None:
    server.service.denied = Deny(frozenset({action}))
    box = bucket_box(tmp_path / "box", server)
    examined = box.labsync("doctor")
    failed = [line for line in examined.lines[:-1] if line["result"] == "failed"]
    assert examined.code == 7
    assert [action in f"{line['name']} {line['detail']}" for line in failed] == [True], failed
    assert "iam-policy" in failed[0]["hint"]
    assert server.uploads("lab") == [] or action == "s3:AbortMultipartUpload"


@pytest.mark.fault(57)
@pytest.mark.parametrize(("skew", "code", "result"), [(400, 0, "warning"), (1400, 7, "failed")])
def test_doctor_measures_the_clock(
    tmp_path: Path, server: StrictServer, skew: float, code: int, result: str
) -> None:
    server.service.skew = skew
    examined = bucket_box(tmp_path / "box", server).labsync("doctor")
    assert examined.code == code
    told = [line for line in examined.lines[2:-1] if "clock" in f"{line['name']} {line['detail']}"]
    assert [line["result"] for line in told] == [result]
    assert any(f"{sign}{skew + off}" in told[0]["detail"] for sign in "+-" for off in (-2, -1, 0, 1, 2))


@pytest.mark.fault(80)
def test_doctor_warns_of_credentials_that_others_can_read(box: Box) -> None:
    home = box.root.parent / "box-home"
    (home / ".aws").mkdir(parents=True)
    shown = home / ".aws/credentials"
    shown.write_text("[default]\n")
    for mode, result in ((0o644, "warning"), (0o600, "ok")):
        shown.chmod(mode)
        found = {line["name"]: line for line in box.labsync("doctor").lines[:-1]}
        assert found["secrets"]["result"] == result
    assert "chmod 600" in found["secrets"]["hint"] or found["secrets"]["result"] == "ok"


def test_a_folder_needs_no_policy_and_a_bucket_has_a_set_up(
    box: Box, tmp_path: Path, server: StrictServer
) -> None:
    assert box.labsync("iam-policy").code == 2
    told = bucket_box(tmp_path / "s3", server).labsync("iam-policy", "--bucket")
    assert told.code == 0
    text = told.lines[0]["text"]
    assert "put-bucket-versioning" in text
    assert "AbortIncompleteMultipartUpload" in text
    keyed = bucket_box(tmp_path / "kms", server).labsync("iam-policy", "--kms-key", "arn:aws:kms:x:1:key/k")
    assert "kms:GenerateDataKey" in keyed.lines[0]["text"]
