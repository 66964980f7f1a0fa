"""Columns are known by their names, and a cell that does not hold what it should is told, not guessed at."""

import math

import pytest

from roc4mllm.trainer.rating_rows import ColumnRoles, assign_columns, conversation_in, read_row, votes_in


def roles(columns: str, *names: str) -> ColumnRoles:
    return assign_columns(columns.split(), names or ["aesthetics"])


# Columns -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["path", "image", "file_name", "filename", "image_path", "img", "Image_Name"])
def test_the_picture_may_have_many_names(name):
    assert roles(f"{name} score").picture == name


def test_of_two_columns_of_pictures_the_first_of_the_list_is_taken():
    found = roles("img path score")
    assert (found.picture, found.further) == ("path", ["img"])


@pytest.mark.parametrize(
    ("columns", "names", "scores"),
    [
        ("path score", ["aesthetics"], {"aesthetics": "score"}),
        ("path MOS", ["aesthetics"], {"aesthetics": "MOS"}),
        ("path mean", ["beauty"], {"beauty": "mean"}),
        ("path mean score", ["beauty"], {"beauty": "score"}),
        ("path score beauty", ["beauty"], {"beauty": "beauty"}),
        ("path score color", ["beauty", "color"], {"beauty": "score", "color": "color"}),
        ("path score color_score", ["beauty", "color"], {"beauty": "score", "color": "color_score"}),
        ("path score attribute_std", ["beauty", "std"], {"beauty": "score", "std": "attribute_std"}),
        ("path mean score", ["beauty", "score"], {"beauty": "mean", "score": "score"}),
    ],
)
def test_scores_are_found_by_name_and_the_first_attribute_takes_the_common_names(columns, names, scores):
    assert roles(columns, *names).scores == scores


@pytest.mark.parametrize(
    ("columns", "names", "stds"),
    [
        ("path score std", ["beauty", "color"], {"beauty": "std"}),
        ("path score std color color_std", ["beauty", "color"], {"beauty": "std", "color": "color_std"}),
        ("path beauty std", ["beauty"], {"beauty": "std"}),
        ("path beauty score std", ["beauty"], {}),  # it is that of `score`
        ("path beauty score beauty_std", ["beauty"], {"beauty": "beauty_std"}),
    ],
)
def test_a_std_belongs_to_its_score(columns, names, stds):
    assert roles(f"{columns}{' color' if 'color' in names and ' color' not in columns else ''}", *names).stds == stds


@pytest.mark.parametrize(
    ("columns", "votes"),
    [
        ("votes", ["votes"]),
        ("r1 r2 r3", ["r1", "r2", "r3"]),
        ("votes_2 votes_1", ["votes_1", "votes_2"]),
        ("1 2 3 4", ["1", "2", "3", "4"]),
        ("votes r1 r2", ["r1", "r2"]),  # `votes` may well be their number
        ("r2 r3", None),
        ("r1", None),
        ("target", None),
        ("gt_score target", ["target"]),
        ("aesthetics_votes_1 aesthetics_votes_2 r1 r2", ["aesthetics_votes_1", "aesthetics_votes_2"]),
    ],
)
def test_votes_are_one_column_per_level_or_a_list(columns, votes):
    assert roles(f"path score {columns}").votes.get("aesthetics") == votes


def test_columns_without_a_role_are_kept_as_further_ones():
    found = roles("path score std r1 r2 comment question score_min score_max width theme")
    assert found.further == ["width", "theme"]
    assert found.score_ranges == {"aesthetics": ["score_min", "score_max"]}


# Cells ---------------------------------------------------------------------------------------------------------------

ROLES = assign_columns(
    ["path", "score", "std", "votes", "sharpness", "comment", "question", "score_range"], ["aesthetics", "sharpness"]
)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"score": "high"}, "score is 'high', which is no number$"),
        ({"score": "4,5"}, "score is '4,5', which is no number; write a decimal point"),
        ({"score": 10**400}, "which is no number"),
        ({"score": "1_0"}, "score is '1_0', which is no number"),
        ({"score": True}, "score is 'True', which is no number"),
        ({"score": [4.0]}, "which is no number"),
        ({"score": "inf"}, "score is inf"),
        ({"score": -math.inf}, "score is -inf"),
        ({"score": "nan"}, "no score .score is 'nan'., no votes and no comment"),
        ({"score": math.nan}, "no score .score is nan., no votes and no comment"),
        ({"score": ""}, "no score .score is ''., no votes and no comment"),
        ({}, "no score .score is None., no votes and no comment"),
        ({"score": None, "error": "not a picture"}, "no comment; error: not a picture"),
        ({"score": 4, "sharpness": "soft"}, "sharpness is 'soft', which is no number"),
        ({"score": 4, "std": "-0.5"}, "std is -0.5; a standard deviation is at least 0"),
        ({"score": 4, "votes": "140"}, "votes is '140'; expected a list with one number per level"),
        ({"score": 4, "votes": "[1, 2"}, "votes is '.1, 2'; expected a list"),
        ({"score": 4, "votes": [3]}, "expected a list with one number per level"),
        ({"score": 4, "votes": [1, None, 2]}, "votes are known for 2 of 3 levels only"),
        ({"score": 4, "votes": [1.0, math.nan, 2.0]}, "votes are known for 2 of 3 levels only"),
        ({"score": 4, "votes": [1, -1, 2]}, "votes are negative: -1"),
        ({"score": 4, "votes": "[0, 0, 0]"}, "votes sum to zero"),
        ({"score": 4, "votes": ["many", 1]}, "votes is 'many', which is no number"),
        ({"score": 4, "comment": "It is [SCORE]."}, "comment must not contain .SCORE."),
        ({"score": 4, "comment": 12}, "comment must be a text, got int"),
        ({"score": 4, "question": "[SCORE]?"}, "question must not contain .SCORE."),
        ({"score": 4, "score_range": [1, 5, 10]}, "score_range is .*expected the lowest and the highest"),
    ],
)
def test_a_cell_that_cannot_be_right_is_told(fields, reason):
    with pytest.raises(ValueError, match=reason):
        read_row(fields, ROLES)


@pytest.mark.parametrize("missing", ["", " ", "NA", "n/a", "nan", "NaN", "null", "None", None, math.nan])
def test_a_missing_cell_is_unknown(missing):
    row = read_row(dict.fromkeys(("score", "std", "votes", "comment", "question"), missing) | {"sharpness": 3}, ROLES)
    assert (row.scores, row.stds, row.votes, row.comment, row.question) == ({"sharpness": 3.0}, {}, {}, None, None)


def test_the_first_comment_of_a_list_is_taken():
    assert read_row({"comment": ["", "warm", "soft"]}, ROLES).comment == "warm"
    assert read_row({"comment": '["warm", "soft"]'}, ROLES).comment == "warm"
    assert read_row({"comment": "[1] reminds me of a song"}, ROLES).comment == "[1] reminds me of a song"


def test_votes_stand_in_columns_or_in_a_list():
    assert votes_in({"r1": "1", "r2": "0", "r3": "2.5"}, ["r1", "r2", "r3"]) == [1.0, 0.0, 2.5]
    assert votes_in({"votes": "[1, 0, 2.5]"}, ["votes"]) == [1.0, 0.0, 2.5]
    assert votes_in({"r1": "", "r2": "NA"}, ["r1", "r2"]) is None
    with pytest.raises(ValueError, match="r1…r2 are known for 1 of 2 levels only"):
        votes_in({"r1": "3", "r2": ""}, ["r1", "r2"])


# Conversations -------------------------------------------------------------------------------------------------------


def turns(question: str, answer: str) -> list[dict]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.mark.parametrize(
    ("answer", "comment"),
    [
        ("The aesthetic rate of the image is [SCORE]. ", None),
        ("The aesthetic rate of the image is [SCORE]. Calm light. Good lines.", "Calm light. Good lines."),
        ("It is [SCORE], the color rate is [SCORE]! Calm light.", "Calm light."),
        ("It is [SCORE] of 10.0 points. Calm light.", "Calm light."),
        ("It is [SCORE]\nCalm light.", "Calm light."),
        ("It is [SCORE]", None),
        ("Calm light.", "Calm light."),
    ],
)
def test_the_comment_is_what_follows_the_scoring_sentence(answer, comment):
    assert conversation_in(turns("Rate it.", answer)) == ("Rate it.", comment)


@pytest.mark.parametrize("question", ["<|image|>Rate it.", "Rate it.\n<image>", " Rate it. "])
def test_the_question_loses_the_place_of_the_picture(question):
    assert conversation_in(turns(question, "[SCORE]")) == ("Rate it.", None)


@pytest.mark.parametrize("value", ["hello", [], [{"from": "human", "value": "Rate it."}], turns("a", "b") * 2, [1, 2]])
def test_another_kind_of_conversation_is_told(value):
    with pytest.raises(ValueError, match="expected a turn from 'human' and one answer"):
        conversation_in(value)


def test_a_question_with_the_score_token_is_told():
    with pytest.raises(ValueError, match="question must not contain"):
        conversation_in(turns("Is it [SCORE]?", "[SCORE]"))
