"""`roc4mllm filter`: scores to the pictures worth keeping."""

from .arguments import Commands, at_least, number, share


def add_command(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "filter",
        help="pick pictures by their scores",
        description="Pick the best pictures from a file that `roc4mllm score` wrote, best first, ties in file order. "
        "Rows with an error never pass. Relative paths start from the current folder, as when they were scored.",
        epilog="A copied or linked picture whose name is taken gets a number (cat.jpg, cat-2.jpg); nothing is ever "
        "overwritten, moved or changed. Pictures inside tar shards and Parquet files are copied out of them. Exit "
        "code 1 if a picture could not be copied or linked.",
        allow_abbrev=False,
    )
    parser.add_argument("scores", metavar="SCORES", help="a .csv, .jsonl or .parquet file with path and score")
    rule = parser.add_mutually_exclusive_group(required=True)
    rule.add_argument("--top-k", type=at_least(1), metavar="N", help="the N best")
    rule.add_argument(
        "--quantile",
        type=share,
        metavar="Q",
        help="those at or above the Q-quantile: 0.9 keeps the best tenth (within each model, if there are several)",
    )
    rule.add_argument("--min-score", type=number, metavar="S", help="those that reach S, in the units of the file")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--list", action="store_true", help="print the paths, one a line (the default)")
    action.add_argument("--copy-to", metavar="DIR", help="copy the pictures into DIR")
    action.add_argument("--symlink-to", metavar="DIR", help="put symbolic links to the files into DIR")
    # Not -0 as elsewhere: beside an option that looks like a number, argparse refuses `--min-score -1`.
    parser.add_argument("-z", "--null", action="store_true", help="end the paths of --list with NUL, for xargs -0")
    parser.add_argument("--alias", metavar="NAME", help="the column to compare (default: score, else aesthetic_score)")
