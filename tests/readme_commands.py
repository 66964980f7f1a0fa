"""Commands as the readme tells them, so that none of them can go stale."""

import re
import shlex
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def readme_commands(beginning: str) -> list[list[str]]:
    """The words of each command of the readme that begins so, in its order."""
    text = README.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines if line.startswith(beginning)]
    assert found, f"the readme has no command {beginning!r}"
    return found
