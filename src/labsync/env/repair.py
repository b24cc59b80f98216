"""Put an environment right where it stands: only the damaged packages are installed anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labsync.env.base import manager_for
from labsync.env.build import build_environment, environment_state, tools_for
from labsync.env.checks import check_imports
from labsync.env.library import install_libraries
from labsync.env.lock import normal_name
from labsync.env.package import install_labsync
from labsync.env.stamp import is_built
from labsync.env.switch import build_lock, current
from labsync.env.verify import Damage, find_damage
from labsync.errors import IntegrityError
from labsync.events import StageStarted
from labsync.report import Built

if TYPE_CHECKING:
    from labsync.env.base import EnvironmentRequest
    from labsync.env.lock import LockedPackage
    from labsync.events import Observer


def damaged_packages(request: EnvironmentRequest, damage: Damage) -> tuple[LockedPackage, ...]:
    """Return the locked packages that have to be brought again."""
    packages = request.lock.packages if request.lock else ()
    names = {"conda": set(damage.conda), "pip": set(damage.pip)}
    return tuple(
        one
        for one in packages
        if (normal_name(one.name) if one.manager == "pip" else one.name) in names[one.manager]
    )


def verify_environment(envs: Path, name: str) -> tuple[Built, Damage]:
    """Read every file of the current environment: `ok`, `missing`, or `damaged` with what is wrong."""
    prefix = current(envs, name)
    if prefix is None or not is_built(prefix):
        return Built(name, str(prefix or ""), "missing", "`labsync env build` builds it"), Damage({}, {})
    damage = find_damage(prefix)
    return Built(name, str(prefix), "damaged" if damage else "ok", str(damage) if damage else ""), damage


def repair_environment(request: EnvironmentRequest, damage: Damage, observer: Observer) -> Built:
    """Install anew what was found damaged; an environment that is missing or stale is built.

    `repaired`, or `ok` where nothing was wrong. Raises IntegrityError (5) when something cannot be put
    right because labsync did not install it, and as `build_environment`.
    """
    state = environment_state(request)
    if state.state != "ok":
        return build_environment(request, observer)
    if not damage:
        return state
    prefix = Path(state.prefix)
    with build_lock(request.envs_dir, request.name, observer) as held:
        observer(StageStarted("environment", f"repairing {prefix.name}"))
        tools = tools_for(request, prefix, observer, held)
        manager_for(request.manager).repair(request, prefix, damage, tools)
        packages = request.lock.packages if request.lock else ()
        locked = {normal_name(package.name) for package in packages}
        if damage.pip.keys() - locked:
            install_libraries(request, prefix, tools)
            install_labsync(prefix, tools)
        check_imports(prefix, request.imports, tools)
        left = find_damage(prefix)
        if left:
            raise IntegrityError(
                f"the environment `{request.name}` cannot be put right: {left}",
                safe="everything else in it was installed anew",
                hint="what was installed by hand is yours to install again",
            )
        tools.log.unlink(missing_ok=True)
    return Built(request.name, str(prefix), "repaired", str(damage))
