"""
The second pass: pictures are read, checked and put beside their rows, a Parquet file for each shard of the plan.

A shard is a job of its own, for this process or for a worker. It has its name only when it is complete, and beside it
lies what is to be told about it; so a conversion that was interrupted goes on behind the last complete shard.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from ..processing_roc4mllm.image_reading_aesthetics import PictureError
from ..whole_files import write_whole
from .picture_buffer import JPEG_START, PictureBuffer
from .schema import features

ROW_GROUP_BYTES = 32 * 1024 * 1024  # what a reader has in memory at once, and seeks to
ONE_DICTIONARY = 1 << 30  # bytes of pictures that a row group may refer to by number


@dataclass(frozen=True)
class Job:
    """
    One shard.

    Args:
        plan (`str`): The split's file of the plan.
        number (`int`): The shard's record batch in it.
        path (`str`): The Parquet file to be.
        max_side (`int`, *optional*): Longest side in pixels, from which pictures are made smaller.
        share_pictures (`bool`): Whether rows of one picture follow each other, so that it is stored once.
    """

    plan: str
    number: int
    path: str
    max_side: int | None
    share_pictures: bool

    @property
    def told(self) -> Path:
        """Where the outcome is kept."""
        return Path(f"{self.path}.json")


@dataclass
class Outcome:
    """
    What became of a shard: its rows, the bytes they take where each has its picture, those whose picture is
    unreadable, and the pictures made smaller.
    """

    rows: int = 0
    bytes: int = 0
    resized: int = 0
    unreadable: list[dict[str, str]] = field(default_factory=list)


def finished(job: Job) -> Outcome | None:
    """The outcome of a shard that is complete, `None` for any other: what a power cut left is written again."""
    try:
        told = Outcome(**json.loads(job.told.read_text(encoding="utf-8")))
        return told if pq.read_metadata(job.path).num_rows == told.rows else None
    except (OSError, ValueError, TypeError, pa.ArrowException):
        return None


def write_shard(job: Job) -> Outcome:
    """Read the pictures of a shard and write it."""
    with pa.memory_map(job.plan) as mapped:
        batch = pa.ipc.open_file(mapped).get_batch(job.number)
        outcome, partial = Outcome(), f"{job.path}.partial"
        with pq.ParquetWriter(partial, features().arrow_schema, **parquet_options(job)) as writer:
            for group in row_groups(batch, job, outcome):
                writer.write_batch(group)
                outcome.rows += group.num_rows
                outcome.bytes += group.nbytes
    os.replace(partial, job.path)
    write_whole(job.told, json.dumps(asdict(outcome)).encode())
    return outcome


def parquet_options(job: Job) -> dict[str, Any]:
    """
    Pictures are compressed already, and their lowest and highest bytes say nothing. Where rows share pictures, a row
    group keeps each once, as it does with repeated words.
    """
    others = [name for name in leaves(features().arrow_schema) if name != "image.bytes"]
    words = [*others, "image.bytes"] if job.share_pictures else others
    options = {"compression": "NONE", "use_dictionary": words, "write_statistics": others}
    return options | ({"dictionary_pagesize_limit": ONE_DICTIONARY} if job.share_pictures else {})


def leaves(columns: Any, before: str = "") -> Iterator[str]:
    """Names of Parquet's columns, which are those without parts."""
    for column in columns:
        name, kind = f"{before}{column.name}", column.type
        while pa.types.is_list(kind):
            name, kind = f"{name}.list.element", kind.value_type
        if pa.types.is_struct(kind):
            yield from leaves(kind, f"{name}.")
        else:
            yield name


def row_groups(batch: Any, job: Job, outcome: Outcome) -> Iterator[Any]:
    """Rows with their pictures, so many as make a row group; each is to be written before the next is asked for."""
    pictures = PictureBuffer(
        ROW_GROUP_BYTES * 5 // 4
    )  # the last picture of a group goes beyond; only used memory counts
    rows: list[int] = []
    last = None
    for row, file in enumerate(batch.column("file").to_pylist()):
        try:
            if rows and file == last:  # the picture of the rating before
                pictures.add(pictures[len(rows) - 1])
            else:
                outcome.resized += pictures.read(file, job.max_side)
        except PictureError as error:
            told = {name: batch.column(name)[row].as_py() for name in ("where", "image_id")}
            outcome.unreadable.append(told | {"reason": str(error)})
            continue
        rows.append(row)
        last = file
        if pictures.size >= ROW_GROUP_BYTES:
            yield with_pictures(batch, rows, pictures)
            pictures.clear()
            rows = []
    if rows:
        yield with_pictures(batch, rows, pictures)


def with_pictures(batch: Any, rows: list[int], pictures: PictureBuffer) -> Any:
    """Some rows of the plan as rows of the schema."""
    is_whole = rows[-1] - rows[0] + 1 == len(rows)
    chosen = batch.slice(rows[0], len(rows)) if is_whole else batch.take(pa.array(rows))
    names = [file_name(file, pictures[row]) for row, file in enumerate(chosen.column("file").to_pylist())]
    image = pa.StructArray.from_arrays([pictures.to_arrow(), pa.array(names, pa.string())], ["bytes", "path"])
    schema = features().arrow_schema
    columns = [image if column.name == "image" else chosen.column(column.name) for column in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def file_name(file: str, picture: memoryview) -> str:
    """The name without folders; one that was made smaller is a JPEG now."""
    name = file.rpartition("/")[2]
    if name.endswith(".jpg") or picture[:2] != JPEG_START or name.lower().endswith((".jpg", ".jpeg")):
        return name
    return f"{os.path.splitext(name)[0]}.jpg"


__all__ = ["Job", "Outcome", "finished", "write_shard"]
