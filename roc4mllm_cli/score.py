"""`roc4mllm score`: pictures to scores."""

import argparse

from .arguments import (
    PATIENT_THREADS,
    Commands,
    above_zero,
    add_batch_options,
    add_running_options,
    at_least,
    names,
    number,
)


def add_command(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "score",
        help="score pictures, folders, shards and data sets",
        description="Score pictures: one row per input, in input order. A picture that cannot be scored is a row with "
        "an error text and no score. Pictures are only read.",
        epilog="Without -o: a table on a terminal, one JSON object per line into a pipe. The columns are path, score, "
        "normalized, std, score_min, score_max, further attributes, attribute, model, revision, version, error; with "
        "--personal also general_score, with --cascade fast_score, fast_model and fast_revision. Rows are written as "
        "they come, beside FILE, which appears when it is complete. Names on stdin are read ahead, for some seconds "
        "if they come slowly; --num-workers 0 --batch-size 1 scores each one when it comes.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="a picture, folder, quoted glob, .tar shard or .parquet file with bytes of pictures, also in a store "
        "(s3://, gs://, hf://, …); an http(s) URL of a picture; - for names on stdin, one a line",
    )
    parser.add_argument("-m", "--model", help="model or adapter: a Hub name or a folder (default: the bundled one)")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write to FILE: .csv, .jsonl or .parquet; or to a folder/ of Parquet parts",
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep the rows that FILE or an interrupted run has, failed ones too"
    )
    parser.add_argument(
        "--attributes", type=names, metavar="A,B", help="what to tell, the score first (default: all of the model's)"
    )
    add_batch_options(parser, workers=None)
    add_running_options(parser)
    parser.add_argument("--recursive", action="store_true", help="search the sub-folders of folders too")
    parser.add_argument("--dataset", metavar="NAME", help="score a data set instead: a Hub name or a folder")
    parser.add_argument("--config", metavar="NAME", help="config of the data set, if it has several")
    parser.add_argument("--split", metavar="NAME", help="split of the data set, as in test")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of the data set on the Hub")
    parser.add_argument(
        "-z", "--null", action="store_true", help="names on stdin end with NUL, as find -print0 has it"
    )
    parser.add_argument("--strict", action="store_true", help="exit with code 1 if any input failed")
    parser.add_argument("--alias", metavar="NAME", help="write the score a second time as NAME, as in aesthetic_score")
    parser.add_argument("--personal", metavar="FILE", help="score by one person's taste, which `personalize` wrote")
    parser.add_argument(
        "--cascade",
        metavar="FAST_MODEL",
        help="a faster model that scores everything; MODEL then scores only what lies in the band",
    )
    parser.add_argument(
        "--band", type=number, nargs=2, metavar=("LOW", "HIGH"), help="scores of FAST_MODEL that are looked at again"
    )
    add_cluster_options(parser.add_argument_group("on a cluster"))
    parser.set_defaults(environment=PATIENT_THREADS)


def add_cluster_options(group: argparse._ArgumentGroup) -> None:
    """Who scores, if not this process."""
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: score by Ray Data on the cluster at RAY_ADDRESS, or else on this machine (default: local)",
    )
    group.add_argument(
        "--actors",
        type=at_least(1),
        nargs=2,
        metavar=("MIN", "MAX"),
        help="processes that each hold the model (default: from 1 to what there is room for)",
    )
    group.add_argument("--num-cpus", type=above_zero, metavar="N", help="CPUs of each of them (default: 1)")
    group.add_argument(
        "--num-gpus", type=above_zero, metavar="N", help="GPUs of each of them, as in 0.25 (default: none)"
    )
