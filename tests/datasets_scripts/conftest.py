"""Raw downloads of invented rows, converted in a temporary folder."""

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from PIL import Image

from roc4mllm.datasets_scripts.convert import Report, convert_data
from roc4mllm.datasets_scripts.data_set import DataSet
from roc4mllm.datasets_scripts.registry import DATA_SETS


class Converted(NamedTuple):
    folder: Path
    report: Report
    rows: list[dict[str, Any]]

    @property
    def by_id(self) -> dict[str, dict[str, Any]]:
        return {row["image_id"]: row for row in self.rows}


def jpeg(seed: int = 0, size: tuple[int, int] = (32, 24)) -> bytes:
    """A small picture; another seed is another picture."""
    buffer = io.BytesIO()
    colours = [(37 * (seed + i)) % 256 for i in range(3)]
    picture = Image.merge(
        "RGB", [Image.linear_gradient("L").resize(size).point(lambda v, c=c: v ^ c) for c in colours]
    )
    picture.save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Writes files of text or bytes into the raw folder."""

    def write_files(files: dict[str, str | bytes], folder: str = "raw") -> Path:
        for name, content in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / folder

    return write_files


@pytest.fixture
def add_pictures(tmp_path) -> Callable[..., None]:
    """Puts pictures into the raw folder; many names share one file on disk."""

    def add(names: Iterable[str], folder: str = "raw/images", *, alike: bool = False) -> None:
        target = tmp_path / folder
        target.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(names):
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not alike or number % 30_000 == 0:  # a file has a limited number of names
                path.write_bytes(jpeg(number))
                first = path
            else:
                os.link(first, path)

    return add


@pytest.fixture
def convert(tmp_path) -> Callable[..., Converted]:
    """Converts the raw folder and reads the result back."""

    def run(data_set: str | DataSet, out: str = "out", raw: str = "raw", **options: Any) -> Converted:
        data_set = DATA_SETS[data_set] if isinstance(data_set, str) else data_set
        report = convert_data(data_set, tmp_path / raw, tmp_path / out, **options)
        files = sorted((tmp_path / out / "data").glob("*.parquet"))
        rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        told = json.loads((tmp_path / out / "report.json").read_text())
        assert told["rows"] == report.rows
        return Converted(tmp_path / out, report, rows)

    return run


def excel_file(rows: list[list[str | float]]) -> bytes:
    """As Excel writes it: texts by number, empty cells left out."""
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    texts = sorted({cell for row in rows for cell in row if isinstance(cell, str) and cell})
    lines = []
    for line, row in enumerate(rows, start=1):
        cells = ""
        for column, cell in enumerate(row):
            at = f'r="{chr(65 + column)}{line}"'
            if isinstance(cell, str):
                cells += f'<c {at} t="s"><v>{texts.index(cell)}</v></c>' if cell else ""
            else:
                cells += f"<c {at}><v>{cell}</v></c>"
        lines.append(f'<row r="{line}">{cells}</row>')
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        shared = "".join(f"<si><t>{text}</t></si>" for text in texts)
        file.writestr("xl/sharedStrings.xml", f"<sst {main}>{shared}</sst>")
        file.writestr(
            "xl/worksheets/sheet1.xml", f"<worksheet {main}><sheetData>{''.join(lines)}</sheetData></worksheet>"
        )
    return buffer.getvalue()


@pytest.fixture
def spreadsheet() -> Callable[..., bytes]:
    """Makes the bytes of an .xlsx file."""
    return excel_file
