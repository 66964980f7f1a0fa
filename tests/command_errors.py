"""How a command tells what the user has to change."""

from typing import Any

from roc4mllm_cli import main


def error_line(capsys: Any, *arguments: str) -> str:
    """The message: the last line and the only one of ours, with exit code 2, nothing on stdout, no page of usage."""
    capsys.readouterr()
    try:
        code = main(list(arguments))
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    lines = printed.err.splitlines()
    assert lines[-1].startswith("roc4mllm: error: ")
    assert not [line for line in lines[:-1] if line.startswith(("roc4mllm: ", "usage: ", "Traceback"))]
    return lines[-1]
