"""The program: one click group, signals turned into clean stops, every failure in three lines."""

from __future__ import annotations

import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import click

from labsync import __version__
from labsync.cli import commands
from labsync.errors import ExitCode, InterruptedRunError, LabsyncError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType


class _SignalledError(KeyboardInterrupt):
    """A signal asked for a clean stop; a KeyboardInterrupt, so that no handler of failures takes it."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="labsync")
def program() -> None:
    """Bring a machine learning lab to this machine, every byte checked.

    A manifest (labsync.yaml) lists models, checkpoints, datasets, libraries and results.
    Begin with `labsync init`, then `labsync bootstrap`.
    """


for command in commands.ALL:
    program.add_command(command)


def main() -> NoReturn:
    """Run the program and exit with its documented code."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _stop)
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _stop(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  a handler's signature
    raise _SignalledError(signum)


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; never raises."""
    as_json = "--json" in argv
    try:
        return int(program.main(args=list(argv), prog_name="labsync", standalone_mode=False) or 0)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        return _report(_usage(error), as_json=as_json)
    except LabsyncError as error:
        return _report(error, as_json=as_json)
    except (KeyboardInterrupt, click.Abort) as stop:
        return _interrupted(stop, as_json=as_json)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; Python would complain about it at exit
        return int(ExitCode.OK)
    except Exception as error:  # noqa: BLE001  the last border: a bug of ours must end with its code, too
        return _bug(error, as_json=as_json)


def _usage(error: click.ClickException) -> UsageError:
    context = getattr(error, "ctx", None)
    name = context.command_path if context else "labsync"
    message = error.format_message().rstrip(".")
    return UsageError(message[:1].lower() + message[1:], hint=f"`{name} --help` shows what fits")


def _interrupted(stop: BaseException, *, as_json: bool) -> int:
    signum = getattr(stop, "signum", signal.SIGINT)
    error = InterruptedRunError(f"stopped by {signal.Signals(signum).name}")
    return _report(error, as_json=as_json, code=128 + int(signum))


def _bug(error: Exception, *, as_json: bool) -> int:
    traceback.print_exc()
    shown = LabsyncError(
        f"labsync has a bug: {type(error).__name__}: {error}",
        safe="published files are whole; run the same command again",
        hint="please report it with the lines above",
    )
    return _report(shown, as_json=as_json)


def _report(error: LabsyncError, *, as_json: bool, code: int | None = None) -> int:
    from dataclasses import replace

    from labsync.render import json, text
    from labsync.report import ErrorReport, Report

    reported = replace(ErrorReport.of(error), code=int(error.exit_code) if code is None else code)
    for line in text.all_error_lines([reported]):
        print(line, file=sys.stderr)
    if as_json:
        print(json.report_line(Report(exit_code=reported.code, errors=(reported,))))
    return reported.code
