"""The commands of the environment and its kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from labsync.cli.options import bwlimit, common, emit, open_lab

if TYPE_CHECKING:
    from labsync.cli.options import Common


@click.group(no_args_is_help=False)
def env() -> None:
    """Lock, build, change and restore the environment."""


@env.command("lock")
@click.option("--check", is_flag=True, help="Change nothing; exit 3 when the lock does not fit the spec.")
@common
def env_lock(common: Common, check: bool) -> int:
    """Resolve the environment's spec to exact packages with digests."""
    from labsync import workflow_env

    return emit(workflow_env.lock(open_lab(common), check=check), common)


@env.command("build")
@common
def env_build(common: Common) -> int:
    """Build the environment beside the old one, then switch."""
    from labsync import workflow_env

    return emit(workflow_env.build(open_lab(common)), common)


@env.command("add")
@click.argument("packages", nargs=-1, required=True, metavar="PACKAGE...")
@click.option("--pip", is_flag=True, help="From Python's package index, not from the channels.")
@common
def env_add(common: Common, packages: tuple[str, ...], pip: bool) -> int:
    """Ask for packages in the spec, lock them with everything else held, build and switch."""
    from labsync import workflow_env

    return emit(workflow_env.add(open_lab(common), packages, pip=pip), common)


@env.command("remove")
@click.argument("packages", nargs=-1, required=True, metavar="PACKAGE...")
@common
def env_remove(common: Common, packages: tuple[str, ...]) -> int:
    """Take packages out of the spec, lock what is left, build and switch."""
    from labsync import workflow_env

    return emit(workflow_env.remove(open_lab(common), packages), common)


@env.command("rollback")
@common
def env_rollback(common: Common) -> int:
    """Make the environment's previous version current again, at once."""
    from labsync import workflow_env

    return emit(workflow_env.rollback(open_lab(common)), common)


@env.command("archive")
@bwlimit
@common
def env_archive(common: Common) -> int:
    """Bring the environment's locked packages to the mirror, each once."""
    from labsync import workflow_env

    return emit(workflow_env.archive(open_lab(common)), common)


@env.command("restore")
@bwlimit
@common
def env_restore(common: Common) -> int:
    """Build the environment from the packages in the mirror, without any channel."""
    from labsync import workflow_env

    return emit(workflow_env.restore(open_lab(common)), common)


@click.command()
@common
def kernel(common: Common) -> int:
    """Register the environment's Jupyter kernel and prove it by starting it."""
    from labsync import workflow_env

    return emit(workflow_env.kernel(open_lab(common)), common)
