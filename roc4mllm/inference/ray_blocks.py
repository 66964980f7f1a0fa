"""
Blocks of inputs as Arrow tables, which say where each picture is, and the reading of what they name.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..processing_roc4mllm.picture_batches_aesthetics import Unreadable, describe
from .inputs.containers import TarMember
from .inputs.parquet_places import ParquetReader, ParquetRow
from .inputs.picture_input import PictureInput
from .inputs.stores import StoredFile, is_stored
from .tables.score_table import encodable

READERS = 16  # files of a store that are asked for at once


def block_table(inputs: Iterable[PictureInput], place: int) -> Any:
    """A `pyarrow.Table` of inputs, the first of which is number `place` of all."""
    import pyarrow  # type: ignore[import-untyped]

    kinds = {"place": "int64", "path": "string", "error": "string", "file": "binary", "start": "int64"}
    kinds |= {"size": "int64", "content": "large_binary"}
    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in kinds.items()])
    rows = [{"place": number, **as_row(item)} for number, item in enumerate(inputs, start=place)]
    return pyarrow.Table.from_pylist(rows, schema=schema)


def as_row(item: PictureInput) -> dict[str, Any]:
    """An input as a row; local files by their whole path, as other processes run elsewhere."""
    row = {"path": encodable(item.path)}
    content = item.content
    if item.error is not None:
        return row | {"error": item.error}
    if isinstance(content, TarMember):
        return row | {"file": whole_path(content.archive), "start": content.offset, "size": content.size}
    if isinstance(content, ParquetRow):
        return row | {"file": whole_path(content.file), "start": content.row}
    if isinstance(content, bytes):
        return row | {"content": content}
    if isinstance(content, StoredFile):
        return row | {"file": whole_path(content.url)}
    return row | {"file": whole_path(item.path if content is None else content)}


def whole_path(path: str) -> bytes:
    """A path from the root, or a URL; as bytes, since a file name need not be UTF-8."""
    return os.fsencode(path if "://" in path else os.path.abspath(path))


def source_of(row: dict[str, Any]) -> Any:
    """The picture that a row means, as a scorer takes it."""
    if row["error"] is not None:
        return Unreadable(row["error"])
    if row["content"] is not None:
        return row["content"]
    file = os.fsdecode(row["file"])
    if row["size"] is not None:
        return TarMember(file, row["start"], row["size"])
    if row["start"] is not None:
        return ParquetRow(file, row["start"])
    return StoredFile(file) if is_stored(file) else file


def read_ahead(rows: Iterable[dict[str, Any]]) -> Iterator[Any]:
    """The pictures of rows; what lies in stores is fetched by threads while the model runs."""
    waiting: deque[Any] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        for source in with_parquet_rows(map(source_of, rows)):
            waiting.append(pool.submit(fetch, source))
            if len(waiting) > READERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def with_parquet_rows(sources: Iterable[Any]) -> Iterator[Any]:
    """The sources, rows of Parquet files read."""
    reader: ParquetReader | None = None
    for source in sources:
        if not isinstance(source, ParquetRow):
            yield source
            continue
        try:
            if reader is None or reader.path != source.file:
                reader = ParquetReader(source.file)
            yield reader.read(source.row).source
        except (ValueError, OSError, LookupError) as error:  # it was changed since it was listed
            reader = None
            yield Unreadable(f"cannot be read: {describe(error)}")


def fetch(source: Any) -> Any:
    """What a store holds, as bytes; what cannot be read is left for the scorer, which says why."""
    if isinstance(source, StoredFile | TarMember):
        try:
            return source.read_bytes()
        except Exception:  # each store's library has errors of its own, down to bare `Exception`
            return source  # nothing is lost: the scorer reads it again, and its error becomes the row's
    return source


__all__ = ["block_table", "read_ahead"]
