"""Ask the process that py-rattler runs in; see `rattler_worker` for what it does and why it is one."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from labsync import process
from labsync.env.tools import is_full, no_space
from labsync.errors import UnavailableError
from labsync.events import BytesMoved

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labsync.env.tools import Tools

PATIENCE = 300.0  # seconds without a line: longer than unpacking the largest package takes
_WORKER = (sys.executable, "-m", "labsync.env.rattler_worker")
_NOWHERE = "http://127.0.0.1:9"  # the port that nobody listens on


def ask(tools: Tools, doing: str, task: Mapping[str, object]) -> object:
    """Have one task done and return its answer; `doing` is what it does, as in `install the packages`.

    Bytes that arrive are told to the tools' observer. Raises EnvironmentFailedError (13) with rattler's
    own words, DiskError (9) where it found the disk full. Without the network no host is asked.
    """
    servant = process.Servant(_WORKER, env=_environment(tools), patience=PATIENCE, keep=tools.keep)
    try:
        servant.tell(json.dumps({**task, "offline": tools.offline}).encode() + b"\n")
        answer = _answer(servant, tools)
    except UnavailableError as error:
        raise tools.failed(f"could not {doing}: nothing moved for {PATIENCE:.0f} s", _AGAIN) from error
    finally:
        done = servant.end()
        tools.record(_WORKER, done)
    if "done" in answer:
        return answer["done"]
    said = str(answer.get("failed") or f"{done.error_text}\nended with {done.returncode}").strip()
    said = said.replace("\nCaused by: ", ": ")
    if is_full(said):
        raise no_space(doing)
    raise tools.failed(f"could not {doing}: {said}", _hint(said, answer.get("kind"), offline=tools.offline))


_AGAIN = "run the same command again: packages that had arrived are kept"


def _hint(said: str, kind: object, *, offline: bool) -> str:
    if kind == "SolverError":
        return "ask for other versions in the spec, or for another machine under its `target:`"
    if kind == "GatewayError" and not offline:
        return "check the network and the spec's `channels:`; with a lock and an archive no channel is needed"
    if kind == "InvalidMatchSpecError":
        return "write the package in the spec like `numpy>=1.26,<3`"
    if offline:
        return "with `--offline` only what was fetched here before is there"
    if "hash mismatch" in said or "checksum" in said:
        return "the channel has other bytes than were locked; another mirror of it may have the right ones"
    return _AGAIN


def _answer(servant: process.Servant, tools: Tools) -> Mapping[str, object]:
    while line := servant.line():
        said: Mapping[str, object] = json.loads(line)
        if isinstance(count := said.get("bytes"), int):
            tools.observe(BytesMoved(count))
        elif "done" in said or "failed" in said:
            return said
    return {}


def _environment(tools: Tools) -> dict[str, str]:
    env = tools.environment({})
    if tools.offline:
        # rattler has no such switch: whatever it asks goes to a proxy that is not there.
        env |= dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), _NOWHERE)
        env |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _NOWHERE)
        env |= {"no_proxy": "", "NO_PROXY": ""}
    return env
