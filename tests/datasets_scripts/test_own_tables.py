"""Tables of one's own: whatever columns, separators and paths they have, each row gets its own picture or a reason."""

import io
import unicodedata

import pytest
from tiny import photo

from roc4mllm.datasets_scripts.generic_csv import generic_csv

TEN = generic_csv((1, 10), name="mine")


@pytest.fixture
def converted(write, convert):
    """Converts a table and pictures with the names given."""

    def run(table, pictures=("a.jpg", "b.jpg"), data_set=TEN, **options):
        write({"table.csv": table})
        write({name: picture(number) for number, name in enumerate(pictures)})
        return convert(data_set, **options)

    return run


def picture(seed):
    photo(seed).save(buffer := io.BytesIO(), "JPEG")
    return buffer.getvalue()


def reasons(result):
    return [entry["reason"] for entry in result.report.problems.bad_rows]


# Columns -------------------------------------------------------------------------------------------------------------


def test_any_table(write, add_pictures, convert):
    text = "Path;MOS;light;r1;r2;r3;split;theme;caption\n"
    text += "a.jpg;2.0;1;0;3;0;val;sky;wide\nb.jpg;;;1;0;0;;;\nc.jpg;;;;;;;;so\n"
    write({"mine.csv": text})
    add_pictures(["a.jpg", "b.jpg", "c.jpg"], "raw")
    rows = convert(generic_csv((1, 3), name="mine", attributes=["light"])).by_id
    a, b, c = rows["a.jpg"], rows["b.jpg"], rows["c.jpg"]
    assert (a["score"], a["votes"], a["split"], a["theme"], a["comments"]) == (
        2,
        [0, 3, 0],
        "validation",
        "sky",
        ["wide"],
    )
    assert [(entry["name"], entry["score"], entry["score_range"]) for entry in a["attributes"]] == [
        ("light", 1, [1, 3])
    ]
    assert (b["score"], b["votes"], b["split"], b["attributes"]) == (1, [1, 0, 0], "train", [])
    assert (c["score"], c["comments"]) == (None, ["so"])
    assert {row["source"] for row in rows.values()} == {"mine"}
    assert {row["split_protocol"] for row in rows.values()} == {"mine-own"}


def test_any_table_with_columns_of_other_names(write, add_pictures, convert):
    write({"a.csv": "photo,quality,score\n1.jpg,3,x\n", "b.csv": "photo\n"})
    add_pictures(["1.jpg"], "raw")
    data_set = generic_csv((1, 5), columns={"image": "photo", "score": "quality"})
    with pytest.raises(ValueError, match=r"Expected one .csv or .tsv file, found 2: a.csv, b.csv"):
        convert(data_set)
    assert convert(data_set, raw="raw/a.csv").rows[0]["score"] == 3
    for wrong, message in (({"picture": "photo"}, "No role picture"), ({"score": "mos"}, "No column 'mos' for score")):
        with pytest.raises(ValueError, match=message):
            convert(generic_csv((1, 5), columns={"image": "photo"} | wrong), "again", raw="raw/a.csv")
    with pytest.raises(ValueError, match="No column of pictures"):
        convert(generic_csv((1, 5)), "again", raw="raw/a.csv")
    with pytest.raises(ValueError, match="has no column light"):
        convert(generic_csv((1, 5), columns={"image": "photo"}, attributes=["light"]), "again", raw="raw/a.csv")


def test_the_numbers_of_rows_that_pandas_writes_are_no_split(converted):
    rows = converted(",image,score\n0,a.jpg,3\n1,b.jpg,4\n").rows
    assert [(row["image_id"], row["split"], row["score"]) for row in rows] == [
        ("a.jpg", "train", 3),
        ("b.jpg", "train", 4),
    ]


def test_a_decimal_comma_between_semicolons(converted):
    table = "image;score;std;light;comment\na.jpg;3,5;0,5;2,25;1,5 seconds\nb.jpg;4;;;\n"
    row = converted(table, data_set=generic_csv((1, 10), attributes=["light"])).by_id["a.jpg"]
    assert (row["score"], row["std"], row["attributes"][0]["score"], row["comments"]) == (
        3.5, 0.5, 2.25, ["1,5 seconds"]
    )  # fmt: skip


def test_splits_in_capitals(converted):
    rows = converted("image,score,split\na.jpg,3,Train\nb.jpg,4,VAL\n").by_id
    assert (rows["a.jpg"]["split"], rows["b.jpg"]["split"]) == ("train", "validation")


@pytest.mark.parametrize(
    "table, message",
    [
        ("image,mos_2\na.jpg,3\n", "has no column of scores .* it has image, mos_2. Name the one"),
        ("image,score,score\na.jpg,3,4\n", "has several columns score; which one is meant"),
        ("image,score\ra.jpg,3\r", "line 1: new-line character .* save it with the line ends"),
        ("", "No column of pictures .* has nothing"),
    ],
)
def test_tables_that_are_refused(converted, table, message):
    with pytest.raises(ValueError, match=message):
        converted(table)


@pytest.mark.parametrize("pair", [(10, 1), (1, 1), (0, float("inf")), (float("nan"), 1)])
def test_a_range_that_is_none(pair):
    with pytest.raises(ValueError, match="expected the lowest and the highest possible score"):
        generic_csv(pair)


def test_an_attribute_cannot_stand_for_the_score(converted):
    data_set = generic_csv((1, 10), attributes=["aesthetics"])
    with pytest.raises(ValueError, match="an attribute is called 'aesthetics', as the score itself is"):
        converted("image,score,aesthetics\na.jpg,3,5\n", data_set=data_set)


def test_numbers_that_no_column_holds_are_bad_rows(converted):
    found = converted(f"image,score,num_ratings\na.jpg,5,{10**11}\nb.jpg,5,2\n")
    assert reasons(found) == ["num_ratings is 100000000000; expected a whole number from 1 to 2147483647"]
    assert [row["image_id"] for row in found.rows] == ["b.jpg"]
    found = converted(f"image,r1,r2\na.jpg,{10**11},1\nb.jpg,1,2\n", out="votes")
    assert reasons(found) == ["votes sum to more than 2147483647"]


# Pictures ------------------------------------------------------------------------------------------------------------


def test_a_name_that_several_folders_hold_is_not_guessed(converted):
    table = "image,score\nx/a.jpg,3\ny/a.jpg,4\nz/a.jpg,5\na.jpg,6\n"
    found = converted(table, ["x/a.jpg", "y/a.jpg"])
    assert {name: row["score"] for name, row in found.by_id.items()} == {"x/a.jpg": 3, "y/a.jpg": 4}
    assert found.by_id["x/a.jpg"]["image"]["bytes"] != found.by_id["y/a.jpg"]["image"]["bytes"]
    assert reasons(found) == [f"{name} lies in x and in y; give its folder too" for name in ("z/a.jpg", "a.jpg")]


def test_two_names_do_not_get_one_picture(converted):
    found = converted("image,score\nsunny/a.jpg,3\nrainy/a.jpg,4\n", ["photos/a.jpg"])
    assert [(row["image_id"], row["score"]) for row in found.rows] == [("sunny/a.jpg", 3)]
    assert reasons(found) == ["the only a.jpg there is was sunny/a.jpg in a row before"]


def test_of_a_path_of_a_machine_only_the_place_in_the_folder_is_kept(converted, tmp_path):
    (outside := tmp_path / "outside.jpg").write_bytes(picture(7))
    images = [
        "/data/ann/photos/a.jpg",
        "C:\\photos\\b.jpg",
        f"{tmp_path}/raw/c.jpg",
        outside,
    ]
    table = "image,score\n" + "".join(f"{image},3\n" for image in [*images, "../outside.jpg"])
    found = converted(table, ["photos/a.jpg", "b.jpg", "c.jpg"])
    assert [row["image_id"] for row in found.rows] == ["photos/a.jpg", "b.jpg", "c.jpg"]
    assert reasons(found) == [
        "the picture lies outside of the folder; name one that holds the table and all its pictures"
    ]
    assert [entry["picture"] for entry in found.report.problems.missing] == ["../outside.jpg"]
    assert str(tmp_path) not in (found.folder / "report.json").read_text()


@pytest.mark.parametrize("form, other", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_the_other_form_of_unicode(converted, form, other):
    name = unicodedata.normalize(form, "café.jpg")
    (row,) = converted(f"image,score\n{unicodedata.normalize(other, name)},3\n", [name]).rows
    assert row["image"]["bytes"] == picture(0)


@pytest.mark.parametrize("name", ["a", "a.avif", "a.heic", "a.JFIF"])
def test_pictures_of_other_endings(converted, name):
    assert converted(f"image,score\n{name},3\n", [name]).report.rows == {"train": 1}


# Ratings of several people -------------------------------------------------------------------------------------------

RATINGS = "image,score,rater_id,split\n" + "".join(
    f"{name}.jpg,{3 + rater},{rater},{split}\n"
    for rater in range(5)
    for name, split in (("a", "train"), ("b", "test"))
)


def test_ratings_of_a_picture_share_it_and_the_card_says_what_loading_costs(converted):
    found = converted(RATINGS)
    assert (found.report.rows, found.report.pictures) == ({"train": 5, "test": 5}, {"train": 1, "test": 1})
    assert [row["rater_id"] for row in found.rows if row["split"] == "train"] == list("01234")
    card = (found.folder / "README.md").read_text()
    assert "10 ratings of 2 pictures" in card
    assert "Each picture is stored once in a file, but load_dataset copies it" in card
    loaded = found.report.loaded_bytes["train"]
    assert loaded > 5 * len(picture(0))  # and the files hold it once
    assert f"num_bytes: {loaded}" in card
    assert f"dataset_size: {sum(found.report.loaded_bytes.values())}" in card


def test_without_raters_the_second_rating_says_what_is_missing(converted):
    found = converted("image,score\na.jpg,3\na.jpg,9\n")
    (duplicate,) = found.report.problems.duplicates
    assert duplicate["reason"] == "line 2 is of the same picture, and no rater_id tells ratings apart"


def test_a_picture_in_two_splits_is_told(converted):
    found = converted(RATINGS + "a.jpg,3,9,test\n")
    assert "1 photographs are in train and in test, by their file name" in found.report.notes
    pictures = ["x/a.jpg", "y/a.jpg"]
    table = "image,score,split\nx/a.jpg,3,train\ny/a.jpg,3,test\n"
    assert converted(table, pictures, out="apart").report.notes == []  # folders belong to the name
