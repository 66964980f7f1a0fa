"""
What converting a data set costs beside copying its bytes, what a second worker gives, and reading AVA.txt.

    python benchmarks/data.py            # prints the table; about three minutes, and 1 GB of temporary files
    python benchmarks/data.py --write    # and saves it with machine and versions to benchmarks/results/data.md
    python benchmarks/data.py --busy     # where others use the machine too: processor time of what one thread does
    python benchmarks/data.py --trial    # few pictures and pairs: whether it runs at all

The bare copy reads the same files and writes them with pyarrow into one Parquet file of the same options, beside a
score; the conversion also reads a table, finds and checks each picture, checks each row, and writes report and card.
AVA.txt is generated, with as many rows as the real one; each row has a picture of a few bytes, which is found and not
read. It is read in a process of its own, whose memory is looked at from outside (Linux only).
"""

import argparse
import datetime
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
import scoring
from PIL import Image
from scoring import Clock, cpu_name, time_ratio

from roc4mllm.datasets_scripts.convert import convert_data
from roc4mllm.datasets_scripts.generic_csv import generic_csv
from roc4mllm.datasets_scripts.shards import ROW_GROUP_BYTES

SIZE, PICTURES = (800, 600), 2048
MAX_SIDE, RESIZED, SHARDS = 400, 256, 8
AVA_ROWS = 255_530
TABLE = generic_csv((1, 10))
RESULTS = Path(__file__).parent / "results" / "data.md"
CHILD = """\
import sys, time
from pathlib import Path
from roc4mllm.datasets_scripts.ava import AVA
from roc4mllm.datasets_scripts.raw_folder import RawFolder
from roc4mllm.datasets_scripts.row_plan import make_plan, plan_schema
plan_schema()
print("imported", flush=True)
input()
start, clock = time.perf_counter(), time.process_time()
plan = make_plan(AVA, RawFolder(Path(sys.argv[1])), "official", Path(sys.argv[2]))
assert not plan.problems.lost(), plan.problems.summary()
print(plan.num_rows, time.perf_counter() - start, time.process_time() - clock, flush=True)
input()
"""


class Row(NamedTuple):
    """One line of the table."""

    what: str
    limit: str
    value: str
    detail: str
    is_met: bool

    def __str__(self) -> str:
        verdict = "ok" if self.is_met else "NOT"
        return f"| {self.what} | {self.limit} | {self.value} | {self.detail} | {verdict} |"


# ---- converting pictures --------------------------------------------------------------------------------------------


def make_download(folder: Path, pictures: int) -> int:
    """A table and its pictures, smooth shapes with some noise, as a photograph has; the bytes of all pictures."""
    draw, size = np.random.default_rng(0), 0
    folder.mkdir()
    for number in range(pictures):
        shapes = draw.normal(size=(75, 100, 3)).cumsum(0).cumsum(1)
        shapes = 255 * (shapes - shapes.min()) / np.ptp(shapes)
        large = np.asarray(Image.fromarray(shapes.astype(np.uint8)).resize(SIZE, Image.Resampling.BICUBIC), float)
        noisy = (large + draw.normal(scale=6, size=large.shape)).clip(0, 255).astype(np.uint8)  # (H, W, 3)
        Image.fromarray(noisy).save(buffer := io.BytesIO(), "JPEG", quality=90)
        size += (folder / f"{number}.jpg").write_bytes(buffer.getvalue())
    lines = [f"{number}.jpg,{1 + number % 90 / 10}" for number in range(pictures)]
    (folder / "table.csv").write_text("\n".join(["path,score", *lines]))
    return size


def copy_alone(raw: Path, out: Path, pictures: int) -> None:
    """Read all pictures and write them, and nothing else."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    schema = pa.schema([("image", pa.binary()), ("score", pa.float64())])
    options = {"compression": "NONE", "use_dictionary": ["score"], "write_statistics": ["score"]}
    with pq.ParquetWriter(out / "all.parquet", schema, **options) as writer:
        group, size = [], 0
        for number in range(pictures):
            group.append((raw / f"{number}.jpg").read_bytes())
            size += len(group[-1])
            if size >= ROW_GROUP_BYTES or number == pictures - 1:
                writer.write_table(pa.table({"image": group, "score": [5.0] * len(group)}, schema=schema))
                group, size = [], 0


def convert(raw: Path, out: Path, **options: int) -> None:
    """The whole conversion."""
    shutil.rmtree(out, ignore_errors=True)
    report = convert_data(TABLE, raw, out, **options)
    assert not report.problems.lost(), report.problems.summary()


def measure_copy(raw: Path, out: Path, pictures: int, clock: Clock) -> Row:
    """Rate of converting by that of copying."""
    ratio, detail = time_ratio(partial(copy_alone, raw, out, pictures), partial(convert, raw, out), clock)
    return Row("rate of converting ÷ that of a bare copy", "≥ 0.800", f"{ratio:.3f}", detail, ratio >= 0.8)


def measure_workers(raw: Path, out: Path, size: int) -> Row:
    """Rate of two workers by that of one."""
    options = {"max_side": MAX_SIDE, "shard_bytes": size // SHARDS}
    one, two = (partial(convert, raw, out, workers=workers, **options) for workers in (1, 2))
    ratio, detail = time_ratio(one, two, time.perf_counter)
    what = f"rate of two workers ÷ that of one, made smaller to {MAX_SIDE} pixels, wall time"
    return Row(what, "≥ 1.700", f"{ratio:.3f}", detail, ratio >= 1.7)


# ---- AVA.txt --------------------------------------------------------------------------------------------------------


def make_ava(folder: Path, rows: int) -> None:
    """AVA.txt, its official test list, and a name for each picture; a file has a limited number of names."""
    draw = random.Random(0)
    (folder / "images").mkdir()
    with (folder / "AVA.txt").open("w") as file:
        for row in range(rows):
            votes = " ".join(str(draw.randint(0, 60)) for _ in range(10))
            file.write(f"{row + 1} {3 * row + 100} {votes} {draw.randint(0, 66)} {draw.randint(0, 66)} {row % 1400}\n")
            path = folder / "images" / f"{3 * row + 100}.jpg"
            if row % 30_000 == 0:
                path.write_bytes(b"\xff\xd8")
                linked = path
            else:
                os.link(linked, path)
    tested = [str(3 * row + 100) for row in range(0, rows, 13)]
    (folder / "generic_test.jpgl").write_text("\n".join(tested))


def measure_ava(rows: int) -> Row:
    """Most memory of reading AVA.txt above that after the imports, and its time."""
    with tempfile.TemporaryDirectory() as folder:
        make_ava(Path(folder), rows)
        command = [sys.executable, "-c", CHILD, folder, str(Path(folder, "plan"))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            if child.stdout.readline() != "imported\n":
                raise RuntimeError("The reading process could not import the reader.")
            first = resident_bytes(child.pid)
            print(file=child.stdin, flush=True)
            os.set_blocking(child.stdout.fileno(), False)
            peak, told = first, ""
            while not (told := told or child.stdout.readline()):
                peak = max(peak, resident_bytes(child.pid))
                time.sleep(2e-3)
            print(file=child.stdin, flush=True)
    count, wall, processor = told.split()
    assert int(count) == rows
    used = (peak - first) / 2**20
    detail = f"{float(wall):.1f} s, {float(processor):.1f} s of processor time"
    return Row(
        f"memory of reading and checking AVA.txt, {rows} rows", "≤ 500 MiB", f"{used:.0f} MiB", detail, used <= 500
    )


def resident_bytes(process: int) -> int:
    """Memory of a process, mapped pages of files included."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return 1024 * int(fields.get("VmRSS", "0 kB").split()[0])


# ---- the table ------------------------------------------------------------------------------------------------------


def head(pictures: int, resized: int, size: int, clock: str) -> str:
    """What stands above the rows: the set-up, the machine and the versions."""
    return f"""# Converting data sets

`python benchmarks/data.py --write`

{pictures} generated JPEG pictures of {SIZE[0]} × {SIZE[1]}, {size / resized / 1000:.0f} kB each \
({resized} where they are made smaller), from and to
files that the system holds in memory. One worker is the process itself; two are processes of their own, on {SHARDS} \
shards.
Rates: median ratio of {scoring.PAIRS} interleaved pairs; in detail their middle half and the median of each side.
Memory: the most that was resident above what was after the imports.
{datetime.date.today()}; {cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {clock};
pyarrow {pa.__version__}, datasets {datasets.__version__}, Pillow {PIL.__version__}.

| what | limit | measured | detail | |
|---|---|---:|---|---|
"""


def measure(pictures: int, resized: int, rows: int, clock: Clock, clock_name: str) -> Iterator[Row | str]:
    """The head, then all rows."""
    with tempfile.TemporaryDirectory() as folder:
        raw, few, out = (Path(folder, name) for name in ("raw", "few", "out"))
        size = make_download(few, resized)
        yield head(pictures, resized, size, clock_name)
        make_download(raw, pictures)
        yield measure_copy(raw, out, pictures, clock)
        yield measure_workers(few, out, size)
    if sys.platform == "linux":
        yield measure_ava(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"save the table to results/{RESULTS.name}")
    parser.add_argument("--busy", action="store_true", help="processor time of the thread for what one thread does")
    parser.add_argument("--trial", action="store_true", help="few pictures, rows and pairs")
    options = parser.parse_args()
    counts = (PICTURES, RESIZED, AVA_ROWS)
    if options.trial:
        counts, scoring.PAIRS, scoring.WARM_UP = (512, 64, 20_000), 3, 1
    clock = time.thread_time if options.busy else time.perf_counter
    table = ""
    for line in measure(*counts, clock, "processor time (`--busy`)" if options.busy else "wall time"):
        text = str(line).rstrip("\n")
        print(text, flush=True)
        table += f"{text}\n"
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
