"""The commands that prove the lab, and leave a report beside the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from labsync.cli.options import artifacts, bwlimit, common, emit, no_mirror, open_lab, selectors

if TYPE_CHECKING:
    from collections.abc import Callable

    from labsync.cli.options import Common
    from labsync.steps.lab import Lab
    from labsync.steps.outcome import Outcome


def _where(function: click.decorators.FC) -> click.decorators.FC:
    """Give a command the options that say where models run."""
    device = click.option(
        "--device", default="", metavar="D", help="cpu, cuda or cuda:N; default: the manifest's, or the GPU."
    )
    required = click.option(
        "--require-gpu", is_flag=True, help="Without a GPU fail (14) instead of leaving it pending."
    )
    return device(required(function))


@click.command()
@selectors
@click.option("--pending", is_flag=True, help="Only what the last run left pending.")
@click.option(
    "--one-at-a-time", is_flag=True, help="Pull, prove and, where not all fit the disk, remove each in turn."
)
@_where
@bwlimit
@common
def smoke(
    common: Common,
    selectors: tuple[str, ...],
    pending: bool,
    one_at_a_time: bool,
    device: str,
    require_gpu: bool,
) -> int:
    """Run each model once and judge what comes out; renews the report."""
    from labsync import workflow
    from labsync.steps.prove import SmokeOptions

    lab = open_lab(common)
    options = SmokeOptions(device, require_gpu, pending, selectors, one_at_a_time)
    chosen = artifacts(lab, selectors)
    return _reported(lab, "smoke", lambda: workflow.smoke(lab, chosen, options), common)


@click.command()
@_where
@no_mirror
@bwlimit
@common
def bootstrap(common: Common, device: str, require_gpu: bool) -> int:
    """Everything, on a new machine: lock, pull, environment, kernel, smoke, report."""
    from labsync import workflow
    from labsync.errors import LabsyncError
    from labsync.report import ErrorReport
    from labsync.steps.outcome import finish
    from labsync.steps.prove import SmokeOptions

    lab = open_lab(common)

    def run() -> Outcome:
        try:
            return workflow.bootstrap(lab, SmokeOptions(device=device, require_gpu=require_gpu))
        except LabsyncError as error:
            return finish([ErrorReport.of(error)])

    return _reported(lab, "bootstrap", run, common)


def _reported(lab: Lab, command: str, run: Callable[[], Outcome], common: Common) -> int:
    """Run a command while its chronicle is kept, and leave the report of it beside the manifest."""
    from labsync.events import Note
    from labsync.render import html
    from labsync.steps.chronicle import Chronicle
    from labsync.steps.report_file import PAGE, pictures, record_run, write_report

    chronicle = Chronicle(lab.observe)
    lab.observe = chronicle
    outcome = run()
    if not common.dry_run and (command == "bootstrap" or outcome.report.smoke):
        record = record_run(lab, command, outcome, chronicle)
        write_report(lab.manifest.root, record, html.page(record, pictures(lab, record)))
        lab.observe(Note(f"the report is {lab.manifest.root / PAGE}"))
    return emit(outcome, common)
