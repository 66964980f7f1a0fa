"""Ratings in a data set of the `datasets` library (Parquet, Hub names), beside the pictures or with their paths."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .rating_records import ATTRIBUTE_FIELDS, PICTURE_COLUMNS, RatingSource, Record

ATTRIBUTE_COLUMN = "attributes"  # a list of what else was rated, as converted data sets have it


class EmbeddedPictures:
    """
    The pictures that stand in a data set, undecoded and on disk: `pictures[n]` is that of row `n`, counted from 1, as
    `{"bytes": …, "path": …}`.
    """

    def __init__(self, dataset: Any, column: str):
        from datasets import Image  # type: ignore[import-untyped]

        self.column = column
        self.dataset = dataset.select_columns([column])
        if isinstance(dataset.features[column], Image):
            self.dataset = self.dataset.cast_column(column, Image(decode=False))

    def __getitem__(self, number: int) -> dict[str, Any]:
        return as_picture(self.dataset[int(number) - 1][self.column])

    def each(self, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Those of many rows, which is faster than one by one."""
        for batch in self.dataset.select([number - 1 for number in numbers]).iter(batch_size=16):
            yield from map(as_picture, batch[self.column])


def as_picture(value: Any) -> dict[str, Any]:
    """A cell of a picture column as the record that the `datasets` library uses for undecoded pictures."""
    if isinstance(value, dict):
        return {"bytes": value.get("bytes"), "path": value.get("path")}
    return {"bytes": value, "path": None}


class DatasetSource(RatingSource):
    """
    A `datasets.Dataset`; columns of pictures, sound and other bytes are no fields of its records. A column of
    attributes becomes columns of their names: `light_score`, `light_score_range`, `light_std`, `light_votes`.
    """

    unit = "row"

    def __init__(self, dataset: Any, path: Path | None, name: str, split: str | None = None):
        super().__init__(path, name, split)
        dataset = dataset.with_format(None)
        if column := picture_column(dataset.features, name):
            self.pictures = EmbeddedPictures(dataset, column)
        self.columns = [column for column, feature in dataset.features.items() if is_readable(feature)]
        self.dataset = dataset.select_columns(self.columns)
        if is_attribute_list(dataset.features.get(ATTRIBUTE_COLUMN)):
            self.attributes = attribute_names(self.dataset)
            self.columns.remove(ATTRIBUTE_COLUMN)
            self.columns += [f"{name}_{kind}" for name in self.attributes for kind in ATTRIBUTE_FIELDS]

    def records(self) -> Iterator[Record]:
        """The rows; a class label is its name."""
        from datasets import ClassLabel

        labels = {name: kind for name, kind in self.dataset.features.items() if isinstance(kind, ClassLabel)}
        number = 0
        for batch in self.dataset.iter(batch_size=1000) if self.columns else ():
            for values in zip(*batch.values(), strict=True):
                number += 1
                fields = dict(zip(batch, values, strict=True))
                fields |= {name: label_name(kind, fields[name]) for name, kind in labels.items()}
                if self.attributes:
                    fields |= spread(fields.pop(ATTRIBUTE_COLUMN))
                yield Record(number, fields)


def is_attribute_list(feature: Any) -> bool:
    """Whether a column lists what was rated, each with a name and a score."""
    from datasets import List

    return isinstance(feature, List) and isinstance(feature.feature, dict) and {"name", "score"} <= {*feature.feature}


def attribute_names(dataset: Any) -> list[str]:
    """Names of the attributes of all rows, in the order in which they first occur."""
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    names: dict[str, None] = {}
    for batch in dataset.select_columns([ATTRIBUTE_COLUMN]).with_format("arrow").iter(batch_size=1000):
        entries = pc.list_flatten(batch.column(ATTRIBUTE_COLUMN))
        found = pc.unique(pc.struct_field(entries, "name")).to_pylist()
        names.update(dict.fromkeys(name for name in found if name))
    return list(names)


def spread(attributes: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    """A list of attributes as fields."""
    return {
        f"{entry['name']}_{kind}": entry[kind]
        for entry in attributes or ()
        for kind in ATTRIBUTE_FIELDS
        if kind in entry
    }


def label_name(kind: Any, label: int | None) -> str | None:
    """The name of a class label; `datasets` writes -1 where it is unknown."""
    return None if label is None or label < 0 else kind.int2str(label)


def picture_column(features: Any, name: str) -> str | None:
    """The column that holds pictures themselves: of the type `Image`, or else bytes."""
    from datasets import Image

    columns = [column for column, feature in features.items() if isinstance(feature, Image)]
    columns = columns or [column for column, feature in features.items() if is_bytes(feature)]
    known = [column for wanted in PICTURE_COLUMNS for column in columns if column.casefold() == wanted]
    if len(columns) > 1 and not known:
        raise ValueError(f"{name} has several columns of pictures ({', '.join(columns)}); call the right one 'image'.")
    return (known or columns or [None])[0]


def is_bytes(feature: Any) -> bool:
    """Whether a column holds bytes, plain or under the name `bytes`."""
    if isinstance(feature, dict):
        return "bytes" in feature and is_bytes(feature["bytes"])
    return "binary" in str(getattr(feature, "dtype", ""))


def is_readable(feature: Any) -> bool:
    """Whether a column holds texts, numbers, or lists and records of them."""
    from datasets import ClassLabel, LargeList, List, Value

    if isinstance(feature, List | LargeList):
        return is_readable(feature.feature)
    if isinstance(feature, dict):
        return all(map(is_readable, feature.values()))
    return isinstance(feature, Value | ClassLabel) and not is_bytes(feature)


__all__ = ["DatasetSource"]
