"""
The console script `roc4mllm`: it parses, and imports the package only to run.

`--help`, `--version` and a wrong option answer at once, because torch and transformers (5 to 9 s) are imported by
`roc4mllm.cli.<command>` alone. To add a command: one function `add_<command>` here, its name in `COMMANDS`, and a
module `roc4mllm/cli/<command>.py` with `run(args) -> int`.

Exit codes: 0 done, 1 done with failures (`score --strict`, `filter --copy-to`), 2 the user has to change something,
130 interrupted. What a user can cause is raised as ValueError, OSError or ImportError and ends as one line.
"""

import argparse
import importlib
import importlib.metadata
import io
import math
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, TypeAlias


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all errors of this command are."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the message, without the usage block that would push it off the screen."""
        self.exit(2, f"roc4mllm: error: {printable(message)} (see: {self.prog} --help)\n")


# argparse has no public name for what `add_subparsers` returns.
Commands: TypeAlias = "argparse._SubParsersAction[OneLineParser]"


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command.

    Args:
        argv (sequence of `str`, *optional*, defaults to the arguments of the process):
            The arguments after the program's name.

    Returns:
        `int`: the exit code.

    Raises:
        SystemExit: After `--help` and `--version` (code 0), and for arguments that cannot be parsed (code 2).
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may not fit the terminal's encoding
    args = build_parser().parse_args(argv)
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when transformers is imported
    try:
        command = importlib.import_module(f"roc4mllm.cli.{args.command}")
        code: int = command.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("roc4mllm: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone (`roc4mllm score … | head`): nothing to report, and Python must not flush again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ImportError) as error:
        if args.traceback:
            raise
        print(f"roc4mllm: error: {describe(error)}", file=sys.stderr)
        return 2
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = OneLineParser(
        prog="roc4mllm",
        description="Image aesthetics assessment: a picture goes in, a score in declared units comes out.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from, for bug reports")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for add_command in COMMANDS:
        add_command(commands)
    return parser


def add_score(commands: Commands) -> None:
    """`roc4mllm score`: pictures to scores."""
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
    parser.add_argument("--batch-size", type=at_least(1), default=8, metavar="N", help="pictures at once (default: 8)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, … (default: the model's own choice)")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="dtype of the weights")
    parser.add_argument("--num-workers", type=at_least(0), default=0, metavar="N", help="processes that read pictures")
    parser.add_argument("--recursive", action="store_true", help="search the sub-folders of folders too")
    parser.add_argument("--strict", action="store_true", help="exit with code 1 if any input failed")
    parser.add_argument("--alias", metavar="NAME", help="write the score a second time as NAME, as in aesthetic_score")
    parser.add_argument("--personal", metavar="FILE", help="score by one person's taste, which `personalize` wrote")
    parser.add_argument("--allow-untrained", action="store_true", help="score with a head that was never trained")


def add_filter(commands: Commands) -> None:
    """`roc4mllm filter`: scores to the pictures worth keeping."""
    parser = commands.add_parser(
        "filter",
        help="pick pictures by their scores",
        description="Pick the best pictures from a file that `roc4mllm score` wrote, best first, ties in file order. "
        "Rows with an error never pass. Relative paths start from the current folder, as when they were scored.",
        epilog="A copied or linked picture whose name is taken gets a number (cat.jpg, cat-2.jpg); nothing is ever "
        "overwritten, moved or changed. Exit code 1 if a picture could not be copied or linked.",
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
    action.add_argument("--symlink-to", metavar="DIR", help="put symbolic links to the pictures into DIR")
    # Not -0 as elsewhere: beside an option that looks like a number, argparse refuses `--min-score -1`.
    parser.add_argument("-z", "--null", action="store_true", help="end the paths of --list with NUL, for xargs -0")
    parser.add_argument("--alias", metavar="NAME", help="the column to compare (default: score, else aesthetic_score)")


def add_train(commands: Commands) -> None:
    """`roc4mllm train`: ratings to a scorer."""
    parser = commands.add_parser(
        "train",
        help="train a scorer on your own ratings",
        description="Train a scorer on rated pictures: put a score head on a multimodal LLM (all weights, or LoRA), "
        "begin a TANet, EAT or ELTA with fresh weights, or train a scorer on. Data, settings and output folder are "
        "checked before the first step.",
        epilog="Settings come from CONFIG, then from flags. CONFIG and --set take every option of SplitLossConfig, "
        "which has those of transformers' TrainingArguments; a name that is unknown is refused with the nearest known "
        "one. Several devices: accelerate launch -m roc4mllm_cli train …",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,  # a flag that is not given must not overwrite the file's setting
    )
    parser.add_argument("config", nargs="?", default=None, metavar="CONFIG", help="a YAML file of settings")
    data = parser.add_argument_group("data")
    data.add_argument("--data", help="rated pictures: .csv (path,score will do), .jsonl, .json, .parquet, a folder, …")
    data.add_argument("--split", help="part of a data set, as in train")
    data.add_argument("--pictures", metavar="DIR", help="folder that relative paths start from")
    data.add_argument("--eval-data", metavar="DATA", help="rated pictures to judge on")
    data.add_argument("--eval-split", metavar="SPLIT", help="part of that data set")
    data.add_argument("--eval-share", type=share, metavar="Q", help="or this share of --data (default: 0.1; 0: none)")
    data.add_argument("--attributes", type=names, metavar="A,B", help="what the columns rate, the main one first")
    data.add_argument("--score-range", type=number, nargs=2, metavar=("LOW", "HIGH"), help="units of the scores")
    data.add_argument("--skip-bad-rows", metavar="FILE", help="write bad rows to FILE (CSV) instead of stopping")
    model = parser.add_argument_group("model")
    model.add_argument(
        "-m",
        "--model",
        help="multimodal LLM or scorer: a Hub name or a folder (default: the bundled); or eat-tiny, tanet, …: fresh",
    )
    model.add_argument("-o", "--output-dir", metavar="DIR", help="folder of the trained scorer (default: scorer)")
    model.add_argument("--num-levels", type=at_least(2), metavar="N", help="levels of a new score head (default: 10)")
    model.add_argument("--lora", action="store_true", help="train low-rank adapters: tens of MB, far less memory")
    model.add_argument("--lora-rank", type=at_least(1), metavar="R", help="their rank (default: 16)")
    model.add_argument("--load-in-4bit", action="store_true", help="hold the frozen weights in 4 bits (QLoRA)")
    model.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="dtype of the weights")
    model.add_argument("--attn-implementation", metavar="NAME", help="sdpa, flash_attention_2, …")
    training = parser.add_argument_group("training")
    training.add_argument("--loss-preset", metavar="NAME", help="paper (default), paper-ava, authors-script, emd")
    training.add_argument("--num-train-epochs", "--epochs", type=number, metavar="N", help="passes (default: 2)")
    training.add_argument("--max-steps", type=at_least(1), metavar="N", help="stop after N steps instead")
    training.add_argument(
        "--per-device-train-batch-size", "--batch-size", type=at_least(1), metavar="N", help="pictures (default: 16)"
    )
    training.add_argument("--gradient-accumulation-steps", type=at_least(1), metavar="N", help="batches per step")
    training.add_argument("--learning-rate", type=number, metavar="X", help="default: 2e-5, with --lora 2e-4")
    training.add_argument("--freeze", type=names, metavar="A,B", help="parts that are not trained, as in vision_tower")
    training.add_argument("--report-to", metavar="NAME", help="tensorboard, trackio, wandb (default: none)")
    training.add_argument("--seed", type=at_least(0), metavar="N", help="of order and drawn weights (default: 42)")
    training.add_argument(
        "--self-training", type=at_least(1), metavar="ROUNDS", help="then learn on from --unlabelled"
    )
    training.add_argument("--unlabelled", metavar="DATA", help="pictures without ratings: a folder, a table of paths")
    training.add_argument("--pick-threshold", type=share, metavar="Q", help="how sure to be of one (default: 0.8)")
    training.add_argument("--sharpening", type=number, metavar="B", help="ELTA's beta (default: 1)")
    training.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the folder")
    training.add_argument("--tune", type=at_least(1), metavar="N", help="try N settings of search_space (optuna)")
    training.add_argument("--set", action="append", metavar="NAME=VALUE", default=None, help="any other option")
    training.add_argument("--dry-run", action="store_true", default=False, help="check and describe, train nothing")


def add_evaluate(commands: Commands) -> None:
    """`roc4mllm evaluate`: a model against rated pictures."""
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
    parser.add_argument("--pictures", metavar="DIR", help="folder of the pictures (default: that of the file)")
    parser.add_argument("--attributes", type=names, metavar="A,B", help="what to compare (default: all that is rated)")
    parser.add_argument("--by", metavar="COLUMN", help="also compare within each value of a column, as in theme")
    parser.add_argument(
        "--cut", type=number, metavar="X", help="score that divides good from bad (default: the middle; 5 for AVA)"
    )
    parser.add_argument(
        "--score-range", type=number, nargs=2, metavar=("LOW", "HIGH"), help="range of the ratings, if not in the data"
    )
    parser.add_argument("--rescale", action="store_true", help="map predictions linearly to the range of the ratings")
    parser.add_argument("--skip-bad-rows", metavar="FILE", help="write rows that cannot be used to FILE and go on")
    parser.add_argument("--allow-leak", action="store_true", help="go on if the model was trained on these pictures")
    parser.add_argument("--bootstraps", type=at_least(0), default=1000, metavar="N", help="resamples (default: 1000)")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the resamples (default: 0)")
    parser.add_argument("--batch-size", type=at_least(1), default=8, metavar="N", help="pictures at once (default: 8)")
    parser.add_argument("--num-workers", type=at_least(0), default=0, metavar="N", help="processes that read pictures")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, … (default: the model's own choice)")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="dtype of the weights")
    parser.add_argument("--allow-untrained", action="store_true", help="accept a head that was never trained")


def add_convert(commands: Commands) -> None:
    """`roc4mllm convert`: an original checkpoint to a native folder."""
    parser = commands.add_parser(
        "convert",
        help="convert an original checkpoint",
        description="Write a native folder with the weights of a checkpoint in its authors' format: roc4mllm for the "
        "published ROC4MLLM, level-words for OneAlign, Q-Align and DeQA-Score, which name a level in a word, each "
        "from a folder, file by file; tanet, eat and elta from a file of weights. DST appears when it is complete.",
        epilog="`roc4mllm score -m Ricardo-M/ROC4MLLM` converts by itself, into the cache. A TANet trained on AVA "
        "lacks statistics of pictures; --calibrate measures them, and the card tells what they change.",
        allow_abbrev=False,
    )
    families = ("roc4mllm", "level-words", "tanet", "eat", "elta")
    parser.add_argument("family", choices=families, metavar="FAMILY", help=", ".join(families))
    parser.add_argument("source", metavar="SRC", help="folder with config.json, weights and tokenizer.model; or .pth")
    parser.add_argument("destination", metavar="DST", help="new folder")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of a folder's weights (default: as they are)"
    )
    parser.add_argument(
        "--attribute", choices=("aesthetics", "quality"), help="what level-words asks for (default: aesthetics)"
    )
    parser.add_argument("--variant", choices=("AVA", "TAD66K"), help="which head, if an elta file holds two")
    parser.add_argument("--calibrate", metavar="DIR", help="pictures for tanet, a few hundred like those to be scored")


def add_personalize(commands: Commands) -> None:
    """`roc4mllm personalize`: one person's ratings to their own scorer."""
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
    parser.add_argument("--pictures", metavar="DIR", help="folder of the pictures (default: that of the file)")
    parser.add_argument("--skip-bad-rows", metavar="FILE", help="write rows that cannot be used to FILE and go on")
    parser.add_argument("--batch-size", type=at_least(1), default=8, metavar="N", help="pictures at once (default: 8)")
    parser.add_argument("--num-workers", type=at_least(0), default=0, metavar="N", help="processes that read pictures")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, … (default: the model's own choice)")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="dtype of the weights")
    parser.add_argument("--allow-untrained", action="store_true", help="accept a head that was never trained")


def add_explain(commands: Commands) -> None:
    """`roc4mllm explain`: what a model looked at."""
    parser = commands.add_parser(
        "explain",
        help="draw what a score rests on",
        description="Draw over a photograph what the model looked at, and beside it the score and its levels. "
        "ROC4MLLM: attention from the score position to the image. EAT: sampling points and where they were moved "
        "from. TANet: how alike the colours are. Other models: how strongly the score reacts to each part.",
        allow_abbrev=False,
    )
    parser.add_argument("image", metavar="IMAGE", help="a picture or a URL")
    parser.add_argument("-m", "--model", help="model or adapter: a Hub name or a folder (default: the bundled one)")
    parser.add_argument("-o", "--output", required=True, metavar="PNG", help="the .png file to write")
    parser.add_argument("--attribute", metavar="NAME", help="which score (default: the model's main attribute)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, … (default: the model's own choice)")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="dtype of the weights")
    parser.add_argument("--allow-untrained", action="store_true", help="explain a head that was never trained")


def add_data(commands: Commands) -> None:
    """`roc4mllm data`: a raw download to a data set in one schema."""
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


def add_publish(commands: Commands) -> None:
    """`roc4mllm publish`: a folder to the Hub."""
    parser = commands.add_parser(
        "publish",
        help="upload a model, an adapter or a data set to the Hub",
        description="Upload a folder as one commit: a model or adapter with its code, safetensors and a card, or a "
        "data set with the card it has. Before that a model is loaded in a fresh process without roc4mllm and scores "
        "a picture. Pickles, scripts and paths of this machine are refused by name.",
        epilog="HF_TOKEN (or hf auth login) says who you are, HF_ENDPOINT which Hub; one that has no Xet storage "
        "needs HF_HUB_DISABLE_XET=1. Where a connection broke, publish again: what arrived is not sent twice. Prints "
        "the address of the commit.",
        allow_abbrev=False,
    )
    parser.add_argument("kind", choices=("model", "dataset"), metavar="KIND", help="model (or adapter), dataset")
    parser.add_argument("folder", metavar="DIR", help="what save_pretrained, train, convert or data wrote")
    parser.add_argument("repo", metavar="REPO", help="user/name on the Hub, made if need be")
    seen = parser.add_mutually_exclusive_group()
    private = "for you alone (default for data whose terms are not known to let others have them)"
    seen.add_argument("--private", action="store_true", default=None, help=private)
    seen.add_argument("--public", dest="private", action="store_false", default=None, help="for everybody")
    parser.add_argument("--revision", metavar="BRANCH", help="branch, made if need be (default: main)")
    parser.add_argument("--commit-message", metavar="TEXT", help="of the commit")
    parser.add_argument("--evaluation", metavar="FILE", help="metrics.json of `evaluate -o`, for the card of a model")
    parser.add_argument("--license", metavar="ID", help="of the weights, for the card, as in apache-2.0")
    parser.add_argument("--new-card", action="store_true", help="write a card where the model has one")
    parser.add_argument("--skip-check", action="store_true", help="upload without trying it first")
    parser.add_argument("--yes", action="store_true", help="confirm that these data may be uploaded")
    parser.add_argument("--dry-run", action="store_true", help="show what would happen; no network is used")


def add_models(commands: Commands) -> None:
    """`roc4mllm models`: what there is to score with."""
    parser = commands.add_parser(
        "models",
        help="list the families, their ranges and licences",
        description="List the model families: what they are, paper, score range, licences, a line to try.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


COMMANDS = (
    add_score, add_filter, add_train, add_evaluate, add_personalize, add_explain, add_convert, add_data, add_publish,
    add_models,
)  # fmt: skip


class Version(argparse.Action):
    """`--version`: looked up only when asked for, from the installed package's metadata (no import of the package)."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print and exit."""
        try:
            version = importlib.metadata.version("roc4mllm")
        except importlib.metadata.PackageNotFoundError:
            version = "of a source folder that is not installed"
        print(f"roc4mllm {version}")
        parser.exit()


def at_least(lowest: int) -> "argparse._ActionType":
    """A parser of whole numbers that are at least `lowest`."""

    def whole_number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {lowest}, got {text!r}")
        return int(text)

    return whole_number


def number(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1 (0.9 keeps the best tenth), got {text!r}")
    return value


def names(text: str) -> list[str]:
    """Distinct names separated by commas."""
    found = [name.strip() for name in text.split(",")]
    if "" in found or len(set(found)) != len(found):
        raise argparse.ArgumentTypeError(f"expected distinct names separated by commas, got {text!r}")
    return found


def describe(error: Exception) -> str:
    """An error in one line; those of the operating system without their number."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return printable(f"{error.filename!r}: {error.strerror}")
    if hasattr(error, "bad_rows"):  # one line for each of them
        return "\n".join(map(printable, str(error).splitlines()))
    return printable(str(error))


def printable(text: str) -> str:
    """One line that a terminal shows as it is: messages quote file names, which may hold control characters."""
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


if __name__ == "__main__":
    sys.exit(main())
