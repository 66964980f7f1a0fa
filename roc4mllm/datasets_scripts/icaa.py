"""
ICAA17K and ICAA20K: how good the colours of a photograph are.

    ICAA17K: {1train,1test}.csv    ID,color,MOS,probability
    ICAA20K: {train,test}.csv      ID,holistic_color,temperature,colorfulness,color_harmony
    <ID>                           complementary|monochromatic/<colours>/<file>.jpg

Traps. The label is `color`; what `MOS` and `probability` mean is nowhere said. ICAA20K holds all pictures of ICAA17K
and divides them otherwise: 3156 of its 4071 test pictures are in ICAA17K's training, and 1295 of the 1617 the other
way round. A photograph may stand under several colours, with the same scores, and then in training and test at once:
23 of the first 200 rows of 1train.csv are in 1test.csv, whose 1617 rows show 1548 photographs. The report counts them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from .data_set import DataSet
from .raw_folder import RawFolder
from .raw_tables import RawRow, number, read_table
from .schema import Range, Row, attribute, picture_row

TEN: Range = (0, 10)
UNIT: Range = (0, 1)


def row_17k(fields: dict[str, Any]) -> Row:
    """One picture; `color` is the score."""
    further = [
        attribute("mos", number(fields, "MOS"), TEN),
        attribute("probability", number(fields, "probability"), UNIT),
    ]
    return color_row(fields, "color", further)


def row_20k(fields: dict[str, Any]) -> Row:
    """One picture; `holistic_color` is the score."""
    names = ("temperature", "colorfulness", "color_harmony")
    return color_row(fields, "holistic_color", [attribute(name, number(fields, name), TEN) for name in names])


def color_row(fields: dict[str, Any], score: str, attributes: list[Row]) -> Row:
    """The folders of a picture say what colours it has."""
    folders = fields["ID"].split("/")[:-1]
    return picture_row(
        fields["ID"],
        split=fields["split"],
        score_range=TEN,
        score=number(fields, score),
        attributes=attributes,
        theme=folders[-1] if folders else None,
        tags=folders,
    )


def read_17k(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Rows of both tables."""
    return read_tables(raw, {"train": "1train.csv", "test": "1test.csv"}, ["ID", "color", "MOS", "probability"])


def read_20k(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Rows of both tables."""
    return read_tables(raw, {"train": "train.csv", "test": "test.csv"}, ["ID", "holistic_color"])


def read_tables(raw: RawFolder, tables: Mapping[str, str], need: list[str]) -> Iterator[RawRow]:
    """Rows of the tables of the splits."""
    for split, path in raw.need_some(tables):
        for found in read_table(path, need=need):
            found.fields["split"] = split
            yield found


TERMS = "No terms are stated for the data (the authors' page shows Apache-2.0); the photographs are Flickr users'."
MIXED = "ICAA17K and ICAA20K share pictures and divide them differently: never train on one and test on the other."
TWICE = "A photograph may stand in several folders of colours, and in both splits: the official split leaks."

ICAA17K = DataSet(
    name="icaa17k",
    title="ICAA17K",
    read=read_17k,
    row=row_17k,
    protocols={"official": "15 734 for training, 1617 for test (1train.csv, 1test.csv)"},
    score="rated beauty of the colours, from 0 to 10",
    homepage="https://github.com/woshidandan/Image-Color-Aesthetics-Assessment",
    terms=TERMS,
    citation="S. He, A. Ming, Y. Li, J. Sun, S. Zheng, H. Ma. Thinking Image Color Aesthetics Assessment: Models, "
    "Datasets and Benchmarks. ICCV 2023.",
    notes=(MIXED, TWICE, "What `mos` and `probability` mean is not documented by the authors."),
    pictures_of="flickr",
)

ICAA20K = DataSet(
    name="icaa20k",
    title="ICAA20K",
    read=read_20k,
    row=row_20k,
    protocols={"official": "16 284 for training, 4071 for test (train.csv, test.csv)"},
    score="rated beauty of the colours as a whole, from 0 to 10",
    homepage="https://github.com/woshidandan/Prompt-DeT",
    terms=TERMS,
    citation="S. He, Y. Xiao, A. Ming, H. Ma. Rethinking Image Color Aesthetics Assessment: Models, Datasets and "
    "Benchmarks. Information Fusion 2024.",
    notes=(MIXED, TWICE),
    pictures_of="flickr",
)

__all__ = ["ICAA17K", "ICAA20K"]
