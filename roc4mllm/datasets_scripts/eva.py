"""
EVA: 4070 photographs of AVA, rated anew by 30 to 46 people each, with four attributes.

    data/votes_filtered.csv           a row per vote, `=` between cells
    data/image_content_category.csv   "image_id","sort"
    images/EVA_together.zip.001 …     one zip in parts; EVA_together/<AVA id>.jpg

Traps. The pictures are AVA's: a model that was trained on AVA has seen them. Cells may be `3.0`. The columns 1 to 4
are check boxes. There is no official split.
"""

from collections.abc import Iterator
from typing import Any

from .data_set import DataSet
from .raw_folder import RawFolder
from .raw_tables import RawRow, count, read_table
from .schema import Row, attribute, picture_row

ATTRIBUTES = {"visual": "light_and_color", "composition": "composition", "quality": "quality", "semantic": "semantic"}
CATEGORIES = ("animals", "architectures and city scenes", "human", "natural and rural scenes", "still life", "other")


def row(fields: dict[str, Any]) -> Row:
    """One picture with the votes of all."""
    return picture_row(
        f"{fields['image_id']}.jpg",
        image_id=fields["image_id"],
        split="train",
        score_range=(0, 10),
        votes=fields["score"],
        attributes=[
            attribute(name, None, (1, 4), votes=fields[column])
            for column, name in ATTRIBUTES.items()
            if any(fields[column])
        ],
        theme=fields["theme"],
        tags=[fields["theme"]] if fields["theme"] else [],
    )


def read(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """A row per picture, its votes counted; a vote that cannot be read is a row of its own with a problem."""
    path, themes = raw.need("votes_filtered.csv"), read_themes(raw)
    pictures: dict[str, RawRow] = {}
    for found in read_table(path, delimiter="=", need=["image_id", "score", *ATTRIBUTES]):
        try:
            if found.problem:
                raise ValueError(found.problem)
            image_id = str(count(found.fields, "image_id"))
            levels = {"score": (0, 10)} | dict.fromkeys(ATTRIBUTES, (1, 4))
            places = {column: level_of(found.fields, column, *ends) for column, ends in levels.items()}
        except ValueError as error:
            yield found._replace(problem=str(error))
            continue
        if image_id not in pictures:
            empty = {column: [0] * (high - low + 1) for column, (low, high) in levels.items()}
            fields = {"image_id": image_id, "theme": themes.get(image_id), **empty}
            pictures[image_id] = RawRow(path.name, found.line, fields)
        for column, place in places.items():
            if place is not None:
                pictures[image_id].fields[column][place] += 1
    yield from pictures.values()


def level_of(fields: dict[str, Any], column: str, low: int, high: int) -> int | None:
    """Place of a vote among the levels; an attribute may be left empty."""
    if column != "score" and not fields[column]:
        return None
    vote = count(fields, column)
    if not low <= vote <= high:
        raise ValueError(f"{column} is {vote}; expected {low} to {high}")
    return vote - low


def read_themes(raw: RawFolder) -> dict[str, str]:
    """Category by picture."""
    if (path := raw.find("image_content_category.csv")) is None:
        raw.notes.append("image_content_category.csv not found: there are no themes")
        return {}
    rows = (found.fields for found in read_table(path, need=["image_id", "sort"]) if not found.problem)
    return {fields["image_id"]: CATEGORIES[count(fields, "sort") - 1] for fields in rows}


EVA = DataSet(
    name="eva",
    title="EVA",
    read=read,
    row=row,
    protocols={"unsplit": "all in train: the authors publish no split"},
    score="mean of 30 to 46 votes, from 0 to 10",
    homepage="https://github.com/kang-gnak/eva-dataset",
    terms="CC0-1.0 for the authors' part; the photographs are AVA's.",
    citation="C. Kang, G. Valenzise, F. Dufaux. EVA: An Explainable Visual Aesthetics Dataset. ATQAM/MAST at ACM "
    "Multimedia 2020.",
    notes=(
        "The pictures are AVA's: do not test a model on EVA that was trained on them.",
        "Who voted (users.csv: year of birth, region, gender, experience, eyesight) is left out: it describes "
        "persons, and a row here holds the votes of all.",
    ),
    pictures_of="ava",
)

__all__ = ["EVA"]
