"""Questions asked of a new environment's own Python before it is switched in."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.env.record import site_packages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from labsync.env.tools import Tools
    from labsync.process import Completed

TORCHVISION = "labsync-torchvision.pth"
_LIMIT = 900.0
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_ANSWER = "labsync-answer:"  # modules print while they are imported

_IMPORTS = """
import importlib, json, sys
failed = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed[name] = f"{type(error).__name__}: {error}"
import labsync
print("labsync-answer:" + json.dumps({"failed": failed, "prefix": sys.prefix, "labsync": labsync.__file__}))
"""

_TORCHVISION_CHECK = """
import importlib.util
broken = False
if importlib.util.find_spec("torch") and importlib.util.find_spec("torchvision"):
    try:
        import torch
        if torch.version.cuda is None:
            import torchvision
    except Exception as error:
        broken = "torchvision::" in str(error)
print("labsync-answer:" + ("true" if broken else "false"))
"""

# site.py prints what a line of a `.pth` file raises, at every start of Python: this one raises nothing.
_TORCHVISION_LINE = (
    r'import sys; exec("try:\n from labsync.smoke.torchvision_cpu import install\n install()\n'
    r'except Exception:\n pass")' + "\n"
)


def repair_torchvision(prefix: Path, tools: Tools) -> bool:
    """Make torchvision importable where its wheel needs CUDA and torch has none; say whether it was needed.

    PyPI's torchvision is linked against CUDA, so that beside a CPU torch its operators are never
    registered, and `import torchvision` fails with `operator torchvision::nms does not exist`.
    """
    if not _ask(prefix, tools, _TORCHVISION_CHECK, "look at torchvision"):
        return False
    atomic.write_bytes(site_packages(prefix) / TORCHVISION, _TORCHVISION_LINE.encode())
    return True


def check_imports(prefix: Path, imports: Sequence[str], tools: Tools) -> None:
    """Import each module in the environment; EnvironmentFailedError (13) names all that fail.

    Also checks that it is this prefix that answers, and that labsync is its own copy there.
    """
    if odd := [name for name in imports if not _MODULE.fullmatch(name)]:
        raise tools.failed(f"`{odd[0]}` is not a module's name")
    answer = _ask(prefix, tools, _IMPORTS, "import the environment's modules", *imports)
    assert isinstance(answer, dict)
    if failed := answer["failed"]:
        listed = "; ".join(f"`{name}`: {error}" for name, error in failed.items())
        raise tools.failed(
            f"modules do not import in the environment: {listed}", "add them to the spec's `pip:`"
        )
    if answer["prefix"] != str(prefix) or not str(answer["labsync"]).startswith(f"{prefix}/"):
        raise tools.failed(f"`{prefix}/bin/python` runs in `{answer['prefix']}`")


def _ask(prefix: Path, tools: Tools, code: str, doing: str, *arguments: str) -> object:
    done = tools.run([str(prefix / "bin" / "python"), "-I", "-c", code, *arguments], doing, timeout=_LIMIT)
    return answer_of(done, tools, doing)


def answer_of(done: Completed, tools: Tools, doing: str) -> object:
    """Return the value that a program wrote behind `labsync-answer:`, whatever else it printed."""
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    answers = [line.removeprefix(_ANSWER) for line in lines if line.startswith(_ANSWER)]
    if not answers:
        raise tools.failed(f"could not {doing}: Python ended without an answer")
    answer: object = json.loads(answers[-1])
    return answer
