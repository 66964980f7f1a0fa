"""
BAID: 60 337 paintings and other works of art with a score from people's votes.

    dataset/{train,val,test}_set.csv    image,score
    images/<image>                      fetched from the site by the authors' script; some addresses fail
"""

from collections.abc import Iterator
from typing import Any

from .data_set import DataSet
from .raw_folder import RawFolder
from .raw_tables import RawRow, number, read_table
from .schema import Row, picture_row


def row(fields: dict[str, Any]) -> Row:
    """One work with its score."""
    return picture_row(fields["image"], split=fields["split"], score_range=(0, 10), score=number(fields, "score"))


def read(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Rows of the three tables."""
    tables = {"train": "train_set.csv", "validation": "val_set.csv", "test": "test_set.csv"}
    for split, path in raw.need_some(tables):
        for found in read_table(path, need=["image", "score"]):
            found.fields["split"] = split
            yield found


BAID = DataSet(
    name="baid",
    title="BAID",
    read=read,
    row=row,
    protocols={"official": "50 737 for training, 3200 for validation, 6400 for test"},
    score="made of people's votes, from 0 to 10",
    homepage="https://github.com/Dreemurr-T/BAID",
    terms="CC BY-NC-ND 4.0: not for commercial use, and not to be passed on in another form.",
    license="cc-by-nc-nd-4.0",
    citation="R. Yi, H. Tian, Z. Gu, Y.-K. Lai, P. L. Rosin. Towards Artistic Image Aesthetics Assessment: A "
    "Large-Scale Dataset and a New Method. CVPR 2023.",
)

__all__ = ["BAID"]
