"""Rated pictures from every kind of source, as rows; the summary, parts of the rows, and the split without leakage."""

import csv
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from roc4mllm.processing_roc4mllm.image_reading_aesthetics import read_image
from roc4mllm.trainer.rated_pictures import RatedPictures
from roc4mllm.trainer.rating_data import RatingError, read_ratings

NAMES = ["a.png", "b c.png", "猫.png", "d.png"]
RATINGS = [
    {"path": "a.png", "score": 2.5, "std": 0.5, "sharpness": 70.0, "comment": 'calm, "soft" light', "theme": "sea"},
    {"path": "b c.png", "score": 4.0, "std": 1.25, "sharpness": 12.5, "comment": "two\nlines", "theme": "sea"},
    {"path": "猫.png", "score": 1.5, "std": None, "sharpness": None, "comment": None, "theme": "city"},
]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four small pictures of different colours, each of which tells its number by its red."""
    for index, name in enumerate(NAMES):
        Image.new("RGB", (8, 6), (index, 0, 0)).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def cache(monkeypatch, tmp_path) -> None:
    """What the `datasets` library converts is kept out of the home of whoever runs the tests."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8"))
    return path


def write_rows(path: Path, rows: list[dict]) -> Path:
    """The same rows in the format that the ending names."""
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def red(image) -> int:
    return read_image(image).getpixel((0, 0))[0]


def shown(rated: RatedPictures) -> list[tuple]:
    return [(red(row["image"]), row["scores"].get("aesthetics")) for row in rated]


# Every format --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_every_file_format_gives_the_same_rows(folder, cache, ending):
    rated = read_ratings(
        write_rows(folder / f"ratings{ending}", RATINGS),
        attributes=["aesthetics", "sharpness"],
        score_range=[(1, 5), (0, 100)],
    )
    assert [red(row["image"]) for row in rated] == [0, 1, 2]
    assert [row["scores"] for row in rated] == [
        {"aesthetics": 2.5, "sharpness": 70.0},
        {"aesthetics": 4.0, "sharpness": 12.5},
        {"aesthetics": 1.5},
    ]
    assert [row["stds"] for row in rated] == [{"aesthetics": 0.5}, {"aesthetics": 1.25}, {}]
    assert [row["comment"] for row in rated] == ['calm, "soft" light', "two\nlines", None]
    assert [row["columns"] for row in rated] == [{"theme": "sea"}, {"theme": "sea"}, {"theme": "city"}]
    assert (rated.attributes, rated.columns, rated.num_levels) == (["aesthetics", "sharpness"], ["theme"], None)
    assert (rated.score_range, rated.range_guessed, rated.warnings) == ([(1.0, 5.0), (0.0, 100.0)], False, [])


@pytest.mark.parametrize(
    ("ending", "places"),
    [
        (".csv", ["line 2", "line 3", "line 5"]),
        (".jsonl", ["line 1", "line 2", "line 3"]),
        (".json", ["entry 1", "entry 2", "entry 3"]),
        (".parquet", ["row 1", "row 2", "row 3"]),
    ],
)
def test_a_row_tells_where_it_stands(folder, cache, ending, places):
    rated = read_ratings(write_rows(folder / f"ratings{ending}", RATINGS))
    assert [row["where"] for row in rated] == [f"ratings{ending}, {place}" for place in places]


def test_path_and_score_are_enough(folder):
    rated = read_ratings(write(folder / "r.csv", "path,score\na.png,3\nd.png,4.5\n"), score_range=(1, 10))
    assert rated[0] == {
        "image": str(folder / "a.png"),
        "scores": {"aesthetics": 3.0},
        "stds": {},
        "votes": {},
        "comment": None,
        "question": None,
        "columns": {},
        "where": "r.csv, line 2",
    }
    assert rated.score_range == (1.0, 10.0)


def test_ratings_of_oasis_are_read_as_they_are(shared):
    data = shared / "data" / "oasis_beauty"
    rated = read_ratings(data / "ratings.csv", pictures=data / "images", attributes=["beauty"])
    assert (len(rated), rated.attributes, rated.num_levels) == (416, ["beauty"], 7)
    assert (rated.score_range, rated.range_guessed, rated.warnings) == ((1.0, 7.0), False, [])
    assert rated.columns == ["n", "theme", "category", "source", "subset"]
    row = rated[0]
    assert (row["scores"], row["stds"]) == ({"beauty": 4.864286}, {"beauty": 1.479893})
    assert row["votes"] == {"beauty": [4, 10, 9, 20, 48, 33, 16]}
    assert row["columns"]["theme"] == "Acorns"
    assert "416 with votes for 7 levels" in rated.summary()


def test_the_row_that_the_authors_publish_is_read(shared, tmp_path):
    sample = shared / "annotations" / "ava" / "roc4mllm_readme_sample.json"
    Image.new("RGB", (8, 8)).save(tmp_path / "771257.jpg")
    (row,) = rated = read_ratings(sample, pictures=tmp_path)
    assert row["scores"] == {"aesthetics": 3.463414634146341}
    assert [round(164 * share) for share in row["votes"]["aesthetics"]] == [26, 18, 34, 48, 27, 8, 0, 0, 1, 2]
    assert (row["question"], row["comment"]) == ("Could you evaluate the aesthetics of this image?", None)
    assert (rated.score_range, rated.range_guessed, rated.columns) == ((1.0, 10.0), False, [])


def test_a_table_of_scores_may_be_read_as_ratings(folder):
    text = (
        "path,score,normalized,std,score_min,score_max,color,model,revision,version,error\n"
        "a.png,5.5,0.5,1.25,1,10,7.5,me/scorer,,0.1.0,\n"
        "d.png,,,,1,10,,me/scorer,,0.1.0,not a picture\n"
    )
    path, skipped = write(folder / "scores.csv", text), folder / "bad.csv"
    rated = read_ratings(path, attributes=["aesthetics", "color"], skip_bad_rows=skipped)
    assert rated[0]["scores"] == {"aesthetics": 5.5, "color": 7.5}
    assert (rated.score_range, rated.range_guessed) == ((1.0, 10.0), False)
    assert len(rated) == 1
    assert "error: not a picture" in skipped.read_text()


# Pictures ------------------------------------------------------------------------------------------------------------


def test_relative_paths_start_from_the_file_and_else_from_the_current_folder(folder, monkeypatch):
    (folder / "lists").mkdir()
    beside = write(folder / "r.csv", "path,score\na.png,3\n")
    apart = write(folder / "lists" / "r.csv", "path,score\nmissing.png,3\na.png,3\n")
    monkeypatch.chdir(folder)
    assert read_ratings("r.csv")[0]["image"] == str(folder / "a.png")
    rated = read_ratings(Path("lists") / "r.csv", skip_bad_rows="bad.csv")
    monkeypatch.chdir("/")
    assert [row["image"] for row in rated] == [str(folder / "a.png")]  # whole, so that a worker finds it from anywhere
    assert read_ratings(beside)[0]["image"] == str(folder / "a.png")
    assert len(read_ratings(apart, pictures=folder, skip_bad_rows=folder / "bad.csv")) == 1


def test_most_pictures_missing_names_the_folder_that_was_searched(folder):
    (folder / "lists").mkdir()
    path = write_rows(folder / "lists" / "r.csv", [{"path": f"{n}.png", "score": 1} for n in range(500)])
    with pytest.raises(
        RatingError, match="500 pictures 500 are missing under .*lists'; pass their folder as pictures"
    ):
        read_ratings(path)


def test_pictures_that_are_no_folder_are_refused(folder):
    with pytest.raises(FileNotFoundError, match="pictures must be a folder"):
        read_ratings(write(folder / "r.csv", "path,score\na.png,3\n"), pictures=folder / "nowhere")


# Ranges --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "score_range"),
    [
        ([0.2, 0.9], (0, 1)),
        ([-0.4, 0.9], (-1, 1)),
        ([1.3, 4.8], (1, 5)),
        ([0.5, 4.8], (0, 5)),
        ([1.3, 6.5], (1, 7)),
        ([1.8, 8.6], (1, 10)),
        ([0.5, 8.6], (0, 10)),
        ([3.9, 88.4], (0, 100)),
    ],
)
def test_a_range_that_nobody_stated_is_guessed_and_said(folder, scores, score_range):
    rows = [{"path": name, "score": score} for name, score in zip(NAMES, scores, strict=False)]
    rated = read_ratings(write_rows(folder / "r.csv", rows))
    assert (rated.score_range, rated.range_guessed) == (score_range, True)
    low, high = score_range
    assert rated.warnings == [
        f"aesthetics: score range {low} to {high}, guessed from scores of {scores[0]} to {scores[1]}; "
        "state the score range if it is another"
    ]
    assert f"range {low} to {high} (guessed)" in rated.summary()


def test_each_attribute_has_a_range_of_its_own(folder):
    text = "path,score,r1,r2,r3,sharpness\na.png,2,1,2,1,70\nd.png,1.5,1,1,0,20\n"
    rated = read_ratings(write(folder / "r.csv", text), attributes=["beauty", "sharpness"])
    assert (rated.score_range, rated.range_guessed, rated.num_levels) == ([(1, 3), (0, 100)], True, 3)


def test_scores_that_no_usual_range_holds_ask_for_one(folder):
    with pytest.raises(ValueError, match="from -3 to 3, which no usual range holds; state the score_range"):
        read_ratings(write(folder / "r.csv", "path,score\na.png,-3\nd.png,3\n"))


def test_a_range_in_the_file_is_taken_and_two_are_refused(folder):
    lines = ['{"path": "a.png", "score": 3, "score_range": [1, 5]}', '{"path": "d.png", "score": 2}']
    rated = read_ratings(write(folder / "r.jsonl", "\n".join(lines)))
    assert (rated.score_range, rated.range_guessed) == ((1.0, 5.0), False)
    lines.append('{"path": "d.png", "score": 2, "score_range": [1, 10]}')
    with pytest.raises(ValueError, match="declare several score ranges"):
        read_ratings(write(folder / "r.jsonl", "\n".join(lines)))


@pytest.mark.parametrize("score_range", [(5, 1), (1, 1), (0, math.inf), [(1, 5), (1, 5)], (1, 2, 3)])
def test_a_range_that_is_none_is_refused(folder, score_range):
    with pytest.raises(ValueError, match="score range must be|score_range must be"):
        read_ratings(write(folder / "r.csv", "path,score\na.png,3\n"), score_range=score_range)


def test_rounding_at_the_end_of_the_range_is_put_right(folder):
    rated = read_ratings(write(folder / "r.csv", "path,score\na.png,10.0000001\n"), score_range=(1, 10))
    assert rated[0]["scores"] == {"aesthetics": 10.0}


# Votes ---------------------------------------------------------------------------------------------------------------


def test_the_mean_of_the_votes_is_the_score_where_none_is_given(folder):
    rated = read_ratings(write(folder / "r.csv", 'path,votes\na.png,"[1, 0, 3]"\nd.png,"[0, 2, 0]"\n'))
    assert [row["scores"] for row in rated] == [{"aesthetics": (1 * 1 + 3 * 3) / 4}, {"aesthetics": 2.0}]
    assert "column" not in rated.summary().splitlines()[1]
    rated = read_ratings(folder / "r.csv", score_range=(0, 1))
    assert rated[0]["scores"] == {"aesthetics": 0.75}


def test_votes_of_another_number_of_levels_are_refused(folder):
    text = "path,score,r1,r2,r3\na.png,2,1,2,1\n"
    with pytest.raises(ValueError, match="votes have 3 levels, expected num_levels=10"):
        read_ratings(write(folder / "r.csv", text), num_levels=10)
    assert read_ratings(folder / "r.csv", num_levels=3).num_levels == 3


def test_a_range_of_another_unit_than_that_of_the_votes_is_pointed_at(folder):
    text = "path,score,r1,r2,r3\na.png,2,1,2,1\nd.png,1.5,1,1,0\n"
    with pytest.raises(RatingError, match="votes count levels from 0 to 2; is that the range of score"):
        read_ratings(write(folder / "r.csv", text), score_range=(0, 2))


# Rows with something missing -----------------------------------------------------------------------------------------


def test_rows_may_lack_a_score_an_attribute_or_a_comment(folder):
    text = (
        "path,score,sharpness,comment\n"
        "a.png,3,,\n"  # only the main score
        "b c.png,NA,80,\n"  # only another attribute
        "猫.png,nan,null,misty\n"  # only a comment
        "d.png,None,n/a,\n"  # nothing
    )
    path = write(folder / "r.csv", text)
    rated = read_ratings(path, attributes=["aesthetics", "sharpness"], skip_bad_rows=folder / "bad.csv")
    assert [row["scores"] for row in rated] == [{"aesthetics": 3.0}, {"sharpness": 80.0}, {}]
    assert [row["comment"] for row in rated] == [None, None, "misty"]
    assert (folder / "bad.csv").read_text().splitlines()[1].startswith('5,"no score (score is')


def test_comments_alone_are_enough(folder):
    rated = read_ratings(write(folder / "r.csv", "path,comment\na.png,misty\n"))
    assert (rated[0]["comment"], rated[0]["scores"]) == ("misty", {})
    assert (rated.score_range, rated.range_guessed) == (None, False)
    assert "1 with a comment" in rated.summary()


def test_an_attribute_without_any_score_is_refused(folder):
    text = "path,score,sharpness\na.png,3,\n"
    with pytest.raises(ValueError, match="No row has a score for 'sharpness'"):
        read_ratings(write(folder / "r.csv", text), attributes=["aesthetics", "sharpness"])


# Attributes ----------------------------------------------------------------------------------------------------------


def test_a_number_becomes_a_target_only_when_it_is_named(folder):
    path = write(folder / "r.csv", "path,score,width,sharpness\na.png,3,640,80\n")
    assert read_ratings(path, score_range=(1, 5))[0]["scores"] == {"aesthetics": 3.0}
    assert read_ratings(path, score_range=(1, 5))[0]["columns"] == {"width": "640", "sharpness": "80"}
    rated = read_ratings(path, attributes=["beauty", "sharpness"], score_range=[(1, 5), (0, 100)])
    assert (rated[0]["scores"], rated.columns) == ({"beauty": 3.0, "sharpness": 80.0}, ["width"])


def test_of_what_a_model_knows_the_part_that_is_there_is_read(folder):
    path = write(folder / "r.csv", "path,score,sharpness\na.png,3,80\n")
    known = {"known_attributes": ["beauty", "noise", "sharpness"], "score_range": [(1, 5), (0, 1), (0, 100)]}
    rated = read_ratings(path, **known)
    assert (rated.attributes, rated.score_range) == (["beauty", "sharpness"], [(1, 5), (0, 100)])
    with pytest.raises(ValueError, match="No column for the attribute 'noise'"):
        read_ratings(path, attributes=["beauty", "noise"])


@pytest.mark.parametrize("attributes", ["beauty", ["beauty", "Beauty"]])
def test_attributes_must_be_distinct_names(folder, attributes):
    with pytest.raises(ValueError, match="list of distinct names"):
        read_ratings(write(folder / "r.csv", "path,score\na.png,3\n"), attributes=attributes)


# Bad rows: a file of them --------------------------------------------------------------------------------------------


def test_bad_rows_go_to_a_file_with_their_line_reason_and_fields(folder):
    text = 'path,score,comment\na.png,3,"two\nlines"\nnowhere.png,4,"a, b"\nd.png,11,\n猫.png,4,\n'
    path, skipped = write(folder / "r.csv", text), folder / "bad.csv"
    rated = read_ratings(path, score_range=(1, 10), skip_bad_rows=skipped)
    assert [row["where"] for row in rated] == ["r.csv, line 2", "r.csv, line 6"]
    with skipped.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["line", "reason", "path", "score", "comment"],
            ["4", f"no such file: {folder / 'nowhere.png'}", "nowhere.png", "4", "a, b"],
            ["5", "score is 11, outside 1 to 10 (as given)", "d.png", "11", ""],
        ]
    assert rated.warnings == [f"2 bad rows are left out and stand in {skipped}"]
    assert sorted(entry.name for entry in folder.iterdir()) == sorted([*NAMES, "r.csv", "bad.csv"])


def test_without_bad_rows_the_file_of_an_earlier_run_is_emptied(folder):
    skipped = write(folder / "bad.csv", "line,reason\n2,old\n")
    rated = read_ratings(write(folder / "r.csv", "path,score\na.png,3\n"), skip_bad_rows=skipped)
    assert skipped.read_text() == "line,reason,path,score\n"
    assert not any("left out" in warning for warning in rated.warnings)


def test_no_row_left_is_an_error_even_when_bad_rows_are_skipped(folder):
    path = write(folder / "r.csv", "path,score\na.png,eleven\n")
    with pytest.raises(RatingError, match="1 of 1 rows cannot be used.*\n.*'eleven'.*\nNo row is left"):
        read_ratings(path, skip_bad_rows=folder / "bad.csv")


def test_the_ratings_are_never_overwritten_and_an_impossible_file_is_told_first(folder):
    path = write(folder / "r.csv", "path,score\nnowhere.png,eleven\n")
    with pytest.raises(ValueError, match="would overwrite the ratings"):
        read_ratings(path, skip_bad_rows=path)
    with pytest.raises(OSError, match="in a folder that exists"):
        read_ratings(path, skip_bad_rows=folder / "nowhere" / "bad.csv")


# Parts of the rows ---------------------------------------------------------------------------------------------------


@pytest.fixture
def repeated(folder) -> RatedPictures:
    """Forty rows of twenty pictures; the score tells the picture."""
    for index in range(20):
        Image.new("RGB", (8, 6), (index, 0, 0)).save(folder / f"{index}.png")
    rows = [{"path": f"{'./' * (n // 20)}{n % 20}.png", "score": n % 20} for n in range(40)]
    return read_ratings(write_rows(folder / "r.csv", rows), score_range=(0, 20))


def test_duplicates_are_counted_not_refused(repeated):
    assert repeated.warnings == ["duplicates: 40 rows show 20 pictures between them"]
    assert repeated.summary().startswith("40 rows, 20 pictures")


def test_split_keeps_rows_of_a_picture_together_and_repeats(repeated):
    train, held_out = repeated.split(0.25, seed=1)
    assert (len(train), len(held_out)) == (30, 10)
    assert not {row["image"] for row in train} & {row["image"] for row in held_out}
    places = [row["where"] for row in held_out]
    assert places == [row["where"] for row in repeated.split(0.25, seed=1)[1]]
    assert places != [row["where"] for row in repeated.split(0.25, seed=2)[1]]
    assert {row["where"] for row in [*train, *held_out]} == {row["where"] for row in repeated}
    assert [len(part) for part in repeated.split(0.001, seed=0)] == [38, 2]


@pytest.mark.parametrize("share", [0, 1, 1.5])
def test_split_refuses_a_share_that_leaves_a_side_empty(repeated, share):
    with pytest.raises(ValueError, match="share between 0 and 1"):
        repeated.split(share, seed=0)
    with pytest.raises(ValueError, match="of 1 different pictures"):
        repeated.take([0, 20]).split(0.5, seed=0)


def test_take_keeps_the_order_that_is_asked_for(repeated):
    taken = repeated.take(np.array([39, 0, 5]))
    assert shown(taken) == [(19, 19.0), (0, 0.0), (5, 5.0)]
    assert shown(taken.take([2])) == [(5, 5.0)]
    assert taken[-1] == taken[2]
    assert taken.warnings == []
    with pytest.raises(IndexError):
        taken[3]


def test_rows_survive_pickling_and_workers(repeated):
    again = pickle.loads(pickle.dumps(repeated.take(range(6))))
    assert list(again) == list(repeated.take(range(6)))
    loader = DataLoader(again, batch_size=3, num_workers=1, collate_fn=list)
    assert [row["scores"]["aesthetics"] for batch in loader for row in batch] == [0, 1, 2, 3, 4, 5]


def test_summary_tells_what_there_is(folder):
    text = "path,mean,r1,r2,r3,std,question,theme\na.png,2,1,2,1,0.5,Sharp?,sea\nd.png,1.5,1,1,0,,,city\n"
    rated = read_ratings(write(folder / "r.csv", text), attributes=["beauty"])
    assert rated.summary().splitlines() == [
        "2 rows, 2 pictures",
        "  beauty: 2 scores from 1.5 to 2, mean 1.75, range 1 to 3 (3 levels of votes), column 'mean'",
        "    2 with votes for 3 levels",
        "    1 with a std",
        "  1 with a question of its own",
        "  further columns: theme",
    ]
