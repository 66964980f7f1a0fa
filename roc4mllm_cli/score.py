"""`roc4mllm score`: pictures to scores."""

from .arguments import Commands, add_batch_options, add_running_options, names


def add_command(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "score",
        help="score pictures, folders and globs",
        description="Score pictures: one row per input, in input order. A picture that cannot be scored is a row with "
        "an error text and no score. Pictures are only read.",
        epilog="Without -o: a table on a terminal, one JSON object per line into a pipe. The columns are path, score, "
        "normalized, std, score_min, score_max, further attributes, model, revision, version, error; with "
        "--personal also general_score.",
        allow_abbrev=False,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a picture, a folder, a quoted glob or a URL")
    parser.add_argument("-m", "--model", help="model or adapter: a Hub name or a folder (default: the bundled one)")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to FILE: .csv, .jsonl or .parquet")
    parser.add_argument("--attributes", type=names, metavar="A,B", help="what to score (default: all of the model's)")
    add_batch_options(parser)
    add_running_options(parser)
    parser.add_argument("--recursive", action="store_true", help="search the sub-folders of folders too")
    parser.add_argument("--strict", action="store_true", help="exit with code 1 if any input failed")
    parser.add_argument("--alias", metavar="NAME", help="write the score a second time as NAME, as in aesthetic_score")
    parser.add_argument("--personal", metavar="FILE", help="score by one person's taste, which `personalize` wrote")
