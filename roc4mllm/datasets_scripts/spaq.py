"""
SPAQ: 11 125 photographs of smartphones with their quality, five attributes and scenes.

    Annotations/MOS and Image attribute scores.xlsx   Image name, MOS, Brightness, …; 0 to 100
    Annotations/Scene category labels.xlsx            Image name and a column per scene, > 0 where it is one
    spaqTrain.csv, spaqTest.csv                       instead, as woshidandan divides them: image_id, MOS, …; 0 to 10
    TestImage/00001.jpg …

Traps. The tables of others hold a tenth of the official values: a file whose MOS all lie within 10 is read so. The
score is quality, not beauty. There is no official split.
"""

from collections.abc import Iterator
from typing import Any

from .data_set import DataSet
from .raw_folder import RawFolder
from .raw_tables import RawRow, number, read_spreadsheet, read_table
from .schema import Range, Row, attribute, picture_row

HUNDRED: Range = (0, 100)
ATTRIBUTES = ("Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")


def row(fields: dict[str, Any]) -> Row:
    """One picture; values of a tenth are brought back to 0 … 100."""
    unit, scenes = fields["unit"], fields["scenes"]
    return picture_row(
        fields["image"],
        split=fields["split"],
        score_range=HUNDRED,
        score=unit * number(fields, "MOS"),
        attributes=[attribute(name.lower(), unit * number(fields, name), HUNDRED) for name in ATTRIBUTES],
        theme=scenes[0] if len(scenes) == 1 else None,
        tags=scenes,
    )


def read(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Rows of the official spreadsheet, or of the two tables."""
    scenes = read_scenes(raw)
    if protocol == "woshidandan":
        tables = raw.need_some({"train": "spaqTrain.csv", "test": "spaqTest.csv"})
        read_by = [("image_id", split, list(read_table(path, need=["image_id", "MOS"]))) for split, path in tables]
    else:
        sheet = read_spreadsheet(raw.need("MOS and Image attribute scores.xlsx"), need=["Image name", "MOS"])
        read_by = [("Image name", "train", list(sheet))]
    for column, split, rows in read_by:
        unit = unit_of(rows)
        for found in rows:
            image = found.fields.get(column, "")
            found.fields.update(image=image, split=split, unit=unit, scenes=scenes.get(image, []))
            yield found


def unit_of(rows: list[RawRow]) -> float:
    """What a value is to be multiplied with: 10 where all lie within 10."""
    try:
        return 10.0 if max(number(found.fields, "MOS") for found in rows) <= 10 else 1.0
    except ValueError:
        return 1.0  # the row will say so itself


def read_scenes(raw: RawFolder) -> dict[str, list[str]]:
    """Scenes by picture."""
    if (path := raw.find("Scene category labels.xlsx")) is None:
        raw.notes.append("Scene category labels.xlsx not found: there are no scenes")
        return {}
    scenes = {}
    for found in read_spreadsheet(path, need=["Image name"]):
        image = found.fields.pop("Image name")
        scenes[image] = [name for name, value in found.fields.items() if value and number(found.fields, name) > 0]
    return scenes


SPAQ = DataSet(
    name="spaq",
    title="SPAQ",
    read=read,
    row=row,
    protocols={
        "unsplit": "all in train: the authors publish no split",
        "woshidandan": "00001 to 10000 for training, 10001 to 11125 for test (spaqTrain.csv, spaqTest.csv)",
    },
    score="mean opinion of quality, from 0 to 100",
    homepage="https://github.com/h4nwei/SPAQ",
    terms="No licence is stated.",
    citation="Y. Fang, H. Zhu, Y. Zeng, K. Ma, Z. Wang. Perceptual Quality Assessment of Smartphone Photography. CVPR "
    "2020.",
    notes=("The score is technical quality, not beauty.",),
)

__all__ = ["SPAQ"]
