"""
A table of scores on its way to a file, and how it goes on after a crash.

A file stands under another name beside the final one (`scores.partial.csv`) while it grows, a row at a time, so that
nothing but the row being written can be lost; Parquet, whose files are readable only when they are whole, grows as a
folder of parts. At the end it takes its name: a file under the final name is always whole. Where a folder of parts is
what was asked for, it grows under its own name, and holds a file `unfinished` until it is complete.
"""

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from ...whole_files import check_writable
from .score_formats import FORMATS, Check, FoundRows, Origin, Writer, join_parts, parquet_parts
from .score_table import Row

UNFINISHED, LOCK = "unfinished", "roc4mllm.lock"  # in a folder of parts


class TableFile:
    """
    A table on its way to a file: `with TableFile(path, columns) as table: table.write(row)`.

    The file takes its name when the block ends. If an exception ends the block, `path` is untouched and the rows so
    far stay beside it in `partial` (of a folder of parts: in it).

    Args:
        path (`Path`):
            What `check_output` returned; an existing file is replaced.
        columns (sequence of `str`):
            What `table_columns` returned.
        resume (`bool`, *optional*, defaults to `False`):
            Keep the rows that an interrupted run left, or else those of an existing file; `found` tells which.
        origins (collection of `tuple`, *optional*):
            Those that the rows to come can have, as `origin_of` gives them.
        check (callable, *optional*):
            Called with each row that would be kept; raises a `ValueError` at one that this run would not write.

    Raises:
        ValueError: If there are rows of an interrupted run and `resume` is false, if rows to be kept have other
            columns or origins or are damaged, or if another process is writing this table. Nothing is changed then.
        OSError: If the file cannot be written there.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        resume: bool = False,
        origins: Collection[Origin] | None = None,
        check: Check = lambda row: None,
    ) -> None:
        self.path = path
        self.is_folder = path.suffix == ""
        self.partial = path if self.is_folder else path.with_name(f"{path.stem}.partial{path.suffix}")
        self.found = FoundRows()
        self.rows = 0  # written by this run
        self._made_folder = self.is_folder and not path.exists()
        if self.is_folder:
            path.mkdir(exist_ok=True)
        self._lock = FileLock(path / LOCK if self.is_folder else f"{self.partial}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"another process is writing {str(path)!r}: wait for it, or name another file") from None
        try:
            before = self._rows_before(resume)
            if before is not None:
                self.found = FORMATS[check_format(path)].find(before, columns, check)
                check_origins(self.found.origins, origins)
            self._went_on_from_final = before == path
            self._begin(before)
            self._writer: Writer = FORMATS[check_format(path)](self.partial, columns, self.found)
        except BaseException:
            self._unlock()
            raise

    def _rows_before(self, resume: bool) -> Path | None:
        """Where the rows are that this run goes on from."""
        has_partial = bool(parquet_parts(self.path)) if self.is_folder else self.partial.exists()
        if has_partial and not resume:
            raise ValueError(
                f"{str(self.partial)!r} holds rows of an earlier run: --resume goes on with them, or "
                "delete them to begin anew"
            )
        if has_partial:
            return self.partial
        return self.path if resume and not self.is_folder and self.path.exists() else None

    def _begin(self, before: Path | None) -> None:
        """Put what is kept where it can grow."""
        if self.is_folder:
            (self.path / UNFINISHED).touch()
        elif before == self.path:
            copy = self.partial.with_name(f"{self.partial.name}.copy")
            remove(copy)
            if self.path.suffix.lower() == ".parquet":
                copy.mkdir()
                shutil.copyfile(self.path, copy / "part-00000.parquet")
            else:
                shutil.copyfile(self.path, copy)
            os.replace(copy, self.partial)

    def write(self, row: Row) -> None:
        """Add a row, which `make_row` returned."""
        self._writer.write(row)
        self.rows += 1

    def __enter__(self) -> "TableFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._writer.close()
                self._finish()
                return
            with contextlib.suppress(OSError):  # the disk that is full says so once
                self._writer.close()
            if not self.rows:
                self._undo()
        finally:
            self._unlock()

    def _undo(self) -> None:
        """Leave things as they were, for nothing was added."""
        if self.is_folder:
            if not self.found.paths:
                remove(self.path / "part-00000.parquet")  # which only tells the columns
        elif self._went_on_from_final or not self.found.paths:
            remove(self.partial)

    def _finish(self) -> None:
        """Give the table its name."""
        if self.is_folder:
            (self.path / UNFINISHED).unlink()
        elif self.path.suffix.lower() == ".parquet":
            whole = self.partial / "whole.unfinished"
            join_parts(self.partial, whole)
            os.replace(whole, self.path)
            done = self.partial.with_name(f"{self.partial.name}.done")  # half a folder would be taken for a table
            remove(done)
            os.replace(self.partial, done)
            remove(done)
        else:
            os.replace(self.partial, self.path)

    def _unlock(self) -> None:
        Path(self._lock.lock_file).unlink(missing_ok=True)  # while it is held
        self._lock.release()
        if self._made_folder and not parquet_parts(self.path):
            remove(self.path)


def check_origins(found: Collection[Origin], expected: Collection[Origin] | None) -> None:
    """Refuse to add scores of one model, or of one attribute, to rows of another's."""
    if expected is None or not (others := set(found) - set(expected)):
        return
    theirs, ours = (
        "; ".join(sorted(", ".join(filter(None, origin)) for origin in group)) for group in (others, expected)
    )
    raise ValueError(
        f"the rows so far are of another attribute, model, version or range ({theirs}) than this run's ({ours}): "
        "resume with the same, or write another file"
    )


def remove(path: Path) -> None:
    """Delete a file, or a folder and what is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_output(path: str | os.PathLike[str]) -> Path:
    """
    Make sure, before hours of scoring, that a table can be written.

    Args:
        path (`str` or path):
            The file to be written; or a folder for Parquet parts, if it ends in a separator, or has no ending and is a
            folder.

    Returns:
        `Path`: the file, symbolic links followed.

    Raises:
        ValueError: If the ending names no format, or the place is a store.
        ImportError: If the format needs a library that is not installed.
        OSError: If the file cannot be written there.
    """
    if "://" in os.fspath(path):
        raise ValueError(f"cannot write {os.fspath(path)!r}: a table grows on this machine; copy it to a store then")
    target = Path(os.path.realpath(path))
    if os.fspath(path).endswith(os.sep) or (target.is_dir() and not target.suffix):
        return check_folder(target)
    if not target.suffix:
        raise ValueError(_unknown_format(target))
    check_format(target)
    return check_writable(path)


def check_folder(folder: Path) -> Path:
    """A folder of parts: new, empty or of such parts; errors as in `check_output`."""
    if folder.suffix:
        raise ValueError(f"a folder of Parquet parts needs a name without a dot, got {folder.name!r}")
    check_format(folder)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{str(folder)!r} is a file: name a folder")
    ours = {UNFINISHED, LOCK, *(part.name for part in parquet_parts(folder))} if folder.is_dir() else set()
    if folder.is_dir() and any(entry.name not in ours and entry.suffix != ".unfinished" for entry in folder.iterdir()):
        raise FileExistsError(f"{str(folder)!r} holds other things than parts of a table: name a new folder")
    check_writable(folder / LOCK if folder.is_dir() else folder.with_name(f"{folder.name}.lock"))
    return folder


def check_format(path: Path) -> str:
    """The ending, if it is one of FORMATS and its library is there; `check_output` lists the errors."""
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise ValueError(_unknown_format(path))
    if ending in (".parquet", "") and importlib.util.find_spec("pyarrow") is None:
        raise ImportError(f"{path.name!r} needs pyarrow: pip install 'roc4mllm[data]', or choose .csv or .jsonl")
    return ending


def _unknown_format(path: Path) -> str:
    endings = ", ".join(filter(None, FORMATS))
    return f"cannot tell the format of {path.name!r}: expected a name that ends in {endings}, or a folder with a /"


__all__ = ["UNFINISHED", "TableFile", "check_format", "check_output"]
