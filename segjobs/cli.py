"""The command ``segjobs``: its verbs, what is around each of them, and its other commands.

    segjobs VERB key=value … ─→ VERBS: verb → config, job ─→ the job's result on standard output, an exit status

``--help``, ``--print-config``, ``init`` and completions import neither Ray nor torch: a verb's job is imported when it
runs.
"""

import argparse
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import NoReturn

from pydantic import BaseModel

from segjobs import __version__
from segjobs import config as configs
from segjobs.completion import SHELLS, Completer
from segjobs.config import dashed, describe_keys, nearest
from segjobs.config.examples import example, example_names
from segjobs.errors import DISK_ERRNOS, ConfigError, ExitCode, SegjobsError, StorageError
from segjobs.redact import redact
from segjobs.results import Result, ending_text, failure_text
from segjobs.stdout import drop_output, for_a_program, kept_for_the_result
from segjobs.text import visible

Job = Callable[..., Result]


@dataclass(frozen=True)
class Verb:
    """A job: what it does in a line, its config, and how to get hold of it.

    ``dry_run``: it takes that keyword, and only tells then what it would do; ``probe``: and ``probed`` beside it, how
    many items it shall measure for that. ``placed``: the words of a command line → those that are keys, where it takes
    others too. ``ray``: its job imports Ray, which takes seconds. ``also``: jobs of its own beside it, by the word
    behind the verb.
    """

    summary: str
    config: type[BaseModel]
    job: Callable[[], Job]
    dry_run: bool = False
    probe: bool = False
    placed: Callable[[Sequence[str]], Sequence[str]] = list
    ray: bool = True
    also: Mapping[str, "Verb"] = field(default_factory=dict[str, "Verb"])


def _prepare() -> Job:
    from segjobs.jobs.prepare.job import prepare

    return prepare


def _train() -> Job:
    from segjobs.jobs.train.job import train

    return train


def _label() -> Job:
    from segjobs.jobs.label.job import label

    return label


def _evaluate() -> Job:
    from segjobs.jobs.evaluate.job import evaluate

    return evaluate


def _report() -> Job:
    from segjobs.jobs.report.job import report

    return report


def _export() -> Job:
    from segjobs.jobs.export.job import export

    return export


def _nightly() -> Job:
    from segjobs.jobs.nightly.job import nightly

    return nightly


def _edits() -> Job:
    from segjobs.jobs.edits.job import edits

    return edits


def _review() -> Job:
    from segjobs.jobs.review.job import review

    return review


def _collection() -> Job:
    from segjobs.jobs.collection.job import collection

    return collection


def _check() -> Job:
    from segjobs.jobs.check.job import check

    return check


def _demo() -> Job:
    from segjobs.jobs.demo.job import demo

    return demo


def _bench() -> Job:
    from segjobs.jobs.bench.job import bench

    return bench


def _bench_compare() -> Job:
    from segjobs.jobs.bench.compare import compare

    return compare


VERBS: dict[str, Verb] = {
    "prepare": Verb("labels of somebody's format → a manifest of truth", configs.PrepareConfig, _prepare, dry_run=True),
    "train": Verb("a manifest of truth → a model directory", configs.TrainConfig, _train),
    "label": Verb("images and a model → a manifest of masks", configs.LabelConfig, _label, dry_run=True),
    "evaluate": Verb("predictions and truth → scores with intervals, a gate", configs.EvaluateConfig, _evaluate),
    "report": Verb("an evaluation or a run → one HTML page", configs.ReportConfig, _report),
    "export": Verb("a manifest → COCO, CVAT, PNG, YOLO, …", configs.ExportConfig, _export, dry_run=True),
    "nightly": Verb(
        "images that come and go → a collection of masks", configs.NightlyConfig, _nightly, dry_run=True, probe=True
    ),
    "edits": Verb("people's corrections → a collection of masks", configs.EditsConfig, _edits, dry_run=True),
    "review": Verb("a collection of masks → tasks for people", configs.ReviewConfig, _review, dry_run=True, ray=False),
    "collection": Verb(
        "a collection of masks: look, add, compare, tidy",
        configs.CollectionConfig,
        _collection,
        dry_run=True,
        placed=configs.placed,
    ),
    "check": Verb(
        "a model, your own above all → a line for each thing it must hold", configs.CheckConfig, _check, ray=False
    ),
    "demo": Verb("all of it in minutes, offline, on scenes that it draws", configs.DemoConfig, _demo),
    "bench": Verb(
        "measure the pipeline against the bare model; bench compare A.json B.json: two benches",
        configs.BenchConfig,
        _bench,
        also={
            "compare": Verb(
                "two benches' figures against each other",
                configs.BenchCompareConfig,
                _bench_compare,
                placed=configs.compared,
                ray=False,
            )
        },
    ),
}


_KEYS = "keys: key=value here (input.uri=photos/, in short input=photos/), or nested in YAML (input: {uri: photos/})"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """What is wrong with the command line, which may hold names of files."""
        super().error(visible(message))


class _Stopped(BaseException):
    """A signal asked the process to end."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``segjobs``, with ``argv`` or the process's arguments; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what could follow
        import argcomplete

        argcomplete.autocomplete(_parser(complete=True))
    if words and words[0] in VERBS:
        return run_verb(words[0], words[1:], program=f"segjobs {words[0]}")
    commands = [*VERBS, "init", "completion"]
    if words and not words[0].startswith("-") and words[0] not in commands:
        sys.stderr.write(f"error: {words[0]!r} is no verb; {nearest(words[0], commands)}\n")
        return ExitCode.USAGE
    parser = _parser()
    arguments = parser.parse_args(words)
    if arguments.command == "init":
        sys.stdout.write(example(arguments.name))
    elif arguments.command == "completion":
        from argcomplete.shell_integration import shellcode

        sys.stdout.write(shellcode(["segjobs"], shell=arguments.shell))
    else:
        parser.print_help(sys.stderr)
        return ExitCode.USAGE
    return ExitCode.DONE


def verb_of(name: str, words: Sequence[str]) -> tuple[Verb, Sequence[str]]:
    """The verb that a command line means, or the job of its own that the first word is; and the other words."""
    verb = VERBS[name]
    return (verb.also[words[0]], words[1:]) if words and words[0] in verb.also else (verb, words)


def run_verb(name: str, argv: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """One verb with the config that ``argv`` or the process's arguments describe; returns the exit status.

    ``program``: what the help calls the command; None takes the script's name.
    """
    verb, given = verb_of(name, sys.argv[1:] if argv is None else argv)
    parser = _Parser(program, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_arguments(parser, verb)
    words = verb.placed(given)
    if problems := dashed(verb.config, words):
        return _refused(ConfigError(*problems))
    arguments = parser.parse_intermixed_args(words)
    if len(arguments.config) > 1:
        return _refused(ConfigError(f"command line: --config is given {len(arguments.config)} times; keep one"))
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        path = arguments.config[0] if arguments.config else None
        config = configs.load_config(verb.config, path, arguments.overrides)
        if not arguments.print_config:
            _check_folder()
    except SegjobsError as error:
        return _refused(error)
    if arguments.print_config:
        sys.stdout.write(configs.to_yaml(config))
        return ExitCode.DONE
    dry_run = verb.dry_run and arguments.dry_run
    probed = arguments.probe if verb.probe else None
    if probed is not None and not dry_run:
        return _refused(ConfigError("command line: --probe measures what --dry-run tells; add --dry-run"))
    how = {"dry_run": True, **({"probed": probed} if probed is not None else {})} if dry_run else {}
    told = (lambda text, code: None) if dry_run else partial(_tell, config, name)
    try:
        with _own_disk():
            with kept_for_the_result():
                with _importing(name) if verb.ray else nullcontext():
                    job = verb.job()
                result = job(config, **how)
            if dry_run or for_a_program():
                sys.stdout.write(result.text())
                sys.stdout.flush()
        told(result.text(), result.exit_code)
        return result.exit_code
    except SegjobsError as error:
        if for_a_program():
            sys.stdout.write(failure_text(error))
            sys.stdout.flush()
        code = _refused(error)
        told(failure_text(error), error.exit_code)
        return code
    except _Stopped:
        sys.stderr.write("stopped by a signal; what is published stays, and the same command continues:\n")
        sys.stderr.write(f"{visible(redact(shlex.join(sys.orig_argv)))}\n")
        told(ending_text("stopped by a signal; the same command continues", ExitCode.STOPPED), ExitCode.STOPPED)
        return ExitCode.STOPPED
    except Exception as error:
        told(ending_text(f"a bug: {type(error).__name__}: {error}", ExitCode.BUG), ExitCode.BUG)
        raise


def _check_folder() -> None:
    """Raises ConfigError where the current folder was deleted: torch and Ray's workers end without a word there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the current folder is gone; change to one that is there (cd /) and try again") from None


def _tell(config: BaseModel, verb: str, text: str, code: ExitCode) -> None:
    """Tell whom the config names how the verb ended; a signal meanwhile ends the telling, and not the result."""
    notify = getattr(config, "notify", None)
    if isinstance(notify, configs.NotifyConfig) and (notify.command or notify.webhook):
        from segjobs.notify import tell

        try:
            tell(notify, verb, text, code)
        except _Stopped:
            sys.stderr.write("notify: stopped by a signal; the job's result stands\n")


@contextmanager
def _own_disk() -> Generator[None]:
    """Raises StorageError for the machine's own disk, under whichever library: temporary files, home, Ray's folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRNOS:
            raise
        where = error.filename or tempfile.gettempdir()
        raise StorageError(f"{where}: {error.strerror}; free some space, or set TMPDIR") from error


def _refused(error: SegjobsError) -> int:
    for problem in error.problems if isinstance(error, ConfigError) else (str(error),):
        sys.stderr.write(f"error: {visible(problem)}\n")
    return error.exit_code


def _importing(name: str) -> AbstractContextManager[None]:
    from segjobs.jobs.engine.progress import importing  # not for --help

    return importing(name)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once: the way out must not be interrupted
    drop_output()  # Ray tells it of every worker that it ends on its way out
    raise _Stopped


def _add_arguments(parser: argparse.ArgumentParser, verb: Verb) -> argparse.ArgumentParser:
    parser.description = verb.config.__doc__
    parser.epilog = f"{_KEYS}\n{describe_keys(verb.config)}"
    parser.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        help="YAML file; `segjobs init VERB` prints a complete one",
    )
    overrides = parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, laid over the file")
    overrides.completer = Completer(verb.config)  # type: ignore[attr-defined]  # where argcomplete looks for it
    if verb.dry_run:
        parser.add_argument("--dry-run", action="store_true", help="list, plan, say what would be done; write nothing")
    if verb.probe:
        about = (
            "with --dry-run: label N of the images, throw the masks away, and tell by that what the whole would cost"
        )
        parser.add_argument("--probe", metavar="N", type=_count, help=about)
    parser.add_argument("--print-config", action="store_true", help="print the resolved config as YAML and stop")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of images; expected such as 64")
    return int(text)


def _parser(*, complete: bool = False) -> argparse.ArgumentParser:
    """The command's own parser. ``complete``: with all that each verb takes, for completions."""
    parser = _Parser(
        "segjobs",
        description="Batch image segmentation on Ray: label, score and look at very large image collections.",
        epilog="`segjobs VERB --help` has every key of a verb; `segjobs init VERB` prints its YAML file, commented.",
    )
    parser.add_argument("--version", action="version", version=f"segjobs {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="VERB", title="verbs")
    for name, verb in VERBS.items():
        one = commands.add_parser(name, help=verb.summary)
        if complete:
            _add_arguments(one, verb)
    init = commands.add_parser("init", help="print a verb's YAML file, with a comment for each key; onnx: a model.json")
    init.add_argument("name", metavar="VERB", choices=example_names(), help=", ".join(example_names()))
    completion = commands.add_parser("completion", help="print what makes a shell complete verbs and keys")
    completion.add_argument(
        "shell", choices=SHELLS, help='bash and zsh: eval "$(segjobs completion bash)" in the rc file'
    )
    return parser
