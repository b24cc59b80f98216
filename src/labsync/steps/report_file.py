"""The report beside the manifest: `labsync-report.json` for programs, `labsync-report.html` for people."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from labsync import __version__, atomic
from labsync.disk.budget import measure, reserve_of
from labsync.errors import LabsyncError
from labsync.run_record import (
    DiskReport,
    DiskUse,
    MachineReport,
    RunRecord,
    comparisons,
    continued,
    read_record,
    record_text,
)
from labsync.smoke.hardware import driver_version
from labsync.steps.inspect import usage
from labsync.steps.pictures import kept_picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from labsync.report import ArtifactReport
    from labsync.steps.chronicle import Chronicle
    from labsync.steps.lab import Lab
    from labsync.steps.outcome import Outcome

REPORT = "labsync-report.json"
PAGE = "labsync-report.html"
DRIVER = Path("/proc/driver/nvidia/version")


def record_run(lab: Lab, command: str, outcome: Outcome, chronicle: Chronicle) -> RunRecord:
    """Return the record of a run that has just ended.

    A `bootstrap` is the whole lab; any other command goes on with what the last record says of the rest.
    """
    earlier = read_record(_text(lab.manifest.root / REPORT))
    seconds = chronicle.seconds
    record = RunRecord(
        project=lab.manifest.project,
        command=command,
        time=(datetime.now(timezone.utc) - timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        labsync=__version__,
        mirror=lab.manifest.mirror.url,
        report=outcome.report,
        spans=chronicle.spans(),
        machine=_machine(),
        earlier=comparisons(earlier) if earlier else (),
    )
    whole = continued(earlier, record) if earlier and command != "bootstrap" else record
    return replace(whole, disk=_disk(lab, whole.report.artifacts))


def pictures(lab: Lab, record: RunRecord) -> Mapping[str, bytes]:
    """Return the PNG of what each model saw when it last ran, by the model's name."""
    ran = (result.name for result in record.report.smoke if result.result in {"pass", "degraded", "fail"})
    return {name: picture for name in ran if (picture := kept_picture(lab, name))}


def write_report(folder: Path, record: RunRecord, page: str) -> None:
    """Write the record and its page beside the manifest, each wholly or not at all."""
    atomic.write_bytes(folder / REPORT, record_text(record).encode())
    atomic.write_bytes(folder / PAGE, page.encode())


def _disk(lab: Lab, artifacts: Sequence[ArtifactReport]) -> DiskReport:
    try:
        room = measure(lab.manifest.root)
        own, _ = usage(lab, ())
    except LabsyncError:
        return DiskReport()
    here = tuple(
        DiskUse(artifact.name, artifact.bytes)
        for artifact in artifacts
        if artifact.disk not in {"missing", "failed", "skipped"}
    )
    return DiskReport(
        room.total,
        room.free,
        reserve_of(room.total, lab.manifest.disk),
        lab.manifest.disk.budget or 0,
        (*here, *(DiskUse(line.name, line.bytes) for line in own)),
    )


def _machine() -> MachineReport:
    memory = re.search(r"MemTotal:\s+(\d+)", _text(Path("/proc/meminfo")))
    driver = driver_version(_text(DRIVER))
    return MachineReport(
        host=platform.node(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        cores=len(os.sched_getaffinity(0)),
        memory=int(memory[1]) * 1024 if memory else 0,
        gpu=f"NVIDIA driver {driver}" if driver else "",
    )


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
