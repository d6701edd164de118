"""What every flow does around its job: parse, load the config, run, turn errors into exit codes.

A flow answers ``--help`` and ``--print-config`` without importing Ray or torch: its job function
imports them when it is called.
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TypeVar

from pydantic import BaseModel

from segjobs.config import describe_keys, load_config, to_yaml
from segjobs.errors import ExitCode, SegjobsError
from segjobs.redact import redact
from segjobs.stdout import drop_output, only_results

Config = TypeVar("Config", bound=BaseModel)


class _Stopped(BaseException):
    """A signal asked the process to end."""


def main(
    kind: type[Config],
    job: Callable[..., ExitCode],
    argv: Sequence[str] | None = None,
    *,
    dry_run: bool = False,
) -> int:
    """Run ``job`` with the config that the command line describes; returns the exit status.

    ``dry_run``: the flow has that option, and ``job`` takes it as a keyword.
    """
    arguments = _parser(kind, dry_run=dry_run).parse_intermixed_args(argv)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        config = load_config(kind, arguments.config, arguments.overrides)
        if arguments.print_config:
            sys.stdout.write(to_yaml(config))
            return ExitCode.DONE
        with only_results():
            return job(config, dry_run=True) if dry_run and arguments.dry_run else job(config)
    except SegjobsError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"error: {line}\n")
        return error.exit_code
    except _Stopped:
        sys.stderr.write("stopped by a signal; what is published stays, and the same command continues:\n")
        sys.stderr.write(f"{redact(shlex.join(sys.orig_argv))}\n")
        return ExitCode.STOPPED


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once: the way out must not be interrupted
    drop_output()  # Ray tells it of every worker that it ends on its way out
    raise _Stopped


def _parser(kind: type[BaseModel], *, dry_run: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=kind.__doc__,
        epilog=f"keys (key=value here, or in the YAML file):\n{describe_keys(kind)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file; see conf/ for complete examples")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, laid over the file")
    if dry_run:
        parser.add_argument("--dry-run", action="store_true", help="list, plan, say what would be done; write nothing")
    parser.add_argument("--print-config", action="store_true", help="print the resolved config as YAML and stop")
    return parser
