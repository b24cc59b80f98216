"""Prove a kernel: start it as Jupyter does, see where it runs, import what the lab needs, end it."""

from __future__ import annotations

import ast
import os
import queue
import re
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from labsync import atomic
from labsync.env.kernel import SPEC, kernel_json, kernel_name, kernels_dir, refuse_foreign, write_kernel
from labsync.env.machine import cuda_version
from labsync.errors import EnvironmentFailedError
from labsync.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jupyter_client.blocking.client import BlockingKernelClient
    from jupyter_client.manager import KernelManager

    from labsync.env.kernel import KernelRequest

LIMIT = 300.0
_POLL = 0.5
_TAIL = 1500
# The CUDA that torch was built for when it sees no GPU although there is one; else nothing.
_BLIND = (
    "(lambda torch: '' if torch.version.cuda is None or torch.cuda.is_available() else torch.version.cuda)"
    "(__import__('torch'))"
)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def install_kernel(request: KernelRequest, imports: Sequence[str], timeout: float = LIMIT) -> Path:
    """Prove the kernel as it will be, then write it: a kernel that does not work replaces nothing.

    Returns the path of its `kernel.json`. Raises RefusedError (12) and EnvironmentFailedError (13).
    """
    refuse_foreign(request)
    with tempfile.TemporaryDirectory(prefix="labsync-kernel-") as work:
        atomic.write_bytes(Path(work) / kernel_name(request.name) / SPEC, kernel_json(request))
        prove_kernel(request.name, request.prefix, imports, timeout, kernels=Path(work))
    return write_kernel(request)


def prove_kernel(
    name: str, prefix: Path, imports: Sequence[str], timeout: float = LIMIT, *, kernels: Path | None = None
) -> None:
    """Start the kernel, check that it runs in `prefix` and imports the modules, and end it.

    Where the machine has a GPU, a torch that is built for one must see it.

    `kernels` is the folder it is looked for in, the user's own unless told. Raises
    EnvironmentFailedError (13) with the kernel's own words; a kernel that dies is noticed at once,
    one that hangs after `timeout` seconds. No process, connection file or history is left.
    """
    deadline = time.monotonic() + timeout
    with tempfile.TemporaryDirectory(prefix="labsync-kernel-") as work:
        spec_folder = kernels or kernels_dir(os.environ)
        with _running(kernel_name(name), spec_folder, Path(work), deadline) as run:
            code = "\n".join(f"import {module}" for module in imports)
            found = run.evaluate(code, "__import__('sys').prefix")
            blind = run.evaluate("", _BLIND) if "torch" in imports and (driver := cuda_version()) else ""
    if os.path.realpath(found) != os.path.realpath(prefix):
        raise EnvironmentFailedError(
            f"the kernel `{name}` runs in `{found}` and not in `{prefix}`",
            hint="`labsync kernel` writes it anew",
        )
    if blind:
        raise EnvironmentFailedError(
            f"the kernel `{name}` sees no GPU: its torch is for CUDA {blind}, the driver here knows {driver}",
            hint=f"write `cuda: '{driver}'` under the spec's `target:`, then `labsync env lock`",
        )


@dataclass(frozen=True, slots=True)
class _Reply:
    value: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Run:
    """A started kernel; `output` is the file that takes what it prints outside of Jupyter's channels."""

    name: str
    manager: KernelManager
    client: BlockingKernelClient
    output: Path
    deadline: float

    def evaluate(self, code: str, expression: str) -> str:
        """Run the code, then return the value of an expression that is a string."""
        message = self.client.execute(code, store_history=False, user_expressions={"value": expression})
        reply = self._reply(message)
        if reply.error:
            raise _failure(self.name, reply.error)
        return str(ast.literal_eval(reply.value))

    def _reply(self, message: str) -> _Reply:
        while time.monotonic() < self.deadline:
            try:
                reply = self.client.get_shell_msg(timeout=_POLL)
            except queue.Empty:
                if not self.manager.is_alive():
                    raise self.failed("it died while importing") from None
                continue
            if reply["parent_header"].get("msg_id") != message:
                continue
            content = reply["content"]
            if content["status"] == "ok":
                return _Reply(value=content["user_expressions"]["value"]["data"]["text/plain"])
            return _Reply(error=f"{content.get('ename')}: {content.get('evalue')}")
        raise self.failed("it did not answer in time")

    def failed(self, what: str) -> EnvironmentFailedError:
        """Return the error of a kernel that says nothing itself: with the end of what it printed."""
        printed = _ANSI.sub("", self.output.read_text("utf-8", "replace")).strip()[-_TAIL:]
        return _failure(self.name, f"{what}\n{printed}".strip())


def _failure(name: str, text: str) -> EnvironmentFailedError:
    if "No module named ipykernel" in text:
        hint = "add `ipykernel` to the spec's `pip:`, then `labsync env lock` and `labsync env build`"
    else:
        hint = "repair the environment's spec, then `labsync env lock` and `labsync env build`"
    return EnvironmentFailedError(f"the kernel `{name}` does not work: {redact(text)}", hint=hint)


@contextmanager
def _running(name: str, kernels: Path, work: Path, deadline: float) -> Iterator[_Run]:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    from jupyter_client.manager import KernelManager

    specs = KernelSpecManager(kernel_dirs=[str(kernels)], ensure_native_kernel=False)
    # A connection file of our own: the default one stays behind when labsync is killed.
    manager = KernelManager(
        kernel_name=name, kernel_spec_manager=specs, connection_file=str(work / "connection.json")
    )
    output = work / "output"
    with output.open("wb") as stream:
        try:
            _start(manager, stream, work)
        except NoSuchKernel as error:
            raise EnvironmentFailedError(
                f"there is no kernel `{name}` in `{kernels}`", hint="`labsync kernel` makes it"
            ) from error
        except OSError as error:
            raise EnvironmentFailedError(
                f"the kernel `{name}` does not start: {error}",
                hint="`labsync env build` makes its environment anew, then `labsync kernel`",
            ) from error
        client = manager.blocking_client()
        run = _Run(name, manager, client, output, deadline)
        try:
            _wait(run)
            yield run
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()


def _start(manager: KernelManager, stream: BinaryIO, work: Path) -> None:
    env = os.environ | {"IPYTHONDIR": str(work / "ipython")}  # no history in the user's profile
    manager.start_kernel(stdout=stream, stderr=stream, env=env)


def _wait(run: _Run) -> None:
    run.client.start_channels()
    try:
        run.client.wait_for_ready(timeout=max(run.deadline - time.monotonic(), _POLL))
    except RuntimeError as error:  # died, or was not ready in time: the message says which
        raise run.failed(str(error)) from error
