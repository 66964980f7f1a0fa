"""What the parsers of several commands share."""

import argparse
import math
from typing import Any, TypeAlias

# argparse has no public name for what `add_subparsers` returns.
Commands: TypeAlias = "argparse._SubParsersAction[Any]"
HIGHEST_PORT = 65_535  # of a larger number the system would take the lower 16 bits

# Read when torch is imported. Its threads wait for each other by spinning (GNU OpenMP: 300 000 turns), which takes
# the cores from whoever reads pictures meanwhile: with 8 000 the service gives more pictures per second. With none it
# gives more still, but a single request takes longer (benchmarks/serve.py).
PATIENT_THREADS = {"GOMP_SPINCOUNT": "8000"}


def add_batch_options(parser: argparse.ArgumentParser, workers: int | None = 0) -> None:
    """How many pictures at once, and who reads them; as many workers as pay if `workers` is None."""
    told = "" if workers == 0 else " (default: one per core, up to 8; none for a few)"
    parser.add_argument("--batch-size", type=at_least(1), default=8, metavar="N", help="pictures at once (default: 8)")
    parser.add_argument(
        "--num-workers", type=at_least(0), default=workers, metavar="N", help=f"processes that read pictures{told}"
    )


def add_running_options(parser: argparse.ArgumentParser) -> None:
    """Where and how a model runs, and whether it may be one that was never trained."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, … (default: the model's own choice)")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="dtype of the weights")
    parser.add_argument("--allow-untrained", action="store_true", help="accept a head that was never trained")


def add_serving_options(parser: argparse.ArgumentParser) -> None:
    """Which model stands behind a service or a page, and where it is reached."""
    parser.add_argument("-m", "--model", help="model or adapter: a Hub name or a folder (default: the bundled one)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")


def add_rating_options(parser: argparse.ArgumentParser) -> None:
    """Where the pictures of a file of ratings are, and what becomes of rows that cannot be used."""
    parser.add_argument("--pictures", metavar="DIR", help="folder of the pictures (default: that of the file)")
    parser.add_argument("--skip-bad-rows", metavar="FILE", help="write rows that cannot be used to FILE and go on")


def at_least(lowest: int, highest: float = math.inf) -> "argparse._ActionType":
    """A parser of whole numbers from `lowest` to `highest`."""
    told = f"at least {lowest}" + (f", at most {highest}" if highest < math.inf else "")

    def whole_number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"expected a whole number of {told}, got {text!r}")
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


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, as in 0.9, got {text!r}")
    return value


def names(text: str) -> list[str]:
    """Distinct names separated by commas."""
    found = [name.strip() for name in text.split(",")]
    if "" in found or len(set(found)) != len(found):
        raise argparse.ArgumentTypeError(f"expected distinct names separated by commas, got {text!r}")
    return found
