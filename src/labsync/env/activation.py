"""What `conda activate` would set: the variables that an environment's own scripts give to programs in it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from labsync.env.checks import answer_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from labsync.env.tools import Tools

SCRIPTS = "etc/conda/activate.d"
_STATE = "conda-meta/state"  # what `conda env config vars set` writes
_RUN = 'for script in "$@"; do . "$script"; done; exec "$CONDA_PREFIX/bin/python" -I -c "$LABSYNC_SHOW"'
_SHOW = 'import json, os; print("labsync-answer:" + json.dumps(dict(os.environ)))'
_SHELLS_OWN = {"_", "SHLVL", "PWD", "OLDPWD", "LABSYNC_SHOW", "BASH_ENV"}
_TIMEOUT = 60.0


def basic_activation(name: str, prefix: Path) -> dict[str, str]:
    """Return what every activation sets; `${PATH}` stands for the path as it is before."""
    return {"PATH": f"{prefix}/bin:${{PATH}}", "CONDA_PREFIX": str(prefix), "CONDA_DEFAULT_ENV": name}


def activation(name: str, prefix: Path, tools: Tools) -> Mapping[str, str]:
    """Run the environment's activation scripts once and return all that activating it sets.

    In `PATH` the path before it is written `${PATH}`, every other `$` as `$$`, as Jupyter reads it.
    Raises EnvironmentFailedError (13) when a script fails.
    """
    path = os.environ.get("PATH", os.defpath)
    before = basic_activation(name, prefix)
    given = before | {"PATH": before["PATH"].replace("${PATH}", path)}
    found = dict(_state(prefix))
    if scripts := sorted(str(script) for script in (prefix / SCRIPTS).glob("*.sh")):
        after = _run(scripts, given | found | {"LABSYNC_SHOW": _SHOW}, tools)
        known = tools.environment(given)
        found |= {
            key: value for key, value in after.items() if known.get(key) != value and key not in _SHELLS_OWN
        }
    own_path = found.pop("PATH", given["PATH"])
    head = own_path.removesuffix(path)
    escaped = {key: value.replace("$", "$$") for key, value in sorted(found.items())}
    return before | escaped | {"PATH": f"{head.replace('$', '$$')}${{PATH}}"}


def _run(scripts: list[str], env: Mapping[str, str], tools: Tools) -> Mapping[str, str]:
    argv = ["bash", "--noprofile", "--norc", "-c", _RUN, "bash", *scripts]
    done = tools.run(argv, "run the environment's activation scripts", env=env, timeout=_TIMEOUT)
    answer = answer_of(done, tools, "run the environment's activation scripts")
    return answer if isinstance(answer, dict) else {}


def _state(prefix: Path) -> Mapping[str, str]:
    try:
        state: object = json.loads((prefix / _STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    variables = state.get("env_vars") if isinstance(state, dict) else None
    return {str(key): str(value) for key, value in variables.items()} if isinstance(variables, dict) else {}
