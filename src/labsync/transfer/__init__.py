"""Carries plans out: fetch, verify, write to the mirror, publish on the disk."""

from __future__ import annotations

from labsync.transfer.engine import Engine, Failure, Outcome, workload
from labsync.transfer.work import Work

__all__ = ["Engine", "Failure", "Outcome", "Work", "workload"]
