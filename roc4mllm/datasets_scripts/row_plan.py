"""
The first of two passes: all rows are read and checked, their pictures found, and what is to be written is put in
order.

The plan lies on disk, an Arrow file per split in which each record batch is a shard to be. So memory stays flat, a row
is taken apart once, and a worker needs to be told no more than the number of its shard. The same raw folder gives the
same plan, by which an interrupted conversion knows its shards again.
"""

import hashlib
import os
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
from tqdm import tqdm  # type: ignore[import-untyped]

from .data_set import DataSet
from .raw_folder import RawFolder
from .raw_tables import RawRow
from .schema import Row, check_row, features

SHARD_BYTES = 128 * 1024 * 1024  # of pictures
SHARD_ROWS = 10_000
BUCKETS = 64  # by which ratings of one picture find together: PARA's 808 000 make 12 600 each
BUCKET_ROWS = 1000
LISTED = 20  # pictures that are named where a value of -1 is data


@dataclass
class Problems:
    """
    What went wrong, by kind, each with where it stands and what it is; and values that look wrong and are not.

    Args:
        bad_rows, duplicates, missing, unreadable (`list[dict]`): All of them, with `where` and what is known.
        minus_one (`dict`): Number of values of -1 by what was rated, and the first pictures.
    """

    bad_rows: list[dict[str, str]] = field(default_factory=list)
    duplicates: list[dict[str, str]] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)
    minus_one: dict[str, dict[str, Any]] = field(default_factory=dict)

    def lost(self) -> dict[str, list[dict[str, str]]]:
        """Kinds of problems that cost a row, those that occurred."""
        kinds = ("bad_rows", "duplicates", "missing", "unreadable")
        return {kind: entries for kind in kinds if (entries := getattr(self, kind))}

    def summary(self) -> str:
        """How many of each, and the first."""
        lines = []
        for kind, entries in self.lost().items():
            first = "; ".join(f"{name}: {value}" for name, value in entries[0].items())
            lines.append(f"{len(entries)} {kind.replace('_', ' ')}, the first: {first[:200]}")
        return "\n".join(lines)

    def note_minus_one(self, row: Row) -> None:
        """Count values of -1, which mean something in these data sets and elsewhere often stand for nothing."""
        rated = {"score": row["score"]}
        if row["attributes"]:
            rated |= {entry["name"]: entry["score"] for entry in row["attributes"]}
        for name, value in rated.items():
            if value == -1:
                found = self.minus_one.setdefault(name, {"count": 0, "first": []})
                found["count"] += 1
                if len(found["first"]) < LISTED:
                    found["first"].append(row["image_id"])


@dataclass
class Plan:
    """
    What is to be written.

    Args:
        folder (`Path`): Holds `<split>.arrow`.
        shards (`dict[str, list[int]]`): By split, the number of rows of each shard.
        read (`int`): Number of rows that the raw files have.
        outside (`int`): Number of those that the protocol leaves out.
        problems ([`Problems`]): Of the rows that cannot be written.
        by_rater (`bool`): Whether rows are ratings, and those of a picture follow each other.
    """

    folder: Path
    shards: dict[str, list[int]]
    read: int
    outside: int
    problems: Problems
    by_rater: bool

    @property
    def num_rows(self) -> int:
        """Rows of all shards."""
        return sum(map(sum, self.shards.values()))

    def digest(self) -> str:
        """Equal for equal plans."""
        digest = hashlib.blake2b(digest_size=16)
        for split in self.shards:
            with (self.folder / f"{split}.arrow").open("rb") as file:
                digest.update(split.encode() + hashlib.file_digest(file, "blake2b").digest())
        return digest.hexdigest()


def make_plan(
    data_set: DataSet, raw: RawFolder, protocol: str, folder: Path, *, shard_bytes: int = SHARD_BYTES
) -> Plan:
    """
    Read and check all rows, find their pictures, and write the plan.

    Args:
        data_set ([`DataSet`]): What is read.
        raw ([`RawFolder`]): Where it lies.
        protocol (`str`): Which division.
        folder (`Path`): Where the plan goes.
        shard_bytes (`int`, *optional*, defaults to 128 MB): Bytes of pictures as they are, from which a shard is full.
    """
    problems, outside, read = Problems(), 0, 0
    shards = Shards(folder, shard_bytes)
    writer: Shards | Buckets = shards
    seen: dict[int, int] = {}
    fixed = {"source": data_set.name, "split_protocol": data_set.protocol_name(protocol)}
    rows = tqdm(
        data_set.read(raw, protocol), f"reading {data_set.title}", unit="row", leave=False, delay=2, disable=None
    )
    for found in rows:
        read += 1
        try:
            row = checked_row(data_set, found, fixed)
        except ValueError as error:
            problems.bad_rows.append({"where": found.where, "reason": str(error)})
            continue
        if row is None:
            outside += 1
            continue
        key = hash((row["image_id"], row["rater_id"]))
        if key in seen:
            told = ", and no rater_id tells ratings apart" if row["rater_id"] is None else " and rater"
            reason = f"{found.unit} {seen[key]} is of the same picture{told}"
            problems.duplicates.append({"where": found.where, "image_id": row["image_id"], "reason": reason})
            continue
        seen[key] = found.line
        problems.note_minus_one(row)
        file, status = find_picture(raw, row["image"])
        if file is None or status is None:
            problems.missing.append({"where": found.where, "image_id": row["image_id"], "picture": row["image"]})
        else:
            row.update(where=found.where, file=file, size=status.st_size, changed=status.st_mtime_ns)
            if row["rater_id"] is not None and writer is shards and not shards.waiting:
                writer = Buckets(shards)  # the first row tells
            writer.add(row)
    writer.close()
    return Plan(folder, shards.counts, read, outside, problems, by_rater=writer is not shards)


def checked_row(data_set: DataSet, found: RawRow, fixed: dict[str, str]) -> Row | None:
    """A raw row as a row of the schema, `None` where it is outside of the protocol."""
    if found.problem:
        raise ValueError(found.problem)
    row = data_set.row(found.fields)
    if row is not None:
        row.update(fixed)
        check_row(row)
    return row


def find_picture(raw: RawFolder, image: str) -> tuple[str | None, os.stat_result | None]:
    """Path and status of a picture; a link that leads nowhere is no picture."""
    if (file := raw.locate(image)) is not None:
        try:
            return file, os.stat(file)
        except OSError:
            pass
    return None, None


# The file ------------------------------------------------------------------------------------------------------------


def plan_schema() -> Any:
    """The schema with a path in the place of the picture, and what tells whether it has changed."""
    fields = [column for column in features().arrow_schema if column.name != "image"]
    texts, numbers = ("where", "file"), ("size", "changed")
    return pa.schema([*((name, pa.string()) for name in texts), *((name, pa.int64()) for name in numbers), *fields])


class Shards:
    """
    Rows in the order in which they come, a record batch for each shard.

    Args:
        folder (`Path`): Where the files go, one for each split.
        shard_bytes (`int`): Bytes of pictures from which a shard is full.
    """

    def __init__(self, folder: Path, shard_bytes: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.shard_bytes, self.schema = folder, shard_bytes, plan_schema()
        self.files: dict[str, Any] = {}
        self.waiting: dict[str, list[Row]] = {}
        self.sizes: Counter[str] = Counter()
        self.counts: dict[str, list[int]] = {}

    def add(self, row: Row) -> None:
        """Take up a row of the schema with the plan's columns."""
        split = row["split"]
        waiting = self.waiting.setdefault(split, [])
        if not waiting or waiting[-1]["file"] != row["file"]:
            if len(waiting) >= SHARD_ROWS or self.sizes[split] >= self.shard_bytes:
                self._write(split)
            self.sizes[split] += row["size"]
        self.waiting[split].append(row)

    def _write(self, split: str) -> None:
        if split not in self.files:
            self.files[split] = pa.ipc.new_file(str(self.folder / f"{split}.arrow"), self.schema)
        rows = self.waiting[split]
        self.files[split].write_batch(pa.RecordBatch.from_pylist(rows, self.schema))
        self.counts.setdefault(split, []).append(len(rows))
        self.waiting[split], self.sizes[split] = [], 0

    def close(self) -> None:
        """Write what is waiting."""
        for split, rows in self.waiting.items():
            if rows:
                self._write(split)
        for file in self.files.values():
            file.close()


class Buckets:
    """
    Ratings, brought together by picture before they go into shards: a shard then holds each picture once.

    Args:
        shards ([`Shards`]): Where they go in the end.
    """

    def __init__(self, shards: Shards):
        self.shards, self.waiting = shards, [[] for _ in range(BUCKETS)]  # type: ignore[var-annotated]
        self.paths = [shards.folder / f"bucket-{number}.arrow" for number in range(BUCKETS)]
        self.files = [pa.ipc.new_file(str(path), shards.schema) for path in self.paths]

    def add(self, row: Row) -> None:
        """Take up a row of the schema with the plan's columns."""
        number = zlib.crc32(row["image_id"].encode()) % BUCKETS
        self.waiting[number].append(row)
        if len(self.waiting[number]) >= BUCKET_ROWS:
            self._write(number)

    def _write(self, number: int) -> None:
        self.files[number].write_batch(pa.RecordBatch.from_pylist(self.waiting[number], self.shards.schema))
        self.waiting[number] = []

    def close(self) -> None:
        """Sort each bucket and pass it on."""
        for number, path in enumerate(self.paths):
            self._write(number)
            self.files[number].close()
            with pa.memory_map(str(path)) as mapped:
                rows = pa.ipc.open_file(mapped).read_all().to_pylist()
            for row in sorted(rows, key=lambda row: row["image_id"]):  # stable: raters stay in order
                self.shards.add(row)
            path.unlink()
        self.shards.close()


__all__ = ["Plan", "Problems", "make_plan"]
