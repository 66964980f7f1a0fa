"""
OASIS beauty: photographs of the OASIS collection with votes for beauty, 1 to 7.

    ratings.csv        image, mean, std, n, r1 … r7 (votes), theme, category
    images/<image>

Such a table is made of the votes that Brielmann and Pelli publish. `std` may be that of a sample; here it follows from
the votes, as everywhere in the schema. There is no official split.
"""

from collections.abc import Iterator
from typing import Any

from .data_set import DataSet
from .raw_folder import RawFolder
from .raw_tables import RawRow, count, read_table
from .schema import Row, picture_row

VOTES = [f"r{level}" for level in range(1, 8)]


def row(fields: dict[str, Any]) -> Row:
    """One picture with its votes."""
    words = [fields[column] for column in ("theme", "category") if fields.get(column)]
    return picture_row(
        fields["image"],
        split="train",
        score_range=(1, 7),
        votes=[count(fields, column) for column in VOTES],
        theme=words[0] if words else None,
        tags=dict.fromkeys(words),
    )


def read(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Rows of the table."""
    return read_table(raw.need("ratings.csv"), need=["image", *VOTES])


OASIS_BEAUTY = DataSet(
    name="oasis-beauty",
    title="OASIS beauty",
    read=read,
    row=row,
    protocols={"unsplit": "all in train: the authors publish no split"},
    score="mean of 104 to 368 votes for beauty, from 1 to 7",
    homepage="https://doi.org/10.3389/fpsyg.2019.02420",
    terms="Free for research, say the authors of OASIS, whose pictures come from several sources.",
    citation="B. Kurdi, S. Lozano, M. R. Banaji. Introducing the Open Affective Standardized Image Set (OASIS). "
    "Behavior Research Methods 49, 2017. A. A. Brielmann, D. G. Pelli. Intense Beauty Requires Intense Pleasure. "
    "Frontiers in Psychology 10, 2019.",
)

__all__ = ["OASIS_BEAUTY"]
