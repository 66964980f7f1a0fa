"""
AADB: 9958 photographs of Flickr with a score and eleven attributes, five raters each.

    imgListFiles_label/imgList{TrainRegression,ValidationRegression,TestNewRegression}_<what>.txt    `<file> <value>`
    AADBinfo.mat                     names and scores of training and test, where that is all there is
    datasetImages_originalSize/, AADB_newtest_originalSize/, datasetImages_warp256/

Traps. An attribute is the mean of -1, 0 and 1: negative hurts, 0 is neutral, and neither is missing. The test is
TestNew; the older list holds bad pictures. Stated are 8500 training pictures, listed 8458. BalacingElements is the
file's spelling.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .data_set import DataSet
from .raw_folder import RawFolder
from .raw_tables import RawRow, number, read_words
from .schema import Range, Row, attribute, picture_row

ATTRIBUTES = {  # by the ending of their lists
    "BalacingElements": "balancing_elements",
    "ColorHarmony": "color_harmony",
    "Content": "content",
    "DoF": "depth_of_field",
    "Light": "light",
    "MotionBlur": "motion_blur",
    "Object": "object",
    "Repetition": "repetition",
    "RuleOfThirds": "rule_of_thirds",
    "Symmetry": "symmetry",
    "VividColor": "vivid_color",
}
LISTS = {"train": "TrainRegression", "validation": "ValidationRegression", "test": "TestNewRegression"}
HURTS_TO_HELPS: Range = (-1, 1)


def row(fields: dict[str, Any]) -> Row:
    """One picture with its score and the attributes that are known of it."""
    return picture_row(
        fields["image"],
        split=fields["split"],
        score_range=(0, 1),
        score=number(fields, "score"),
        attributes=[
            attribute(name, number(fields, ending), HURTS_TO_HELPS)
            for ending, name in ATTRIBUTES.items()
            if ending in fields
        ],
    )


def read(raw: RawFolder, protocol: str) -> Iterator[RawRow]:
    """Rows of the lists of scores, attributes joined by the name of the picture."""
    if not raw.find_all("imgList*_score.txt") and (mat := raw.find("AADBinfo.mat")):
        raw.notes.append("imgListFiles_label not found: scores of AADBinfo.mat, no attributes and no validation")
        yield from read_mat(mat)
        return
    for split, path in raw.need_some({split: f"imgList{name}_score.txt" for split, name in LISTS.items()}):
        attributes = {ending: read_values(raw, LISTS[split], ending) for ending in ATTRIBUTES}
        for found in read_words(path, ["image", "score"]):
            image = found.fields["image"]
            found.fields["split"] = split
            found.fields.update({ending: values[image] for ending, values in attributes.items() if image in values})
            yield found


def read_values(raw: RawFolder, split: str, ending: str) -> dict[str, str]:
    """One attribute by picture."""
    name = f"imgList{split}_{ending}.txt"
    if (path := raw.find(name)) is None:
        raw.notes.append(f"{name} not found: {ATTRIBUTES[ending]} is not known there")
        return {}
    rows = read_words(path, ["image", "value"])
    return {found.fields["image"]: found.fields["value"] for found in rows if not found.problem}


def read_mat(path: Path) -> Iterator[RawRow]:
    """The scores that Matlab's file holds."""
    try:
        from scipy.io import loadmat  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(f'{path.name} needs scipy: pip install "roc4mllm[train]"') from error
    for split in ("train", "test"):
        try:
            content = loadmat(path, variable_names=[f"{split}NameList", f"{split}Score"])
            names = [str(name[0]) for name in content[f"{split}NameList"].ravel()]
            scores = [float(score) for score in content[f"{split}Score"].ravel()]
            rated = list(zip(names, scores, strict=True))
        except Exception as error:  # scipy raises nearly anything on a damaged file
            raise ValueError(f"{path.name} is damaged, or not that of AADB ({error!r}); fetch it again.") from error
        for entry, (name, score) in enumerate(rated, start=1):
            yield RawRow(f"{path.name}, {split}", entry, {"image": name, "score": score, "split": split}, unit="entry")


AADB = DataSet(
    name="aadb",
    title="AADB",
    read=read,
    row=row,
    protocols={"official": "TrainRegression, ValidationRegression and TestNewRegression: some 8458, 500, 1000"},
    score="mean of some five ratings, from 0 to 1",
    homepage="https://github.com/aimerykong/deepImageAestheticsAnalysis",
    terms="For research only, says the authors' page; the photographs are Flickr users', under Creative Commons.",
    citation="S. Kong, X. Shen, Z. Lin, R. Mech, C. Fowlkes. Photo Aesthetics Ranking Network with Attributes and "
    "Content Adaptation. ECCV 2016.",
    notes=("Attributes go from -1, hurts, over 0, neutral, to 1, helps: none of these means missing.",),
    pictures_of="flickr",
    prefer=("newtest_originalsize", "originalsize", "newtest", "warp256"),
)

__all__ = ["AADB"]
