"""`roc4mllm personalize`: one person's ratings to their own scorer."""

from .arguments import Commands, add_batch_options, add_rating_options, add_running_options, number


def add_command(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "personalize",
        help="fit a scorer to one person's ratings",
        description="Fit a small head on a model's features to 10 or 100 ratings of one person, and write it to a "
        "file of a few kB for `roc4mllm score --personal`. The model stays as it is. Prints how well the personal "
        "score ranks pictures that the head never saw, beside the general score.",
        epilog="RATINGS has path and score, as for `evaluate`. A column rater (or rater_id, worker, user) tells "
        "several people apart. A picture that cannot be scored is named and left out.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="a Hub name, a folder, or roc4mllm-tiny (the bundled one)")
    parser.add_argument(
        "ratings", metavar="RATINGS", help="a .csv, .json, .jsonl or .parquet file with path and score"
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--rater", metavar="NAME", help="whose ratings to take, where they are of several people")
    parser.add_argument("--attribute", metavar="NAME", help="what was rated (default: the model's main attribute)")
    parser.add_argument(
        "--score-range", type=number, nargs=2, metavar=("LOW", "HIGH"), help="range of the ratings, if not the model's"
    )
    add_rating_options(parser)
    add_batch_options(parser)
    add_running_options(parser)
