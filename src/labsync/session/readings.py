"""What the box tells about itself: the only reader of `/proc`, of Jupyter's files and of the environment."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.session.deadline import Readings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TICKS = os.sysconf("SC_CLK_TCK")


def boot_time() -> float:
    """Return the seconds since the machine started, those it slept included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True)
class Box:
    """The machine, below `root`; whatever cannot be read counts as not told."""

    root: Path = Path("/")
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def read(self) -> Readings:
        """Look at the box now."""
        now, wall = boot_time(), time.time()
        started = self.started("1")
        return Readings(
            now,
            wall,
            f"{self._text('proc/sys/kernel/random/boot_id').strip()}:{started}",
            started,
            self._jupyter_start(now, wall, started or 0.0),
            self._job_end(),
        )

    @property
    def has_gpu(self) -> bool:
        """Say whether an Nvidia driver is loaded; Studio Lab has one in its GPU sessions alone."""
        return (self.root / "proc/driver/nvidia").is_dir()

    def profile(self) -> str:
        """Return the name of the profile that fits, `generic` where none does."""
        studio_lab = (self.root / "home/studio-lab-user").is_dir()
        signs = (
            ("studio-lab-gpu", studio_lab and self.has_gpu),
            ("studio-lab-cpu", studio_lab),
            ("slurm", "SLURM_JOB_ID" in self.env),
            ("sm-training", (self.root / "opt/ml/input/config/resourceconfig.json").is_file()),
            ("sm-studio-space", '"SpaceName"' in self._text("opt/ml/metadata/resource-metadata.json")),
            ("kaggle", "KAGGLE_KERNEL_RUN_TYPE" in self.env and (self.root / "kaggle/working").is_dir()),
            (
                "colab",
                self._is_set("COLAB_") and (self.root / "content").is_dir(),
            ),
        )
        return next((name for name, is_it in signs if is_it), "generic")

    def _is_set(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.env)

    @property
    def is_on_ec2(self) -> bool:
        """Say whether the firmware names EC2, so that asking its metadata service makes sense."""
        return "Amazon EC2" in self._text("sys/devices/virtual/dmi/id/sys_vendor")

    def _text(self, path: str) -> str:
        try:
            return (self.root / path).read_text("utf-8", "replace")
        except OSError:
            return ""

    def started(self, pid: int | str) -> float | None:
        """Return when a process started, in seconds since the boot; None where it does not live.

        That is field 22 of its stat (proc_pid_stat(5)).
        """
        fields = self._text(f"proc/{pid}/stat").rpartition(")")[2].split()
        try:
            return int(fields[19]) / TICKS if fields[0] not in {"Z", "X"} else None
        except (IndexError, ValueError):
            return None

    def _jupyter_start(self, now: float, wall: float, container_start: float) -> float | None:
        """Return when the oldest Jupyter server that runs here started.

        Its file outlives it where the home does, so it counts only with a process that lives, or when
        it is younger than the machine.
        """
        starts = []
        for path in self._server_files():
            with contextlib.suppress(OSError, ValueError):
                told = json.loads(path.read_bytes())
                pid = str(told.get("pid", "")) if isinstance(told, dict) else ""
                written = now - (wall - path.stat().st_mtime)
                started = self.started(pid) if pid.isdigit() else None
                if started is not None and abs(started - written) < 600:
                    starts.append(started)
                elif container_start <= written <= now:
                    starts.append(written)
        return min(starts, default=None)

    def _server_files(self) -> Iterator[Path]:
        home = Path(self.env.get("HOME") or "/nonexistent")
        data = self.env.get("JUPYTER_DATA_DIR") or str(home / ".local/share/jupyter")
        folder = Path(self.env.get("JUPYTER_RUNTIME_DIR") or f"{data}/runtime")
        with contextlib.suppress(OSError):
            yield from folder.glob("jpserver-*.json")

    def _job_end(self) -> float | None:
        try:
            return float(self.env["SLURM_JOB_END_TIME"])
        except (KeyError, ValueError):
            return None
