"""`roc4mllm report`: scores to a page that can be shown to people."""

from .arguments import Commands, at_least


def add_command(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report",
        help="make a page of scores: the best, the worst, charts, failures",
        description="Make one HTML page of files that `roc4mllm score` wrote: contact sheets of the best and worst "
        "pictures, histograms, attributes, outliers, failures and a table to sort and search. The page holds all that "
        "it shows, opens from disk and loads nothing. Scores of different models or ranges are never mixed. Relative "
        "paths of pictures start from the current folder, as when they were scored; URLs are not fetched.",
        epilog="A picture stands out where its robust z-score exceeds 3.5: a large std, or an attribute far from what "
        "the score suggests.",
        allow_abbrev=False,
    )
    parser.add_argument("scores", nargs="+", metavar="SCORES", help="a .csv, .jsonl or .parquet file of `score`")
    parser.add_argument("-o", "--output", required=True, metavar="HTML", help="the .html file to write")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="what people said: a file of ratings as `evaluate` reads them, found by path or by file name "
        "(default: the column `label` of SCORES, if there is one)",
    )
    parser.add_argument(
        "--sheet", type=at_least(0), default=24, metavar="N", help="best and worst shown (default: 24)"
    )
    parser.add_argument(
        "--rows", type=at_least(0), default=2000, metavar="N", help="rows of the table (default: 2000)"
    )
