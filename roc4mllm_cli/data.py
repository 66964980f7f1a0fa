"""`roc4mllm data`: a raw download to a data set in one schema."""

from .arguments import Commands, at_least, names, number


def add_command(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "data",
        help="convert the raw download of a data set",
        description="Write a folder of Parquet files in one schema, with a card and report.json, that load_dataset, "
        "train and evaluate read as it is. Rows that cannot be written are counted and listed. OUT_DIR appears when "
        "it is complete; an interrupted run goes on when it is started again.",
        epilog="roc4mllm data --list shows names, protocols and terms. Without --max-side pictures keep their bytes.",
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a data set, as in ava; csv for any table")
    parser.add_argument("raw_dir", nargs="?", metavar="RAW_DIR", help="its download; for csv, a folder or the table")
    parser.add_argument("out_dir", nargs="?", metavar="OUT_DIR", help="new folder")
    parser.add_argument("--list", action="store_true", help="show what can be converted")
    parser.add_argument("--protocol", metavar="NAME", help="division into splits (default: the usual one)")
    parser.add_argument("--max-side", type=at_least(1), metavar="N", help="make longer pictures smaller, in pixels")
    parser.add_argument("--workers", type=at_least(1), metavar="N", help="processes (default: one per core, up to 8)")
    parser.add_argument("--strict", action="store_true", help="stop at rows that cannot be written")
    table = parser.add_argument_group("csv")
    table.add_argument("--score-range", type=number, nargs=2, metavar=("LOW", "HIGH"), help="units of the scores")
    table.add_argument("--column", action="append", metavar="ROLE=COLUMN", help="a column of another name: score=MOS")
    table.add_argument("--attributes", type=names, metavar="A,B", help="further columns that were rated")
    table.add_argument("--source", metavar="NAME", help="what the data set is called (default: csv)")
