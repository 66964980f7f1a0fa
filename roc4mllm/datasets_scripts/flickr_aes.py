"""
FLICKR-AES: some 40 000 photographs of Flickr, each rated by five people.

    FLICKR-AES_image_score.txt                       `<file> <score>`, weighted mean, 0 to 1
    FLICKR-AES_image_labeled_by_each_worker.csv      `worker, imagePair, score`, 1 to 5: note the blanks
    40K/<file>

Traps. Names of columns, and in one copy of pictures, begin with a blank. Some names of the one file are missing in the
other or among the pictures. There is no official list of a split; the paper divides people, 173 and 37, not pictures.
"""

from collections.abc import Iterator
from typing import Any

from .data_set import DataSet
from .raw_folder import RawFolder
from .raw_tables import RawRow, number, read_table, read_words
from .schema import Row, picture_row


def row(fields: dict[str, Any]) -> Row:
    """One picture with the score of all."""
    return picture_row(fields["image"], split="train", score_range=(0, 1), score=number(fields, "score"))


def rating_row(fields: dict[str, Any]) -> Row:
    """One rating of a picture."""
    return picture_row(
        fields["imagePair"],
        split="train",
        score_range=(1, 5),
        score=number(fields, "score"),
        num_ratings=1,
        rater_id=fields["worker"],
    )


def read(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Rows of the list of scores."""
    return read_words(raw.need("FLICKR-AES_image_score.txt"), ["image", "score"])


def read_ratings(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Rows of the table of ratings."""
    path = raw.need("FLICKR-AES_image_labeled_by_each_worker.csv")
    return read_table(path, need=["worker", "imagePair", "score"])


TERMS = "For research only; the photographs are Flickr users', under Creative Commons."
CITATION = "J. Ren, X. Shen, Z. Lin, R. Mech, D. J. Foran. Personalized Image Aesthetics. ICCV 2017."
UNSPLIT = {"unsplit": "all in train: the paper divides raters, and publishes no list"}

FLICKR_AES = DataSet(
    name="flickr-aes",
    title="FLICKR-AES",
    read=read,
    row=row,
    protocols=UNSPLIT,
    score="weighted mean of five ratings, from 0 to 1",
    homepage="https://github.com/alanspike/personalizedImageAesthetics",
    terms=TERMS,
    citation=CITATION,
    pictures_of="flickr",
)

FLICKR_AES_WORKERS = DataSet(
    name="flickr-aes-workers",
    title="FLICKR-AES, rating by rating",
    read=read_ratings,
    row=rating_row,
    protocols=UNSPLIT,
    score="one person's rating, from 1 to 5",
    homepage=FLICKR_AES.homepage,
    terms=TERMS,
    citation=CITATION,
    pictures_of="flickr",
)

__all__ = ["FLICKR_AES", "FLICKR_AES_WORKERS"]
