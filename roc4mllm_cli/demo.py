"""`roc4mllm demo`: a page to try a model on."""

from .arguments import HIGHEST_PORT, Commands, add_running_options, add_serving_options, at_least


def add_command(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo",
        help="open a page to try a model on",
        description="Serve a page: drop pictures, see their scores with levels and attributes, compare two, see what "
        "a score rests on, download the table. It is reached from this machine alone unless --host or --share say "
        "otherwise. Nothing is reported to anybody; uploads are deleted after 15 minutes and when the command ends.",
        allow_abbrev=False,
    )
    add_serving_options(parser)
    parser.add_argument(
        "--port", type=at_least(1, HIGHEST_PORT), metavar="N", help="port (default: the first free one from 7860)"
    )
    parser.add_argument("--share", action="store_true", help="open a public link too, through Gradio's server")
    parser.add_argument(
        "--max-files", type=at_least(1), default=20, metavar="N", help="pictures scored at once (default: 20)"
    )
    parser.add_argument(
        "--max-megabytes", type=at_least(1), default=20, metavar="N", help="size of one picture (default: 20)"
    )
    add_running_options(parser)
