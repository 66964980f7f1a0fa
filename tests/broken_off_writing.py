"""
Writes a table in processes that end at once, as by `kill -9`, at their first, second, third … operation on files, each
resuming what the one before left; prints what is there after one that was left alone. A process of its own, since it
forks: `python broken_off_writing.py FOLDER`.
"""

import itertools
import json
import os
import shutil
import sys
from pathlib import Path

from roc4mllm.inference.bulk_scoring import remaining
from roc4mllm.inference.inputs.picture_input import PictureInput
from roc4mllm.inference.tables.score_formats import ParquetPartsWriter
from roc4mllm.inference.tables.score_reading import read_table
from roc4mllm.inference.tables.score_table import make_row, table_columns
from roc4mllm.inference.tables.score_writing import TableFile

RECORD = {"score": 5.0, "score_range": [1.0, 10.0], "normalized": 0.4, "std": 1.0, "attributes": None, "model": "m"}
RECORD |= {"revision": None, "version": "0", "error": None}
OPERATIONS = [
    (os, "replace"),
    (os, "truncate"),
    (os, "fsync"),
    (os, "unlink"),
    (shutil, "rmtree"),
    (shutil, "copyfile"),
]
THROUGH = 6  # runs in a row that came to their end: some have less to do than the one before


def end_at(number: int) -> None:
    """Let this process end before its operation of this number, or after it where the number is odd."""
    counter = itertools.count()

    def broken_off(operation):
        def run(*args, **options):
            place = next(counter)
            if place == number // 2 and number % 2 == 0:
                os._exit(9)
            result = operation(*args, **options)
            if place == number // 2:
                os._exit(9)
            return result

        return run

    for module, name in OPERATIONS:
        setattr(module, name, broken_off(getattr(module, name)))


def write(path: Path, names: list[str]) -> None:
    with TableFile(path, table_columns(["aesthetics"]), resume=True) as table:
        for item in remaining(map(PictureInput, names), table.found.paths):
            table.write(make_row(item.path, RECORD, ["aesthetics"]))


def in_child(run) -> int:
    """The exit code of a function in a process of its own."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 70
    try:
        run()
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    ParquetPartsWriter.rows_per_part = 2
    for name in ("s.csv", "s.jsonl", "s.parquet", "parts"):
        path = Path(sys.argv[1], name)
        codes = []
        for names in (["a", "b", "c"], ["a", "b", "c", "d", "e"]):  # the second goes on from a finished table
            for number in itertools.count():
                codes.append(in_child(lambda: (end_at(number), write(path, names))))  # noqa: B023
                if number > THROUGH and not any(codes[-THROUGH:]):
                    break  # a run has fewer operations than that
            codes.append(in_child(lambda: write(path, names)))  # noqa: B023
        rows = [row["path"] for row in read_table(path)]
        left = sorted(entry.name for entry in Path(sys.argv[1]).iterdir())
        print(json.dumps({"name": name, "codes": codes, "rows": rows, "left": left}))
