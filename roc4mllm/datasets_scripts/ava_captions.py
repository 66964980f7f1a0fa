"""
AVA-Captions and AVA-Comments: what people wrote beneath the photographs of AVA.

    CLEAN_AVA_FULL_AFTER_SUBJECTIVE_CLEANING.json   AVA-Captions: {"images": [{"imgid", "split", "sentences": […]}]}
    AVA_Comments_Full.txt                           AVA-Comments: `?#<image id>#<comment>#<comment>…`, a line per image
    AVA_dataset/AVA.txt                             optional, for the votes
    images/<id>.jpg

Traps. Other files go under the name of AVA-Captions, with other keys. A comment that holds `#` comes as two. Lines of
AVA-Comments whose id is no number are no images. The split of AVA-Captions is random and is not that of AVA.
"""

from array import array
from collections.abc import Iterator
from typing import Any

from .ava import COLUMNS, LISTS, VOTES
from .data_set import DataSet
from .raw_folder import RawFolder
from .raw_tables import RawRow, count, read_json_array, read_lines, read_list, read_words
from .schema import Row, picture_row

CAPTIONS = ("CLEAN_AVA_FULL_AFTER_SUBJECTIVE_CLEANING.json", "CLEAN_AVA_FULL_COMMENTS.json", "CLEAN_*.json")
SPLITS = {"train": "train", "val": "validation", "test": "test"}
VSENSE = "https://github.com/V-Sense/Aesthetic-Image-Captioning-ICCVW-2019"


def row(fields: dict[str, Any]) -> Row:
    """One picture with its comments, and its votes where AVA.txt was there."""
    image_id = str(count(fields, "imgid"))
    return picture_row(
        f"{image_id}.jpg",
        image_id=image_id,
        split=fields["split"],
        score_range=(1, 10),
        votes=fields["votes"],
        comments=[text for comment in fields["comments"] if (text := " ".join(comment.split()))],
    )


def read_captions(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Entries of AVA-Captions."""
    votes = read_votes(raw)
    for found in read_json_array(raw.need(*CAPTIONS), "images"):
        fields = found.fields
        if not found.problem and not {"imgid", "split", "sentences"} <= fields.keys():
            found = found._replace(problem=f"keys {list(fields)[:8]}, expected imgid, split, sentences")
        if not found.problem:
            sentences = [sentence.get("raw") or sentence.get("clean") or "" for sentence in fields["sentences"]]
            split = SPLITS.get(fields["split"], fields["split"])
            joined = {"imgid": fields["imgid"], "split": split, "comments": sentences}
            found = found._replace(fields=joined | {"votes": votes.get(str(fields["imgid"]))})
        yield found


def read_comments(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Lines of AVA-Comments."""
    votes, path = read_votes(raw), raw.need("AVA_Comments_Full.txt")
    test = set(read_list(raw.need(f"{LISTS['official'][1]}.jpgl")))
    for line, text in enumerate(read_lines(path), start=1):
        _, image_id, *comments = [*text.strip().split("#"), ""]
        image_id = image_id.strip()
        if image_id.isdigit():
            fields = {"imgid": image_id, "split": "test" if image_id in test else "train", "comments": comments}
            yield RawRow(path.name, line, fields | {"votes": votes.get(image_id)})
        elif text.strip():
            yield RawRow(path.name, line, {}, f"the image id is {image_id[:40]!r}, which is no number")


class Votes:
    """Votes by image id, forty bytes each."""

    def __init__(self) -> None:
        self.known: dict[str, array[int]] = {}

    def get(self, image_id: str) -> list[int] | None:
        """Those of a picture, where they are known."""
        found = self.known.get(image_id)
        return None if found is None else found.tolist()


def read_votes(raw: RawFolder) -> Votes:
    """What AVA.txt says, if it is there."""
    votes, path = Votes(), raw.find("AVA.txt")
    if path is None:
        raw.notes.append("AVA.txt not found: comments without votes")
        return votes
    for found in read_words(path, COLUMNS):
        if not found.problem:
            votes.known[found.fields["image_id"]] = array("I", (count(found.fields, level) for level in VOTES))
    return votes


AVA_CAPTIONS = DataSet(
    name="ava-captions",
    title="AVA-Captions",
    read=read_captions,
    row=row,
    protocols={"vsense": "the random split in the authors' file: some 5000 for validation and for test each"},
    score="mean of the votes of AVA, from 1 to 10, where AVA.txt is there",
    homepage=VSENSE,
    terms="No licence is stated. The photographs and comments are those of dpchallenge.com; see AVA.",
    citation="K. Ghosal, A. Rana, A. Smolic. Aesthetic Image Captioning from Weakly-Labelled Photographs. ICCV "
    "Workshops 2019.",
    notes=("The split is not AVA's: never test on one and train on the other.",),
    pictures_of="ava",
)

AVA_COMMENTS = DataSet(
    name="ava-comments",
    title="AVA-Comments",
    read=read_comments,
    row=row,
    protocols={"official": "the official test of AVA, generic_test.jpgl; trained on all others"},
    score=AVA_CAPTIONS.score,
    homepage=VSENSE,
    terms=AVA_CAPTIONS.terms,
    citation="Y. Zhou, X. Lu, J. Zhang, J. Z. Wang. Joint Image and Text Representation for Aesthetics Analysis. ACM "
    "Multimedia 2016.",
    notes=("The comments are as they were written; AVA-Captions is the cleaned selection.",),
    pictures_of="ava",
)

__all__ = ["AVA_CAPTIONS", "AVA_COMMENTS"]
