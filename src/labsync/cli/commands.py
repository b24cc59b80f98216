"""The commands. Each parses, calls one workflow function, and renders its value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labsync.cli.doctor import doctor, iam_policy
from labsync.cli.env import env, kernel
from labsync.cli.guard import guard, up
from labsync.cli.options import artifacts, bwlimit, chosen, common, emit, no_mirror, open_lab, selectors
from labsync.cli.smoke import bootstrap, smoke

if TYPE_CHECKING:
    from labsync.cli.options import Common
    from labsync.manifest.templates import TemplateName


@click.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False))
@click.option(
    "--template",
    type=click.Choice(["minimal", "vision", "video"]),
    default="minimal",
    show_default=True,
    help="What to begin with.",
)
@common
def init(common: Common, folder: str, template: TemplateName) -> int:
    """Write a manifest to begin with; an existing one is never replaced."""
    from labsync.steps.initialise import write_manifest
    from labsync.steps.outcome import Location, finish

    path = write_manifest(Path(folder).absolute(), template, dry_run=common.dry_run)
    if not common.quiet and not common.as_json:
        click.echo("edit it, then run `labsync lock` and `labsync bootstrap`", err=True)
    return emit(finish((), items=[Location("", str(path))]), common)


@click.command()
@selectors
@click.option("--check", is_flag=True, help="Change nothing; exit 3 when the lock does not fit the manifest.")
@click.option("--upgrade", is_flag=True, help="Resolve branches and tags again.")
@bwlimit
@common
def lock(common: Common, selectors: tuple[str, ...], check: bool, upgrade: bool) -> int:
    """Resolve every origin to an exact revision and every file to its SHA-256."""
    from labsync import workflow

    lab = open_lab(common)
    options = workflow.LockOptions(check=check, upgrade=upgrade)
    return emit(workflow.lock(lab, artifacts(lab, selectors), options), common)


@click.command()
@selectors
@common
def status(common: Common, selectors: tuple[str, ...]) -> int:
    """Say how everything stands: what would be lost now, and the next command."""
    from labsync import workflow

    lab = open_lab(common, warns=False)
    return emit(workflow.status(lab, artifacts(lab, selectors)), common)


@click.command()
@selectors
@no_mirror
@bwlimit
@common
def pull(common: Common, selectors: tuple[str, ...]) -> int:
    """Bring artifacts to the disk, from the mirror or the origin.

    NAME@SNAPSHOT pulls an older snapshot of something made here (`labsync log` lists them).
    """
    from labsync import workflow

    lab = open_lab(common)
    return emit(workflow.pull(lab, chosen(lab, selectors)), common)


@click.command()
@selectors
@click.option("--prune", is_flag=True, help="Drop the names that this disk knew and no longer has.")
@bwlimit
@common
def push(common: Common, selectors: tuple[str, ...], prune: bool) -> int:
    """Bring what was made here to the mirror; with a selector, also what matches its lock."""
    from labsync import workflow

    lab = open_lab(common)
    selected = artifacts(lab, selectors)
    if not selectors:
        selected = [artifact for artifact in selected if artifact.is_made]
    return emit(workflow.push(lab, selected, prune=prune), common)


@click.command()
@selectors
@bwlimit
@common
def mirror(common: Common, selectors: tuple[str, ...]) -> int:
    """Bring artifacts from their origins to the mirror, without a place on the disk."""
    from labsync import workflow

    lab = open_lab(common)
    return emit(workflow.mirror(lab, artifacts(lab, selectors)), common)


@click.command()
@selectors
@click.option("--repair", is_flag=True, help="Fetch what is damaged or missing.")
@bwlimit
@common
def verify(common: Common, selectors: tuple[str, ...], repair: bool) -> int:
    """Read every byte on the disk again and compare; without selectors the environment, too."""
    from labsync import workflow

    lab = open_lab(common)
    selected = chosen(lab, selectors)
    return emit(workflow.verify(lab, selected, repair=repair, environment=not selectors), common)


@click.command()
@selectors
@common
def log(common: Common, selectors: tuple[str, ...]) -> int:
    """List the snapshots that the mirror has, the newest first."""
    from labsync import workflow

    lab = open_lab(common)
    return emit(workflow.log(lab, artifacts(lab, selectors)), common)


@click.command()
@selectors
@common
def path(common: Common, selectors: tuple[str, ...]) -> int:
    """Print where artifacts are on the disk."""
    from labsync import workflow

    lab = open_lab(common)
    return emit(workflow.path(lab, artifacts(lab, selectors)), common)


@click.command()
@selectors
@common
def url(common: Common, selectors: tuple[str, ...]) -> int:
    """Print where artifacts are in the mirror."""
    from labsync import workflow

    lab = open_lab(common)
    return emit(workflow.url(lab, artifacts(lab, selectors)), common)


@click.command()
@selectors
@common
def du(common: Common, selectors: tuple[str, ...]) -> int:
    """Say what takes how much of the disk."""
    from labsync import workflow

    lab = open_lab(common)
    return emit(workflow.du(lab, artifacts(lab, selectors)), common)


ALL = (
    init, lock, status, pull, push, mirror, verify, log, path, url, du, env, kernel, smoke, doctor, iam_policy, bootstrap,
    guard, up,
)  # fmt: skip
