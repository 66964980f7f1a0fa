"""
A raw download to a folder that `datasets.load_dataset` reads: Parquet files by split, README.md, report.json.

Everything is made in a folder beside the result, which takes its name when it is complete. If that is interrupted, the
next run with the same raw folder and options reads the rows again, which takes seconds, and goes on with the pictures.
"""

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]
from filelock import FileLock, Timeout
from tqdm import tqdm  # type: ignore[import-untyped]

from ..processing_roc4mllm.pipeline_image_aesthetics import __version__
from .card import data_card
from .data_set import DataSet
from .raw_folder import RawFolder
from .registry import DATA_SETS
from .row_plan import SHARD_BYTES, Plan, Problems, make_plan
from .schema import SPLITS
from .shards import Job, Outcome, finished, write_shard
from .split_guard import id_set_hash, picture_name

FORMAT = 2  # raised when a conversion changes what it writes; shards of another one are not gone on with


@dataclass
class Report:
    """
    What a conversion did; `report.json`.

    Args:
        data_set, protocol, version (`str`): What was converted, how it was divided, by which release.
        options (`dict`): Those that change what is written.
        rows, pictures (`dict[str, int]`): Rows, and different names of pictures among them, by split.
        bytes, loaded_bytes (`dict[str, int]`): Bytes of the files by split, and of what `load_dataset` makes of them,
            where each row has a picture of its own.
        id_set_hash (`dict[str, str]`): By split, what two splits have in common if and only if they hold the same
            pictures, by name.
        read, outside, resized (`int`): Raw rows, those that the protocol leaves out, and pictures made smaller.
        problems ([`Problems`]): Every row that could not be written, and why.
        absent (`dict[str, list[str]]`): Pictures that one raw file names and another does not describe.
        notes (`list[str]`): What else was noticed.
    """

    data_set: str
    protocol: str
    version: str
    options: dict[str, Any]
    rows: dict[str, int] = field(default_factory=dict)
    pictures: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    loaded_bytes: dict[str, int] = field(default_factory=dict)
    id_set_hash: dict[str, str] = field(default_factory=dict)
    read: int = 0
    outside: int = 0
    resized: int = 0
    problems: Problems = field(default_factory=Problems)
    absent: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Counts first, then the lists."""
        counts = {kind: len(entries) for kind, entries in self.problems.lost().items()}
        counts |= {name: len(ids) for name, ids in self.absent.items()}
        told = asdict(self)
        lists = {"problems": told.pop("problems"), "absent": told.pop("absent")}
        return json.dumps(told | {"counts": counts} | lists, indent=1, ensure_ascii=False) + "\n"


def convert_data(
    data_set: DataSet,
    raw_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    protocol: str | None = None,
    max_side: int | None = None,
    workers: int = 1,
    strict: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Report:
    """
    Convert a raw download.

    Args:
        data_set ([`DataSet`]):
            What it is.
        raw_dir (`str` or path):
            The download, which is only read. Tables and pictures may lie anywhere in it; archives are unpacked beside
            the result and removed again.
        out_dir (`str` or path):
            The folder to be, which must not exist.
        protocol (`str`, *optional*):
            The division into splits; by default the data set's usual one.
        max_side (`int`, *optional*):
            Make pictures with a longer side smaller, and encode them as JPEG. All others keep their bytes.
        workers (`int`, *optional*, defaults to `1`):
            Processes that read pictures; with 1 it is this one.
        strict (`bool`, *optional*, defaults to `False`):
            Stop at rows that cannot be written, instead of counting and listing them.
        shard_bytes (`int`, *optional*, defaults to 128 MB):
            Size of the Parquet files, by their pictures before they are made smaller.

    Returns:
        [`Report`]

    Raises:
        ValueError: If the raw folder is not as the data set's file describes, nothing can be written, or with `strict`
            not everything, or `max_side` is no number of pixels.
        OSError: If a file cannot be read or written, or another process converts to the same folder.
    """
    if max_side is not None and not (isinstance(max_side, int) and max_side > 0):
        raise ValueError(f"max_side must be a whole number of pixels, at least 1, got {max_side!r}.")
    raw_dir, out_dir = Path(raw_dir), Path(os.path.abspath(out_dir))
    protocol = data_set.protocol(protocol)
    options = {"max_side": max_side, "shard_bytes": shard_bytes, "format": FORMAT}
    report = Report(data_set.name, data_set.protocol_name(protocol), __version__, options)
    with work_folder(out_dir) as work:
        raw = RawFolder(raw_dir, work / "unpacked", data_set.prefer)
        plan = make_plan(data_set, raw, protocol, work / "plan", shard_bytes=shard_bytes)
        check_plan(plan, raw, strict)
        report.read, report.outside, report.problems = plan.read, plan.outside, plan.problems
        report.notes, report.absent = raw.notes, raw.absent
        keep_shards_of(work, f"{data_set.name} {protocol} {options} {plan.digest()}")
        jobs = list(shard_jobs(plan, work / "data", max_side, plan.by_rater))
        outcomes = {}
        for job, outcome in run_jobs(jobs, workers, plan.num_rows):
            outcomes[job] = outcome
            if strict and outcome.unreadable:
                raise refusal(Problems(unreadable=outcome.unreadable))
        finish(work, {job: outcomes[job] for job in jobs}, report, data_set)
        os.rename(work, out_dir)
    return report


@contextmanager
def work_folder(out_dir: Path) -> Iterator[Path]:
    """The folder beside the result, for one process at a time."""
    if os.path.lexists(out_dir):
        raise FileExistsError(f"{os.fspath(out_dir)!r} exists; name a new folder.")
    if not out_dir.parent.is_dir():
        raise FileNotFoundError(f"No folder {os.fspath(out_dir.parent)!r} to make {out_dir.name!r} in.")
    lock = FileLock(out_dir.with_name(f".{out_dir.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OSError(f"Another process is converting to {os.fspath(out_dir)!r}.") from None
    work = out_dir.with_name(f".{out_dir.name}.partial")
    try:
        work.mkdir(exist_ok=True)
        yield work
    finally:
        if work.is_dir() and not any(work.glob("data/*.parquet")):
            shutil.rmtree(work, ignore_errors=True)  # nothing to go on with
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def check_plan(plan: Plan, raw: RawFolder, strict: bool) -> None:
    """Refuse before the first picture is read."""
    if not plan.num_rows:
        found = f"{len(raw.pictures)} files of pictures" if raw.pictures else "no pictures"
        told = plan.problems.summary() or "the tables have no rows"
        raise ValueError(f"Nothing to write: {os.fspath(raw.path)!r} holds {found}{raw.packed()}. Of the rows: {told}")
    if strict and plan.problems.lost():
        raise refusal(plan.problems)
    if plan.problems.missing and (packed := raw.packed()):
        raw.notes.append(f"{len(plan.problems.missing)} pictures are missing{packed}")


def refusal(problems: Problems) -> ValueError:
    """What `strict` raises."""
    return ValueError(
        f"Not all rows can be written: {problems.summary()}. Without strict they are listed and left out."
    )


def keep_shards_of(work: Path, key: str) -> None:
    """Keep the shards of an interrupted run if they are of the same plan."""
    path = work / "plan" / "key"
    data, kept = work / "data", work / "key"
    if not kept.is_file() or kept.read_text(encoding="utf-8") != key:
        shutil.rmtree(data, ignore_errors=True)
        path.write_text(key, encoding="utf-8")
        os.replace(path, kept)
    data.mkdir(exist_ok=True)


def shard_jobs(plan: Plan, folder: Path, max_side: int | None, share_pictures: bool) -> Iterator[Job]:
    """A job for each shard, those of a split one after another."""
    for split, counts in plan.shards.items():
        for number in range(len(counts)):
            path = folder / f"{split}-{number:05}-of-{len(counts):05}.parquet"
            yield Job(str(plan.folder / f"{split}.arrow"), number, str(path), max_side, share_pictures)


# Workers -------------------------------------------------------------------------------------------------------------


def run_jobs(jobs: list[Job], workers: int, num_rows: int) -> Iterator[tuple[Job, Outcome]]:
    """Outcomes of all jobs; those that were finished before, first."""
    waiting = []
    with tqdm(total=num_rows, desc="writing", unit="row", leave=False, delay=2, disable=None) as bar:
        for job in jobs:
            if outcome := finished(job):
                bar.update(outcome.rows + len(outcome.unreadable))
                yield job, outcome
            else:
                waiting.append(job)
        for job, outcome in in_processes(waiting, workers) if workers > 1 else here(waiting):
            bar.update(outcome.rows + len(outcome.unreadable))
            yield job, outcome


def here(jobs: list[Job]) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs in this process."""
    for job in jobs:
        yield job, write_shard(job)


def in_processes(jobs: list[Job], workers: int) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs in worker processes, which end with this one."""
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(min(workers, max(len(jobs), 1)), initializer=begin_worker)
    try:
        waiting = {executor.submit(write_shard, job): job for job in jobs}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    except BrokenProcessPool as error:
        raise OSError("A worker was killed, by lack of memory or by a picture; run again to go on.") from error
    finally:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()  # nothing to do any more, unless this process was interrupted
        executor.shutdown(cancel_futures=True)


def begin_worker() -> None:
    """Ctrl-C reaches all processes of a terminal, and only the first has anything to say; it ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked worker has the handler of the command, which raises
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """One that was killed ends nobody: its workers would wait for ever, or write beside those of the next run."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


# What stands beside the shards ---------------------------------------------------------------------------------------


def finish(work: Path, outcomes: Mapping[Job, Outcome], report: Report, data_set: DataSet) -> None:
    """Write report and card, and remove what was only needed on the way."""
    names: dict[str, list[str]] = {}
    for job, outcome in outcomes.items():
        report.resized += outcome.resized
        report.problems.unreadable += outcome.unreadable
        split = Path(job.plan).stem
        ids = pq.read_table(job.path, columns=["image_id"]).column("image_id").to_pylist()
        names.setdefault(split, []).extend(ids)
        report.bytes[split] = report.bytes.get(split, 0) + os.path.getsize(job.path)
        report.loaded_bytes[split] = report.loaded_bytes.get(split, 0) + outcome.bytes
        job.told.unlink()
    report.rows = {split: len(names[split]) for split in SPLITS if names.get(split)}
    report.pictures = {split: len(set(names[split])) for split in report.rows}
    report.id_set_hash = {split: id_set_hash(names[split]) for split in report.rows}
    report.notes += shared_names(names, with_folders=data_set.name not in DATA_SETS)
    report.notes += repeated_pictures(report)
    if not report.rows:
        raise ValueError(f"Nothing to write: {report.problems.summary()}")
    (work / "report.json").write_text(report.to_json(), encoding="utf-8", errors="backslashreplace")
    (work / "README.md").write_text(data_card(data_set, report), encoding="utf-8")
    for path in ("plan", "unpacked"):
        shutil.rmtree(work / path, ignore_errors=True)
    (work / "key").unlink()


def shared_names(ids: Mapping[str, Sequence[str]], with_folders: bool) -> list[str]:
    """Pictures that stand in two splits, whose division leaks; folders belong to the names in a table of one's own."""
    names = {split: set(map(picture_name, found)) for split, found in ids.items()}
    if not with_folders:
        names = {split: {name.rpartition("/")[2] for name in found} for split, found in names.items()}
    return [
        f"{len(names[first] & names[second])} photographs are in {first} and in {second}, by their file name"
        for first, second in combinations([split for split in SPLITS if split in names], 2)
        if names[first] & names[second]
    ]


def repeated_pictures(report: Report) -> list[str]:
    """What loading costs where many rows share a picture, which the files hold once."""
    if report.rows == report.pictures:
        return []
    files, loaded = (sum(sizes.values()) / 1e6 for sizes in (report.bytes, report.loaded_bytes))
    return [
        "Each picture is stored once in a file, but load_dataset copies it into its cache with every rating: "
        f"{loaded:,.0f} MB of {files:,.0f} MB. With streaming=True nothing is copied."
    ]


__all__ = ["Report", "convert_data"]
