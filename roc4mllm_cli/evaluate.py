"""`roc4mllm evaluate`: a model against rated pictures."""

from .arguments import Commands, add_batch_options, add_rating_options, add_running_options, at_least, names, number


def add_command(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        help="compare a model's scores with ratings",
        description="Score rated pictures and compare: SRCC, PLCC raw and after a logistic fit, KRCC, MAE, RMSE, "
        "accuracy at a cut and EMD (where votes exist) with 95 % bootstrap intervals, and errors by segment of the "
        "labels. A picture that cannot be scored is counted and listed, and is in no metric.",
        epilog="The table goes to stdout. Columns are found by name: path (or image), score (or mean, mos, rating), "
        "votes or r1 … r7, and one per further attribute. Exit code 1 if no picture could be scored.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="a Hub name, a folder, or roc4mllm-tiny (the bundled one)")
    parser.add_argument("data", metavar="DATA", help="a .csv, .json, .jsonl or .parquet file, a folder, or a data set")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="also write metrics.json, predictions.csv and plots")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--split", metavar="NAME", help="split of the data, as in test")
    add_rating_options(parser)
    parser.add_argument("--attributes", type=names, metavar="A,B", help="what to compare (default: all that is rated)")
    parser.add_argument("--by", metavar="COLUMN", help="also compare within each value of a column, as in theme")
    parser.add_argument(
        "--cut", type=number, metavar="X", help="score that divides good from bad (default: the middle; 5 for AVA)"
    )
    parser.add_argument(
        "--score-range", type=number, nargs=2, metavar=("LOW", "HIGH"), help="range of the ratings, if not in the data"
    )
    parser.add_argument("--rescale", action="store_true", help="map predictions linearly to the range of the ratings")
    parser.add_argument("--allow-leak", action="store_true", help="go on if the model was trained on these pictures")
    parser.add_argument("--bootstraps", type=at_least(0), default=1000, metavar="N", help="resamples (default: 1000)")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the resamples (default: 0)")
    add_batch_options(parser)
    add_running_options(parser)
