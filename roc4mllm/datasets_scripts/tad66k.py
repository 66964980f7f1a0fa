"""
TAD66K: 66 327 photographs of Flickr in 47 themes, rated by theme.

    labels/merge/{train,test}.csv              image,score
    labels/unmerge/{train,test}/<theme>.csv    image,score
    TAD66K/<image>                             all in one folder

Trap. The two divisions differ: 478 pictures of the themes `tree` and `flower` are in merge/test and in unmerge/train.
The split is therefore that of one of them, and the theme is looked up in both halves of `unmerge`. Names may begin
with a hyphen and hold `@`.
"""

from collections.abc import Iterator
from typing import Any

from .data_set import DataSet
from .raw_folder import RawFolder
from .raw_tables import RawRow, number, read_table
from .schema import Row, picture_row

TABLE = ["image", "score"]


def row(fields: dict[str, Any]) -> Row:
    """One picture with its score and theme."""
    return picture_row(
        fields["image"],
        split=fields["split"],
        score_range=(1, 10),
        score=number(fields, "score"),
        theme=fields["theme"],
        tags=[fields["theme"]] if fields["theme"] else [],
    )


def read(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Rows of the tables of a division, the theme joined to them."""
    themes = read_themes(raw)
    if protocol == "unmerge":
        tables = [(split, path) for split in ("train", "test") for path in raw.find_all(f"unmerge/{split}/*.csv")]
        if not tables:
            raw.need("unmerge/train/<theme>.csv")
    else:
        tables = list(raw.need_some({"train": "merge/train.csv", "test": "merge/test.csv"}))
    for split, path in tables:
        for found in read_table(path, need=TABLE):
            found.fields.update(split=split, theme=themes.get(found.fields.get("image", "")))
            yield found


def read_themes(raw: RawFolder) -> dict[str, str]:
    """Theme by image, of both halves."""
    themes: dict[str, str] = {}
    for path in raw.find_all("unmerge/*/*.csv"):
        themes |= {found.fields["image"]: path.stem for found in read_table(path, need=TABLE) if not found.problem}
    if not themes:
        raw.notes.append("unmerge/*/<theme>.csv not found: there are no themes")
    return themes


TAD66K = DataSet(
    name="tad66k",
    title="TAD66K",
    read=read,
    row=row,
    protocols={
        "merge": "52 248 for training, 14 079 for test: what TANet, EAT and others report",
        "unmerge": "52 726 for training, 13 601 for test, by theme; 478 of its training pictures are in merge's test",
    },
    score="mean rating by the criteria of the theme, from 1 to 10",
    homepage="https://github.com/woshidandan/TANet-image-aesthetics-and-quality-assessment",
    terms="No terms are stated for the data (the authors' code is Apache-2.0); the photographs are Flickr users'.",
    citation="S. He, Y. Zhang, R. Xie, D. Jiang, A. Ming. Rethinking Image Aesthetics Assessment: Models, Datasets "
    "and Benchmarks. IJCAI 2022.",
    pictures_of="flickr",
)

__all__ = ["TAD66K"]
