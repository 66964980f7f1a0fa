"""What must hold before training: every kind of bad row is found, with its exact line, in one error."""

import os
import pickle

import pytest
from pictures import bomb, encoded, half
from PIL import Image

from roc4mllm.processing_roc4mllm.image_reading_aesthetics import read_image
from roc4mllm.trainer.rating_checks import RatingError, picture_problem
from roc4mllm.trainer.rating_data import read_ratings

PHOTO = Image.new("RGB", (64, 48), "red")


@pytest.fixture
def folder(tmp_path):
    PHOTO.save(tmp_path / "a.png")
    return tmp_path


def refused(path, **options) -> RatingError:
    with pytest.raises(RatingError) as caught:
        read_ratings(path, **options)
    return caught.value


def test_every_kind_of_bad_row_is_told_with_its_line(folder):
    (folder / "text.png").write_text("not a picture")
    (folder / "folder.png").mkdir()
    lines = [
        "\ufeffpath,score,std,votes,comment",
        'a.png,2,0.5,"[1, 2, 1]","fine,',  # line 2, and its comment has three lines
        "",
        'really"',
        "nowhere.png,2,,,",  # line 5
        "text.png,2,,,",
        "folder.png,2,,,",
        ",2,,,",  # line 8
        "a.png,nan,,,",
        "a.png,high,,,",
        "a.png,3.5,,,",  # line 11
        "a.png,2,-1,,",
        'a.png,2,,"[1, -2, 3]",',
        'a.png,2,,"[0, 0, 0]",',  # line 14
        'a.png,2,,"[1, 1]",',
        'a.png,2,,"[1, NaN, 3]",',
        'a.png,1,,"[0, 1, 3]",',  # line 17
        "a.png,2,,,It is [SCORE].",
        "a.png,2,,",
        "https://example.org/a.png,2,,,",  # line 20
        "a.png,3,,,",
    ]
    (folder / "r.csv").write_text("\r\n".join(lines), encoding="utf-8", newline="")
    expected = {
        5: f"no such file: {folder / 'nowhere.png'}",
        6: f"not a picture in a format that Pillow reads; it begins with b'not a pictur': {folder / 'text.png'}",
        7: f"a folder, not a file: {folder / 'folder.png'}",
        8: "path is ''; expected the path of a picture",
        9: "no score (score is 'nan'), no votes and no comment",
        10: "score is 'high', which is no number",
        11: "score is 3.5, outside 1 to 3 (3 levels of votes)",
        12: "std is -1; a standard deviation is at least 0",
        13: "votes are negative: -2",
        14: "votes sum to zero",
        15: "votes for 2 levels, expected 3",
        16: "votes are known for 2 of 3 levels only",
        17: "score is 1, but the mean of the votes is 2.75",
        18: "A comment must not contain [SCORE], which marks where a score is read: 'It is [SCORE].'.",
        19: "4 cells where the first line names 5 columns",
        20: "a URL; download the pictures first, training reads them again and again: https://example.org/a.png",
    }
    error = refused(folder / "r.csv")
    assert dict(error.bad_rows) == expected
    message = str(error).splitlines()
    assert message[0] == "r.csv: 16 of 18 rows cannot be used."
    assert message[1:11] == [f"  line {number}: {expected[number]}" for number in range(5, 15)]
    assert message[11] == "  … and 6 more"
    assert message[12].startswith("Mend them, or name a file with skip_bad_rows")


def test_a_row_may_be_bad_for_two_reasons(folder):
    (folder / "r.csv").write_text("path,score\na.png,2\nnowhere.png,9\na.png,3\n")
    assert refused(folder / "r.csv", score_range=(1, 5)).bad_rows == [
        (3, f"no such file: {folder / 'nowhere.png'}; score is 9, outside 1 to 5 (as given)")
    ]


def test_the_mean_of_the_votes_may_differ_from_the_score_by_half_a_step(folder):
    (folder / "r.csv").write_text('path,score,votes\na.png,2.5,"[1, 2, 1]"\na.png,2.51,"[1, 2, 1]"\na.png,2,\n')
    assert refused(folder / "r.csv").bad_rows == [(3, "score is 2.51, but the mean of the votes is 2")]


def test_the_error_survives_pickling(folder):
    error = pickle.loads(pickle.dumps(RatingError("two lines", [(3, "no score")])))
    assert (str(error), error.bad_rows) == ("two lines", [(3, "no score")])


# Pictures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_sound_picture_has_no_problem(tmp_path, kind, as_bytes):
    data = encoded(PHOTO, kind)
    (tmp_path / "a").write_bytes(data)
    assert picture_problem({"bytes": data, "path": None} if as_bytes else str(tmp_path / "a")) is None
    assert picture_problem({"bytes": None, "path": str(tmp_path / "a")}) is None


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "the file is empty"),
        (b"just text", "not a picture in a format that Pillow reads; it begins with b'just text'"),
        (bomb(20000, 20000), "too many pixels|decompression bomb"),
        (bomb(30000, 10), "too long: 30000 x 10 pixels"),
        (encoded(PHOTO, "EPS"), "EPS files are not read"),
    ],
)
def test_the_check_refuses_what_training_could_not_read(tmp_path, data, problem):
    import re

    (tmp_path / "a").write_bytes(data)
    assert re.search(problem, picture_problem(str(tmp_path / "a")))
    assert re.search(problem, picture_problem({"bytes": data, "path": None}))
    with pytest.raises(ValueError):  # noqa: PT011  # the reader's own words differ
        read_image(str(tmp_path / "a"))


def test_only_the_header_is_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(half(encoded(PHOTO.resize((640, 480)), "JPEG")))
    assert picture_problem(str(tmp_path / "a.jpg")) is None
    with pytest.raises(ValueError, match="cannot be read"):
        read_image(str(tmp_path / "a.jpg"))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    assert "not a regular file" in picture_problem(str(tmp_path / "a.jpg"))


@pytest.mark.parametrize("picture", ["a\0b.png", "\ud800.png", {"bytes": None, "path": None}])
def test_a_path_that_is_none_is_a_problem_and_no_exception(picture):
    assert picture_problem(picture)
