"""`roc4mllm data`: a raw download to a folder that `datasets.load_dataset`, `train` and `evaluate` read."""

import argparse
import sys
from typing import TYPE_CHECKING

from ..inference.tables.score_table import shown
from .cores import workers_that_pay
from .interruption import exit_when_told

if TYPE_CHECKING:
    from ..datasets_scripts.convert import Report
    from ..datasets_scripts.data_set import DataSet

GENERIC = "csv"


def run(args: argparse.Namespace) -> int:
    """Convert `args.raw_dir`, or list what can be converted; always 0."""
    try:
        from ..datasets_scripts import convert, registry
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("datasets", "pyarrow"):
            raise
        raise ImportError('data sets need datasets and pyarrow: pip install "roc4mllm[data]"') from error
    if args.list:
        print("\n".join(listing(registry.DATA_SETS)))
        return 0
    if args.out_dir is None:
        raise ValueError("expected NAME RAW_DIR OUT_DIR; roc4mllm data --list shows the names")
    data_set = chosen_data_set(args, registry.DATA_SETS)
    workers = args.workers or workers_that_pay()
    with exit_when_told():
        report = convert.convert_data(
            data_set,
            args.raw_dir,
            args.out_dir,
            protocol=args.protocol,
            max_side=args.max_side,
            workers=workers,
            strict=args.strict,
        )
    print("\n".join(map(shown, told(report, data_set, args.out_dir))), file=sys.stderr)
    return 0


def chosen_data_set(args: argparse.Namespace, known: "dict[str, DataSet]") -> "DataSet":
    """The data set of a name; options of a table of one's own are refused for all others."""
    if args.name == GENERIC:
        from ..datasets_scripts.generic_csv import generic_csv

        if args.score_range is None:
            raise ValueError("csv needs --score-range LOW HIGH: nobody else knows the units of the scores")
        columns = dict(pair_of(text) for text in args.column or ())
        return generic_csv(
            tuple(args.score_range), name=args.source or GENERIC, columns=columns, attributes=args.attributes or ()
        )
    if args.name not in known:
        raise ValueError(f"no data set {args.name!r}; there are {', '.join([*known, GENERIC])}")
    given = {"--score-range": args.score_range, "--column": args.column, "--attributes": args.attributes}
    if unfit := [option for option, value in (given | {"--source": args.source}).items() if value]:
        raise ValueError(f"{', '.join(unfit)} is for csv; {args.name} knows its columns and ranges")
    return known[args.name]


def pair_of(text: str) -> tuple[str, str]:
    """A `ROLE=COLUMN`."""
    role, equals, column = text.partition("=")
    if not (role and equals and column):
        raise ValueError(f"--column takes ROLE=COLUMN, as in score=MOS; got {text!r}")
    return role, column


def listing(known: "dict[str, DataSet]") -> list[str]:
    """What can be converted: names, protocols and terms."""
    lines = []
    for data_set in known.values():
        lines.append(f"{data_set.name}: {data_set.title}; {data_set.score}")
        lines += [f"    --protocol {name}: {text}" for name, text in data_set.protocols.items()]
        lines.append(f"    from {data_set.homepage}. {data_set.terms}")
    return [*lines, f"{GENERIC}: any table, with --score-range LOW HIGH"]


def told(report: "Report", data_set: "DataSet", folder: str) -> list[str]:
    """What a person should see at the end."""
    rows = ", ".join(f"{split} {count}" for split, count in report.rows.items())
    lines = [f"written to {folder}: {rows}; protocol {report.protocol}"]
    lines += report.problems.summary().splitlines()
    lines += [f"{len(ids)} pictures {name}" for name, ids in report.absent.items()]
    lines += report.notes
    if report.data_set == GENERIC and report.resized:
        lines.append(
            f"{report.resized} pictures were made smaller: evaluate knows them again beside the originals only by the "
            "name of their data set; give one (--source NAME)"
        )
    lines += [] if data_set.may_be_shared else [f"terms: {data_set.terms}"]
    return lines


__all__ = ["run"]
