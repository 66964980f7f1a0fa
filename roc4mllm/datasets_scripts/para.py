"""
PARA: 31 220 photographs with nine ratings each of some 25 people, who are described.

    annotation/PARA-GiaaTrain.csv, PARA-GiaaTest.csv    per picture: votes, mean and std of everything that was asked
    annotation/PARA-Images.csv                          per rating
    imgs/<sessionId>/<imageName>                        names end in an underscore, iaa_pub1_.jpg

Traps. The archive needs its owners' password. Columns come in different orders, so they are read by name. A difficulty
of -1 means easy: it is no missing value. `qualityScore` has a mean and no votes. Tables of others hold means divided
by five. Who the raters are (PARA-UserInfo.csv) is not read: it describes persons.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from .data_set import DataSet
from .raw_folder import RawFolder
from .raw_tables import RawRow, count, number, read_table
from .schema import Range, Row, attribute, picture_row

FIVE: Range = (1, 5)
LEVELS = [str(1 + step / 2) for step in range(9)]  # 1.0 … 5.0
FURTHER = {  # attribute by what begins the names of its columns
    "composition": "compositionScore",
    "color": "colorScore",
    "depth_of_field": "dofScore",
    "light": "lightScore",
    "content": "contentScore",
    "content_preference": "contentPreference",
    "willingness_to_share": "willingnessToShare",
}
EMOTIONS = ("neutral", "disgust", "sadness", "fear", "awe", "amusement", "excitement", "contentment")
EASY_TO_DIFFICULT: Range = (-1, 1)
SHARE: Range = (0, 1)


def row(fields: dict[str, Any]) -> Row:
    """One picture with the votes of all its raters."""
    votes = [count(fields, f"aestheticScore_{level}") for level in LEVELS]
    attributes = [
        attribute("quality", number(fields, "qualityScore_mean"), FIVE, std=number(fields, "qualityScore_std"))
    ]
    attributes += [voted(name, fields, column, range(1, 6), FIVE) for name, column in FURTHER.items()]
    attributes.append(voted("difficulty", fields, "difficultyOfJudgment", range(-1, 2), EASY_TO_DIFFICULT))
    attributes.append(voted("object_emphasis", fields, "isObjectEmphasis", range(2), SHARE))
    felt = {name: count(fields, f"imgEmotion_{name}") for name in EMOTIONS}
    if total := sum(felt.values()):
        attributes += [attribute(f"emotion_{name}", given / total, SHARE) for name, given in felt.items()]
    return placed(fields, votes=votes, attributes=attributes)


def rating_row(fields: dict[str, Any]) -> Row:
    """One rating of a picture."""
    ranges: dict[str, tuple[str, Range]] = {name: (column, FIVE) for name, column in FURTHER.items()}
    ranges |= {"quality": ("qualityScore", FIVE), "difficulty": ("difficultyOfJudgment", EASY_TO_DIFFICULT)}
    ranges |= {"object_emphasis": ("isObjectEmphasis", SHARE)}
    attributes = [attribute(name, number(fields, column), pair) for name, (column, pair) in ranges.items()]
    felt = fields.get("imgEmotion", "")
    return placed(
        fields,
        score=number(fields, "aestheticScore"),
        num_ratings=1,
        rater_id=fields["userId"],
        attributes=attributes,
        tags=[f"emotion: {felt}"] if felt else [],
    )


def placed(fields: dict[str, Any], tags: list[str] | None = None, **rated: Any) -> Row:
    """A row with what both kinds of table say about the picture itself."""
    theme = fields["semantic"] or None
    return picture_row(
        f"imgs/{fields['sessionId']}/{fields['imageName']}",
        image_id=fields["imageName"],
        split=fields["split"],
        score_range=FIVE,
        theme=theme,
        tags=[*([theme] if theme else []), *(tags or [])],
        **rated,
    )


def voted(name: str, fields: Mapping[str, Any], column: str, levels: range, score_range: Range) -> Row:
    """An attribute with its votes; mean and std follow from them."""
    return attribute(name, None, score_range, votes=[count(dict(fields), f"{column}_{level}") for level in levels])


def read(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Rows of both tables of pictures."""
    for split, path in raw.need_some({"train": "PARA-GiaaTrain.csv", "test": "PARA-GiaaTest.csv"}):
        for found in read_table(path, need=["imageName", "sessionId", "semantic"]):
            found.fields["split"] = split
            yield found


def read_ratings(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Rows of the table of ratings; a picture belongs to the test if the table of test pictures has it."""
    test = {found.fields.get("imageName") for found in read_table(raw.need("PARA-GiaaTest.csv"), need=["imageName"])}
    for found in read_table(raw.need("PARA-Images.csv"), need=["imageName", "sessionId", "userId", "aestheticScore"]):
        found.fields["split"] = "test" if found.fields.get("imageName") in test else "train"
        yield found


TERMS = (
    "OPPO's agreement: for research and learning only, no sale, transfer or commercial use of the data or of results, "
    "the source must be cited."
)
CITATION = (
    "Y. Yang, L. Xu, L. Li, N. Qie, Y. Li, P. Zhang, Y. Guo. Personalized Image Aesthetics Assessment with Rich "
    "Attributes. CVPR 2022."
)

PARA = DataSet(
    name="para",
    title="PARA",
    read=read,
    row=row,
    protocols={"official": "28 220 for training, 3000 for test (PARA-GiaaTrain.csv, PARA-GiaaTest.csv)"},
    score="mean of 20 to 38 ratings in steps of 0.5, from 1 to 5",
    homepage="https://cv-datasets.institutecv.com",
    terms=TERMS,
    citation=CITATION,
    notes=("`difficulty` goes from -1, easy, to 1, difficult: there -1 is a value.",),
)

PARA_RATERS = DataSet(
    name="para-raters",
    title="PARA, rating by rating",
    read=read_ratings,
    row=rating_row,
    protocols={"official": "pictures divided as those of PARA; the same raters on both sides"},
    score="one person's rating in steps of 0.5, from 1 to 5",
    homepage=PARA.homepage,
    terms=TERMS,
    citation=CITATION,
    notes=(
        *PARA.notes,
        "Who the raters are (age, gender, education, experience, personality) is left out: it describes persons, and "
        "no model here reads it. `rater_id` is their userId in PARA-UserInfo.csv of the download.",
    ),
    pictures_of="para",
)

__all__ = ["PARA", "PARA_RATERS"]
