"""What the demo keeps of each picture: a record or an error for every file, and a table with the command's columns."""

import csv
import io
from pathlib import Path

import pytest
from PIL import Image
from tiny import photo, scorer_parts
from tiny_image_scorers import eat_scorer

from roc4mllm import load_scorer
from roc4mllm.inference.demo.pictures import (
    GONE,
    THUMBNAIL,
    Upload,
    attributes_of,
    chosen,
    explain_picture,
    numbered,
    score_uploads,
    scores_csv,
    writes_text,
)
from roc4mllm.inference.tables.score_table import table_columns
from roc4mllm.processing_roc4mllm.image_reading_aesthetics import PictureError

ATTRIBUTES = ("aesthetics", "light")


@pytest.fixture(scope="module")
def scorer():
    model, processor = scorer_parts("llava", ATTRIBUTES)
    return load_scorer(model, processor=processor)


@pytest.fixture
def uploads(tmp_path: Path) -> list[Upload]:
    """Two photographs with a broken file between them."""
    photo(1, 640, 360).save(tmp_path / "1.png")
    (tmp_path / "2.jpg").write_bytes(b"no picture")
    photo(2).save(tmp_path / "3.png")
    return [Upload(f"{name} of mine", str(tmp_path / name)) for name in ("1.png", "2.jpg", "3.png")]


def scored(scorer, uploads, **options):
    return list(score_uploads(scorer, uploads, **{"most": 20} | options))


def test_every_file_is_a_result_in_order_with_the_scorers_own_record(scorer, uploads):
    pictures = scored(scorer, uploads)
    assert [one.upload for one in pictures] == uploads
    assert [one.failed for one in pictures] == [False, True, False]
    assert abs(pictures[0].record["score"] - pictures[2].record["score"]) > 1e-3
    for one in pictures:
        assert one.record == scorer(one.upload.path)
    assert pictures[1].record["score"] is None


def test_thumbnail_is_a_small_picture_of_the_same_shape(scorer, uploads):
    pictures = scored(scorer, uploads)
    small = Image.open(io.BytesIO(pictures[0].thumbnail))
    assert (small.size, small.format) == ((THUMBNAIL, THUMBNAIL * 9 // 16), "JPEG")
    assert Image.open(io.BytesIO(pictures[2].thumbnail)).size == (64, 48)
    assert pictures[1].thumbnail is None


def test_files_beyond_the_limit_are_errors(scorer, uploads):
    pictures = scored(scorer, uploads, most=1)
    assert [one.record["error"] for one in pictures] == [None, *["not scored: at most 1 pictures at once"] * 2]
    assert pictures[2].record["score"] is None


def test_what_was_scored_before_is_taken_over_unless_it_failed_or_lacks_the_comment(scorer, uploads):
    earlier = scored(scorer, uploads)
    again = scored(scorer, uploads[1:], earlier=earlier)
    assert again[1] is earlier[2]
    photo(3).save(uploads[1].path)
    assert not scored(scorer, uploads, earlier=earlier)[1].failed
    with_text = scored(scorer, uploads[2:], earlier=earlier, with_text=True)
    assert with_text[0].record["text"].startswith("The aesthetic rate of the image is")
    assert "text" not in earlier[2].record
    assert scored(scorer, uploads[2:], earlier=with_text, with_text=True)[0] is with_text[0]


def test_a_model_without_language_is_not_asked_for_comments(uploads):
    scorer = eat_scorer()
    assert not writes_text(scorer)
    pictures = scored(scorer, uploads[:1], with_text=True)
    assert pictures[0].record == scorer(uploads[0].path)


def test_a_deleted_upload_says_so_and_names_no_path(scorer, uploads):
    (one,) = scored(scorer, uploads[:1])
    Path(uploads[0].path).unlink()
    with pytest.raises(PictureError, match=f"^{GONE}$"):
        explain_picture(scorer, one)
    assert scored(scorer, uploads[:1])[0].record["error"] == GONE


def test_explanation_is_of_the_attribute_that_was_asked_for(scorer, uploads):
    (one,) = scored(scorer, uploads[:1])
    for name in ATTRIBUTES:
        explanation = explain_picture(scorer, one, name)
        assert explanation.record["attributes"] == {name: pytest.approx(one.record["attributes"][name], abs=1e-5)}
    assert abs(one.record["attributes"]["light"] - one.record["score"]) > 1e-3


def test_table_has_the_columns_of_the_command_and_the_visitors_names(scorer, uploads):
    pictures = scored(scorer, uploads)
    table = scores_csv(pictures, attributes_of(scorer)).decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(table)))
    assert list(rows[0]) == table_columns(ATTRIBUTES)
    assert [row["path"] for row in rows] == ["1.png of mine", "2.jpg of mine", "3.png of mine"]
    assert float(rows[0]["score"]) == pytest.approx(pictures[0].record["score"], abs=1e-6)
    assert (rows[1]["score"], rows[1]["light"]) == ("", "")
    assert rows[1]["error"].startswith("not a picture")


def test_only_pictures_with_a_score_can_be_chosen(scorer, uploads):
    pictures = scored(scorer, uploads)
    assert numbered(pictures) == [("1. 1.png of mine", 0), ("3. 3.png of mine", 2)]
    assert chosen(pictures, 2) is pictures[2]
    for place in (1, 3, -1, None, True, "0", 0.0):
        assert chosen(pictures, place) is None
