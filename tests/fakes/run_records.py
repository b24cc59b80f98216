"""Records of runs, as the report shows them."""

from __future__ import annotations

import io
from dataclasses import replace

from PIL import Image

from labsync.report import (
    ArtifactReport,
    Built,
    ErrorReport,
    MirrorRequests,
    Report,
    Share,
    SmokeResult,
    Transferred,
)
from labsync.run_record import DiskReport, DiskUse, Earlier, MachineReport, RunRecord, Span

GIB = 1 << 30

PASSED = SmokeResult(
    "models/videomae", "video-classification", "pass", "knot tying 38%, waving 22%", 0.2, "cpu", 400 << 20,
    dtype="float32", ram_bytes=400 << 20, estimated_bytes=12 << 20,
    best=(Share("knot tying", 0.38), Share("waving", 0.22), Share("rinsing", 0.1)),
)  # fmt: skip
DEGRADED = SmokeResult(
    "models/qwen2-vl-2b", "image-text-to-text", "degraded",
    "only with int8, because memory ran out as asked: 135 prompt tokens; answer: a frog",
    3.5, "cuda:0", 9 * GIB, "end other notebooks", "int8", "int8", 2 * GIB, 11 * GIB,
    notes=("float16 instead of bfloat16",), device_name="Tesla T4", device_bytes=15 * GIB,
)  # fmt: skip
FAILED = SmokeResult(
    "checkpoints/sam", "segment-anything", "fail", "`sam.pth` is cut off", hint="`labsync verify --repair`"
)
PENDING = SmokeResult("models/dinov3", "image-feature-extraction", "pending", "no GPU in this session")
SKIPPED = SmokeResult("checkpoints/made", "python", "skipped", "it is not whole on the disk (`missing`)")

ARTIFACTS = tuple(
    ArtifactReport(result.name, "a" * 64, "ok", "ok", 3, GIB)
    for result in (PASSED, DEGRADED, FAILED, PENDING, SKIPPED)
)
RECORD = RunRecord(
    project="vision-lab",
    command="bootstrap",
    time="2026-11-28T08:28:47+00:00",
    seconds=49.2,
    labsync="0.1.0",
    mirror="s3://my-bucket/vision-lab",
    report=Report(
        exit_code=14,
        artifacts=(
            *ARTIFACTS,
            ArtifactReport("results/runs", "", "missing", "behind", 0, 0, "nothing made yet"),
        ),
        transferred=Transferred(70, 7 * GIB, 3 * GIB, 4 * GIB, 3 * GIB),
        mirror_requests=MirrorRequests(LIST=1, PUT=76),
        environment=Built("mlgpu", "/home/studio-lab-user/.labsync/envs/mlgpu-d32cbd2cb0a3", "built"),
        kernel=Built("mlgpu", "/home/studio-lab-user/.labsync/envs/mlgpu-d32cbd2cb0a3", "proven"),
        smoke=(PASSED, DEGRADED, FAILED, PENDING, SKIPPED),
        errors=(
            ErrorReport(
                14, "checkpoints/sam", "", "`sam.pth` is cut off", "`labsync verify`\nthen again", "safe"
            ),
        ),
    ),
    spans=(
        Span("lock", "stage", 0.0, 0.5),
        Span("pull", "stage", 0.5, 20.0),
        Span("smoke", "stage", 20.0, 49.2),
        Span("models/videomae", "artifact", 0.7, 4.0),
        Span("models/qwen2-vl-2b", "artifact", 0.9, 19.5),
    ),
    disk=DiskReport(
        25 * GIB,
        6 * GIB,
        GIB,
        15 * GIB,
        (DiskUse("models/qwen2-vl-2b", 4 * GIB), DiskUse("environments", 5 * GIB)),
    ),
    machine=MachineReport("studio-lab", "Linux 5.10", "3.11.7", 4, 16 * GIB, "NVIDIA driver 580.95.05"),
    earlier=(Earlier("models/videomae", "2026-11-27T18:03:00+00:00", "fail", 0.3, 410 << 20),),
)
GOOD = replace(RECORD, report=replace(RECORD.report, exit_code=0, smoke=(PASSED,), errors=()))


def png(width: int = 400, height: int = 240) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 80, 40)).save(buffer, "PNG")
    return buffer.getvalue()
