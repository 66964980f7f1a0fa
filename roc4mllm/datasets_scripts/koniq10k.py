"""
KonIQ-10k: 10 073 photographs of Flickr with their quality.

    koniq10k_distributions_sets.csv    image_name, c1 … c5 (shares), c_total, MOS, SD, set
    1024x768/<image_name>

Traps. c1 … c5 are shares of c_total, and SD is on the scale of 1 to 5, while MOS goes from 0 to 100 and is no linear
map of the mean vote: raters were brought to one scale first. Where the two are more than half a level apart, the votes
are left out, and their shares stay.
"""

from collections.abc import Iterator
from typing import Any

from .data_set import DataSet
from .raw_folder import RawFolder
from .raw_tables import RawRow, count, number, read_table
from .schema import Range, Row, moments, picture_row

HUNDRED: Range = (0, 100)
STEP = 25  # of the five levels, in units of MOS
SHARES = [f"c{level}" for level in range(1, 6)]
SPLITS = {"training": "train", "validation": "validation", "test": "test"}


def row(fields: dict[str, Any]) -> Row:
    """One picture with its votes."""
    shares, total, score = [number(fields, name) for name in SHARES], count(fields, "c_total"), number(fields, "MOS")
    if not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"c1 … c5 are {shares}, expected shares from 0 to 1")
    votes = [round(share * total) for share in shares]
    if sum(votes) != total:
        raise ValueError(f"c1 … c5 times c_total are {votes}, which do not sum to {total}")
    agree = abs(score - moments(votes, HUNDRED)[0]) <= STEP / 2
    return picture_row(
        fields["image_name"],
        split=SPLITS.get(fields["set"], fields["set"]),
        score_range=HUNDRED,
        score=score,
        std=STEP * number(fields, "SD"),
        votes=votes if agree else None,
        distribution=[share / total for share in votes],
        num_ratings=total,
    )


def read(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Rows of the table."""
    path = raw.need("koniq10k_distributions_sets.csv")
    return read_table(path, need=["image_name", *SHARES, "c_total", "MOS", "SD", "set"])


KONIQ10K = DataSet(
    name="koniq10k",
    title="KonIQ-10k",
    read=read,
    row=row,
    protocols={"official": "7058 for training, 1000 for validation, 2015 for test (column `set`)"},
    score="mean opinion of quality, from 0 to 100",
    homepage="https://database.mmsp-kn.de/koniq-10k-database.html",
    terms="No licence of the data is stated in the authors' code, which is MIT; the photographs are Flickr users'.",
    citation="V. Hosu, H. Lin, T. Sziranyi, D. Saupe. KonIQ-10k: An Ecologically Valid Database for Deep Learning of "
    "Blind Image Quality Assessment. IEEE Transactions on Image Processing 29, 2020.",
    notes=("The score is technical quality, not beauty.", "`std` is SD brought from the scale of 1 to 5 to 0 to 100."),
    prefer=("1024x768", "512x384"),
)

__all__ = ["KONIQ10K"]
