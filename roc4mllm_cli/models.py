"""`roc4mllm models`: what there is to score with."""

from .arguments import Commands


def add_command(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "models",
        help="list the families, their ranges and licences",
        description="List the model families: what they are, paper, score range, licences, a line to try.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
