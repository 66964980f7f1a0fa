"""
The console script `roc4mllm`: it parses, and imports the package only to run.

`--help`, `--version` and a wrong option answer at once, because torch and transformers (5 to 9 s) are imported by
`roc4mllm.cli.<command>` alone; this package therefore stands outside `roc4mllm`. To add a command: a module
`<command>.py` here with `add_command(commands)`, its name in `COMMANDS`, and a module `roc4mllm/cli/<command>.py` with
`run(args) -> int`.

Exit codes: 0 done, 1 done with failures (`score --strict`, `filter --copy-to`), 2 the user has to change something,
130 interrupted. What a user can cause is raised as ValueError, OSError or ImportError and ends as one line.
"""

import argparse
import importlib
import importlib.metadata
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import convert, data, demo, evaluate, explain, filter, models, personalize, publish, report, score, serve, train

# as --help lists them
COMMANDS = (
    score, filter, report, serve, demo, train, evaluate, personalize, explain, convert, data, publish, models,
)  # fmt: skip


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all errors of this command are."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the message, without the usage block that would push it off the screen."""
        self.exit(2, f"roc4mllm: error: {printable(message)} (see: {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command.

    Args:
        argv (sequence of `str`, *optional*, defaults to the arguments of the process):
            The arguments after the program's name.

    Returns:
        `int`: the exit code.

    Raises:
        SystemExit: After `--help` and `--version` (code 0), and for arguments that cannot be parsed (code 2).
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may not fit the terminal's encoding
    args = parse(argv)
    args.owns_process = argv is None  # else settings of the whole process are the caller's
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when transformers is imported
    for name, value in getattr(args, "environment", {}).items():
        os.environ.setdefault(name, value)
    try:
        command = importlib.import_module(f"roc4mllm.cli.{args.command}")
        code: int = command.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("roc4mllm: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone (`roc4mllm score … | head`): nothing to report, and Python must not flush again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ImportError) as error:
        if args.traceback:
            raise
        print(f"roc4mllm: error: {describe(error)}", file=sys.stderr)
        return 2
    return code


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, with the inputs behind options that argparse does not take: `b.jpg` in `a.jpg -o s.csv b.jpg`."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    words = {"score": "paths", "report": "scores"}.get(args.command)
    if words and not any(word.startswith("-") for word in rest):
        getattr(args, words).extend(rest)
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = OneLineParser(
        prog="roc4mllm",
        description="Image aesthetics assessment: a picture goes in, a score in declared units comes out.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from, for bug reports")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for command in COMMANDS:
        command.add_command(commands)
    return parser


class Version(argparse.Action):
    """`--version`: looked up only when asked for, from the installed package's metadata (no import of the package)."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print and exit."""
        try:
            version = importlib.metadata.version("roc4mllm")
        except importlib.metadata.PackageNotFoundError:
            version = "of a source folder that is not installed"
        print(f"roc4mllm {version}")
        parser.exit()


def describe(error: Exception) -> str:
    """An error in one line; those of the operating system without their number."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return printable(f"{error.filename!r}: {error.strerror}")
    if hasattr(error, "bad_rows"):  # one line for each of them
        return "\n".join(map(printable, str(error).splitlines()))
    return printable(str(error))


def printable(text: str) -> str:
    """One line that a terminal shows as it is: messages quote file names, which may hold control characters."""
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


if __name__ == "__main__":
    sys.exit(main())
