"""The options that every command has, and how a command runs: open, call one workflow function, render."""

from __future__ import annotations

import functools
import math
import re
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from labsync.settings import DEFAULT_JOBS, Options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from labsync.manifest.model import Artifact, Manifest
    from labsync.manifest.select import Selection
    from labsync.steps.lab import Lab
    from labsync.steps.outcome import Item, Outcome

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Common:
    """The common options of one call, as typed."""

    manifest: str
    as_json: bool
    dry_run: bool
    jobs: int
    quiet: bool
    verbose: bool
    force: bool
    offline: bool
    yes: bool
    no_mirror: bool = False
    bandwidth: float = math.inf

    def options(self) -> Options:
        """Return them as the workflow takes them."""
        return Options(
            jobs=self.jobs,
            force=self.force,
            offline=self.offline,
            yes=self.yes,
            dry_run=self.dry_run,
            no_mirror=self.no_mirror,
            bandwidth=self.bandwidth,
            confirm=self._ask,
        )

    def _ask(self, question: str) -> bool:
        return sys.stdin.isatty() and not self.as_json and click.confirm(question, err=True)


_COMMON = (
    click.option("-m", "--manifest", default="", metavar="FILE", help="Manifest; default: labsync.yaml, searched upward."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object per line on stdout, the report last."),
    click.option("--dry-run", is_flag=True, help="Print the plan with reasons and bytes; change nothing."),
    click.option("-j", "--jobs", type=click.IntRange(1, 256), default=DEFAULT_JOBS, show_default=True, help="Transfers at a time."),
    click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr."),
    click.option("-v", "--verbose", is_flag=True, help="Every file on stderr."),
    click.option("--force", is_flag=True, help="Replace what was changed here; a copy is set aside."),
    click.option("--offline", is_flag=True, help="No network at all; a directory mirror still works."),
    click.option("-y", "--yes", is_flag=True, help="Answer every question with yes."),
)  # fmt: skip


def common(function: Callable[..., T]) -> Callable[..., T]:
    """Give a command the common options, passed on as one `Common` value."""

    @functools.wraps(function)
    def wrapper(**options: object) -> T:
        names = ("manifest", "as_json", "dry_run", "jobs", "quiet", "verbose", "force", "offline", "yes")
        values = {name: options.pop(name) for name in names}
        values |= {name: options.pop(name) for name in ("no_mirror", "bandwidth") if name in options}
        return function(Common(**values), **options)  # type: ignore[arg-type]  # click made the types

    wrapped: Callable[..., T] = wrapper
    for option in reversed(_COMMON):
        wrapped = option(wrapped)
    return wrapped


def no_mirror(function: Callable[..., T]) -> Callable[..., T]:
    """Give a command `--no-mirror`."""
    text = "Do not write to the mirror; reading it stays allowed."
    return click.option("--no-mirror", is_flag=True, help=text)(function)


class RateType(click.ParamType[float]):
    """Bytes per second, written as a size."""

    name = "rate"

    def convert(
        self,
        value: str | float,
        param: click.Parameter | None,  # noqa: ARG002  click's signature
        ctx: click.Context | None,  # noqa: ARG002
    ) -> float:
        """Return the rate; what is not one ends the command (2)."""
        from labsync.errors import UsageError
        from labsync.manifest.values import parse_size

        if not isinstance(value, str):
            return value
        hint = "write it like `10MiB`, which means 10 MiB per second; without the option there is no limit"
        try:
            rate = parse_size(value)
        except UsageError:
            raise UsageError(f"`--bwlimit {value}` is not a rate", hint=hint) from None
        if rate == 0:
            raise UsageError(f"`--bwlimit {value}` would let nothing through", hint=hint)
        return float(rate)


def bwlimit(function: Callable[..., T]) -> Callable[..., T]:
    """Give a command that transfers `--bwlimit`."""
    return click.option(
        "--bwlimit",
        "bandwidth",
        type=RateType(),
        default=math.inf,
        metavar="RATE",
        help="Most bytes per second over the network, such as 10MiB.",
    )(function)


def find(common: Common) -> Path:
    """Return the manifest that the command is about."""
    from labsync.manifest.parse import find_manifest

    return Path(common.manifest).absolute() if common.manifest else find_manifest(Path.cwd())


def open_lab(common: Common, *, warns: bool = True) -> Lab:
    """Open the lab that the command is about, and warn where a guard has died in this session."""
    from labsync.manifest.parse import load_manifest
    from labsync.render.progress import Progress
    from labsync.steps.lab import Lab

    observer = Progress(quiet=common.quiet or common.as_json, verbose=common.verbose)
    lab = Lab(load_manifest(find(common)), common.options(), observer)
    if warns:
        from labsync.steps.session_status import warn_of_dead_guard

        warn_of_dead_guard(lab)
    return lab


def chosen(lab: Lab, selectors: Sequence[str]) -> list[Selection]:
    """Return what the selectors select."""
    from labsync.manifest.select import select

    return list(select(lab.manifest, selectors))


def artifacts(lab: Lab, selectors: Sequence[str]) -> list[Artifact]:
    """Return the selected artifacts, for commands that know no snapshots."""
    from labsync.errors import UsageError

    selections = chosen(lab, selectors)
    for selection in selections:
        if selection.snapshot:
            raise UsageError(
                f"`{selection.artifact.name}@{selection.snapshot}`: only `pull` takes a snapshot",
                hint=f"name `{selection.artifact.name}` alone",
            )
    return [selection.artifact for selection in selections]


def emit(outcome: Outcome, common: Common) -> int:
    """Print a command's value and return its exit code, whether anybody still reads or not."""
    from labsync.render import json, text
    from labsync.render.output import put

    if common.manifest:
        items = tuple(_with_manifest(item, common.manifest) for item in outcome.items)
        outcome = replace(outcome, items=items)
    put(sys.stdout, json.lines(outcome) if common.as_json else text.lines(outcome))
    if not common.as_json:
        put(sys.stderr, text.all_error_lines(outcome.report.errors))
    return outcome.report.exit_code


def _with_manifest(item: Item, manifest: str) -> Item:
    """Return the advice with `-m`, where the person typed it, so that the command can be pasted."""
    from labsync.steps.outcome import Advice

    if not isinstance(item, Advice) or not item.next_command:
        return item
    option = f" -m {shlex.quote(manifest)}"
    command = item.next_command
    # What stands in brackets explains the command before it.
    pasted = re.sub(r"(?= \()", option, command) if "(" in command else command + option
    return replace(item, next_command=pasted)


class SelectorType(click.ParamType[str]):
    """A kind, a name, a group or a glob; completes with the manifest's own names."""

    name = "selector"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002  click's signature
        incomplete: str,
    ) -> list[click.shell_completion.CompletionItem]:
        """Return the names in the manifest that begin with what was typed."""
        from click.shell_completion import CompletionItem

        from labsync.errors import LabsyncError

        try:
            manifest = _manifest_of(ctx)
        except LabsyncError:
            return []
        words = {a.kind for a in manifest.artifacts} | {a.short_name for a in manifest.artifacts}
        words |= {str(a.name) for a in manifest.artifacts} | set(manifest.groups)
        return [CompletionItem(word) for word in sorted(words) if word.startswith(incomplete)]


def _manifest_of(ctx: click.Context) -> Manifest:
    from labsync.manifest.parse import find_manifest, load_manifest

    named = ctx.params.get("manifest")
    return load_manifest(Path(named).absolute() if named else find_manifest(Path.cwd()))


def selectors(function: Callable[..., T]) -> Callable[..., T]:
    """Give a command its selectors."""
    return click.argument("selectors", nargs=-1, type=SelectorType())(function)
