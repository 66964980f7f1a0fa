"""
AVA: 255 530 photographs of dpchallenge.com with the votes, 1 to 10, that they got in their contests.

    AVA_dataset/AVA.txt                     index, image id, votes for 1 … 10, two semantic tags (0: none), challenge
    AVA_dataset/tags.txt, challenges.txt    `<id> <name>`
    AVA_dataset/aesthetics_image_lists/     <list>.jpgl, an id per line
    AVA_dataset/style_image_lists/          styles.txt; train.jpgl with train.lab, test.jpgl with test.multilab
    images/<id>.jpg                         in whatever folder
    {train,val,test}.csv                    of TANet, which describe the pictures by themselves

Traps. The votes are columns 3 to 12: a slice that stops one earlier drops the tens. In TANet's tables `score2` counts
ones, and so on to `score11`; `tag3` is the challenge. The archives hold some 20 pictures less than AVA.txt has rows,
and the official test list some 70 ids that AVA.txt does not know.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from .data_set import DataSet
from .raw_folder import RawFolder
from .raw_tables import RawRow, count, read_list, read_table, read_words
from .schema import Row, picture_row

VOTES = [str(level) for level in range(1, 11)]
COLUMNS = ["index", "image_id", *VOTES, "tag1", "tag2", "challenge"]
TANET_COLUMNS = {f"score{level + 1}": str(level) for level in range(1, 11)} | {"tag3": "challenge"}
CATEGORIES = ("animal", "architecture", "cityscape", "floral", "fooddrink", "landscape", "portrait", "stilllife")

# Lists of training and test by protocol; without a training list, all that is not tested on is trained on.
LISTS: dict[str, tuple[str | None, str]] = {
    "official": (None, "generic_test"),
    "official-20k": ("generic_ls_train", "generic_test"),
    "official-2500": ("generic_ss_train", "generic_test"),
    **{category: (f"{category}_train", f"{category}_test") for category in CATEGORIES},
}


def row(fields: dict[str, Any]) -> Row:
    """One picture with its votes, the names of its tags, its challenge and its styles."""
    image_id = str(count(fields, "image_id"))
    tags = [*fields["tags"], *fields["styles"]]
    if fields["challenge_name"]:
        tags.append(f"challenge: {fields['challenge_name'].replace('_', ' ')}")
    return picture_row(
        f"{image_id}.jpg",
        image_id=image_id,
        split=fields["split"],
        score_range=(1, 10),
        votes=[count(fields, level) for level in VOTES],
        theme=next(iter(fields["tags"]), None),
        tags=tags,
    )


def read(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Rows of AVA.txt that a protocol's lists name, or of TANet's tables."""
    names = Names(raw)
    for split, found in read_tanet(raw) if protocol == "tanet" else read_official(raw, *LISTS[protocol]):
        fields = found.fields
        fields["split"] = split
        if not found.problem:
            names.add_to(fields)
        yield found


def read_tanet(raw: RawFolder) -> Iterator[tuple[str, RawRow]]:
    """Rows of TANet's three tables under the names of AVA.txt's columns."""
    tables = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
    for split, path in raw.need_some(tables):
        for found in read_table(path, need=["image_id", *TANET_COLUMNS, "tag1", "tag2"]):
            fields = {TANET_COLUMNS.get(name, name): value for name, value in found.fields.items()}
            yield split, found._replace(fields=fields)


def read_official(raw: RawFolder, train: str | None, test: str) -> Iterator[tuple[str, RawRow]]:
    """Rows of AVA.txt; what a list names and AVA.txt does not is noted."""
    listed = {"test": set(read_list(raw.need(f"{test}.jpgl")))}
    if train is not None:
        listed["train"] = set(read_list(raw.need(f"aesthetics_image_lists/{train}.jpgl", f"{train}.jpgl")))
    missed = {split: set(ids) for split, ids in listed.items()}
    for found in read_words(raw.need("AVA.txt"), COLUMNS):
        image_id = found.fields.get("image_id")
        split = "test" if image_id in listed["test"] else "train"
        missed.get(split, set()).discard(image_id)
        if train is None or image_id in listed[split]:
            yield split, found
    for split, ids in missed.items():
        if ids:
            name = test if split == "test" else train
            raw.absent[f"in {name}.jpgl, but not in AVA.txt"] = sorted(ids, key=int)


class Names:
    """Tags, challenges and styles in words; without their files there are none."""

    def __init__(self, raw: RawFolder):
        self.tags = names_by_id(raw.find("tags.txt"))
        self.challenges = names_by_id(raw.find("challenges.txt"))
        self.styles = styles_by_image(raw)
        for name, found in (("tags.txt", self.tags), ("challenges.txt", self.challenges), ("styles", self.styles)):
            if not found:
                raw.notes.append(f"{name} not found: the tags lack its words")

    def add_to(self, fields: dict[str, Any]) -> None:
        """Join the words to a raw row."""
        tags = [self.tags.get(fields[name]) for name in ("tag1", "tag2")]
        fields["tags"] = list(dict.fromkeys(tag for tag in tags if tag))
        fields["challenge_name"] = self.challenges.get(fields["challenge"])
        fields["styles"] = self.styles.get(fields["image_id"], ())


def names_by_id(path: Path | None) -> dict[str, str]:
    """`<id> <name>`, in any order; names of tags have blanks."""
    if path is None:
        return {}
    return {
        found.fields["id"]: found.fields["name"] for found in read_words(path, ["id", "name"]) if not found.problem
    }


def styles_by_image(raw: RawFolder) -> Mapping[str, Collection[str]]:
    """`style: …` by image: one for those of the training list, any number for those of the test list."""
    names = {key: f"style: {name.replace('_', ' ')}" for key, name in names_by_id(raw.find("styles.txt")).items()}
    parts = ["train.jpgl", "train.lab", "test.jpgl", "test.multilab"]
    paths = [raw.find(f"style_image_lists/{part}") for part in parts]
    if not names or None in paths:
        return {}
    train, labels, test, marks = (read_list(path) for path in paths if path is not None)
    found: dict[str, tuple[str, ...]] = {
        image_id: (names[label],) for image_id, label in zip(train, labels, strict=True)
    }
    for image_id, line in zip(test, marks, strict=True):
        found[image_id] = tuple(names[str(number)] for number, mark in enumerate(line.split(), 1) if mark == "1")
    return found


AVA = DataSet(
    name="ava",
    title="AVA",
    read=read,
    row=row,
    protocols={
        "official": "tested on generic_test.jpgl, trained on all other pictures",
        "tanet": "the random 90/5/5 % of TANet's tables; most of its training pictures are in the official test",
        "official-20k": "generic_ls_train.jpgl and generic_test.jpgl",
        "official-2500": "generic_ss_train.jpgl and generic_test.jpgl",
        **{category: f"the 2500 and 2500 pictures of the {category} lists" for category in CATEGORIES},
    },
    score="mean of 78 to 549 votes, from 1 to 10",
    homepage="https://github.com/imfing/ava_downloader",
    terms="No licence is granted: rights stay with the photographers and dpchallenge.com. The authors' README asks to "
    "refrain from redistributing images or data.",
    citation="N. Murray, L. Marchesotti, F. Perronnin. AVA: A Large-Scale Database for Aesthetic Visual Analysis. "
    "CVPR 2012.",
    notes=(
        "Published numbers stand on different splits: the official test, and random 5 % without a common seed. They "
        "are not comparable.",
        "`theme` is the first semantic tag.",
    ),
)

__all__ = ["AVA"]
