"""Rows to figures: scales stay apart, labels find their pictures, and what was planted stands out."""

import numpy as np
import pytest

from roc4mllm.inference.report.comparison import find_pairs
from roc4mllm.inference.report.figures import (
    choose_rows,
    figures_of,
    group_failures,
    histogram,
    reason_of,
)
from roc4mllm.inference.report.markup import number
from roc4mllm.inference.report.rows import FailedPicture, ScoredPicture, add_labels, collect_scores
from roc4mllm.inference.tables.score_reading import Scale

SCALE = Scale("m", None, 1.0, 7.0, True)


def row(path: str, score: object, **more: object) -> dict:
    return {"path": path, "score": score, "score_min": 1.0, "score_max": 7.0, "model": "m", "error": None} | more


def pictures(count: int, **attributes: np.ndarray) -> list[ScoredPicture]:
    """Scores that rise with the number, from 1 to 7."""
    scores = np.linspace(1, 7, count)
    return [
        ScoredPicture(
            place, f"{place}.jpg", float(score), attributes={k: float(v[place]) for k, v in attributes.items()}
        )
        for place, score in enumerate(scores)
    ]


# Rows ----------------------------------------------------------------------------------------------------------------


def test_scales_stay_apart_and_failures_are_no_scores():
    rows = [
        row("a", 5.0),
        row("b", "3.5"),  # as a CSV has it
        row("c", 50.0, score_max=100.0),
        row("d", 5.0, revision="r2"),
        row("e", 5.0, higher_is_better=False),
        row("f", None, error="no such file"),
        row("g", 4.0, error="half a picture"),
        row("h", None),
    ]
    scores = collect_scores([rows[:3], rows[3:]])
    assert [[picture.path for picture in group] for group in scores.pictures.values()] == [
        ["a", "b"],
        ["c"],
        ["d"],
        ["e"],
    ]
    assert [scale.high for scale in scores.pictures] == [7.0, 100.0, 7.0, 7.0]
    assert [(f.number, f.error) for f in scores.failures] == [
        (6, "no such file"),
        (7, "half a picture"),
        (8, "no score"),
    ]
    assert scores.rows == 8


def test_attributes_are_the_columns_of_numbers_that_do_not_repeat_the_score():
    rows = [
        row("a", "5.0", light="0.5", note="dark", alias="5.0", label="4.5", half=None, distribution=[0.2, 0.8]),
        row("b", "3.0", light="0.1", note="7", alias="3.0", label=None, half="2", distribution="torn"),
        row("c", "2.0", light="nan", note="8", alias="2.0", half=10**400),
    ]
    (group,) = collect_scores([rows]).pictures.values()
    assert [picture.attributes for picture in group] == [{"light": 0.5}, {"light": 0.1, "half": 2.0}, {}]
    assert [picture.label for picture in group] == [4.5, None, None]
    assert [picture.distribution for picture in group] == [[0.2, 0.8], None, None]


@pytest.mark.parametrize("name", ["score", "std", "label", "score_min"])
def test_a_cell_that_is_no_number_is_named(name):
    with pytest.raises(ValueError, match=f"row 2, {name}: expected a number, got 'bad'"):
        collect_scores([[row("a", 1.0), row("b", 2.0) | {name: "bad"}]])


def test_a_table_without_rows_is_an_error():
    with pytest.raises(ValueError, match="nothing to report"):
        collect_scores([[], []])
    with pytest.raises(ValueError, match="no column 'score'; its columns are path, rating"):
        collect_scores([[row("a.jpg", 5.0)], [{"path": "a.jpg", "rating": 5, "": ["more"]}]])


def test_labels_are_found_by_path_then_by_file_then_by_a_name_that_is_unique(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [
        "same.jpg",
        str(tmp_path / "file.jpg"),
        "moved/here/name.jpg",
        "x/twice.jpg",
        "y/twice.jpg",
        "unrated.jpg",
    ]
    scores = collect_scores([[row(path, 4.0) for path in paths]])
    labels = {"same.jpg": 1.0, "file.jpg": 2.0, "elsewhere/name.jpg": 3.0, "z/twice.jpg": 4.0}
    assert add_labels(scores, labels, tmp_path / "ratings") == 3
    (group,) = scores.pictures.values()
    assert [picture.label for picture in group] == [1.0, 2.0, 3.0, None, None, None]


def test_labels_of_other_pictures_are_an_error():
    with pytest.raises(ValueError, match=r"none of the 1 labels .* begin with 'b.jpg', the pictures with 'a.jpg'"):
        add_labels(collect_scores([[row("a.jpg", 4.0)]]), {"b.jpg": 1.0}, "")


# Figures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [5.0],
        [3.0, 3.0, 3.0],
        [0.0, 0.0],
        [-2.0, 7.5],
        [1.2] * 30,  # 6 · 0.2 is 1.2000000000000002
        [4.6, 6.18],
        [0.3, 0.1 + 0.2],
        [1e6, 1e6 + 1e-6],
        [1.2, 1.2 - 1e-9, 1.2 + 1e-9],
        [-1e100, 1e100],
        [0.0, 5e-324],
        list(np.random.default_rng(0).normal(size=5000)),
    ],
)
def test_histogram_counts_every_value_in_bins_of_round_width(values):
    found = histogram(np.array(values))
    assert sum(found.counts) == len(values)
    widths = np.diff(found.edges)
    assert widths == pytest.approx(widths[0])
    digits = widths[0] / 10 ** np.floor(np.log10(widths[0]) + 1e-9)
    assert min(abs(digits - nice) for nice in (1, 2, 2.5, 5)) < 1e-6
    assert len(found.counts) <= 42
    assert (found.mean, found.median) == pytest.approx((np.mean(values), np.median(values)))


def test_best_and_worst_follow_the_direction_and_never_overlap():
    for higher, best in ((True, "4.jpg"), (False, "0.jpg")):
        figures = figures_of(Scale("m", None, 1, 7, higher), pictures(5), {})
        assert figures.best(24)[0].path == best
        assert len(figures.best(24)), len(figures.worst(24)) == (3, 2)
        assert not {p.number for p in figures.best(24)} & {p.number for p in figures.worst(24)}
        assert figures.worst(1)[0].path == ("0.jpg" if higher else "4.jpg")


def test_attributes_are_compared_by_rank():
    count = 200
    noise = np.random.default_rng(1).permutation(count).astype(float)
    attributes = {
        "alike": np.arange(count) ** 3.0,
        "against": -np.arange(count),
        "noise": noise,
        "flat": np.ones(count),
    }
    figures = figures_of(SCALE, pictures(count, **attributes), {})
    assert figures.group == 0.1
    alike, against, unrelated, flat = figures.compared
    assert alike.ranks == pytest.approx((0.952, 0.048), abs=1e-3)
    assert against.ranks == pytest.approx((0.048, 0.952), abs=1e-3)
    assert (alike.srcc, against.srcc) == pytest.approx((1.0, -1.0))
    assert abs(unrelated.srcc) < 0.2
    assert (flat.ranks, flat.srcc, flat.means) == ((0.5, 0.5), 0.0, (1.0, 1.0, 1.0))


def test_planted_outliers_are_found_and_nothing_else():
    rng, count = np.random.default_rng(2), 300
    light = np.linspace(0, 10, count) + rng.uniform(-0.1, 0.1, count)
    light[40] += 3  # inside the range of the attribute, far from what its score suggests
    group = pictures(count, light=light)
    for picture, std in zip(group, rng.uniform(0.9, 1.1, count), strict=True):
        picture.std = float(std)
    assert (figures_of(SCALE, group, {}).uncertain, group[40].std < 1.2) == ([], True)
    group[7].std = 3.0
    figures = figures_of(SCALE, group, {})
    assert [outlier.picture.number for outlier in figures.uncertain] == [7]
    assert [outlier.picture.number for outlier in figures.disagreeing] == [40]
    assert "above what the score suggests" in figures.disagreeing[0].reason


def test_rounding_of_an_attribute_in_other_units_of_the_score_does_not_stand_out():
    group = pictures(300, percent=np.linspace(1, 7, 300) * 1e6 / 7)
    assert figures_of(SCALE, group, {}).disagreeing == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3.6134, "3.613"),
        (-57.361, "-57.36"),
        (1243.4, "1243"),
        (0.000123, "0.000123"),
        (1e100, "1e+100"),
        (-1e-17, "0"),
    ],
)
def test_a_number_is_short_and_is_never_rounded_to_nothing(value, expected):
    assert number(value) == expected


def test_agreement_uses_the_measures_given_and_leaves_out_the_error_of_other_units():
    measures = {"SRCC": lambda x, y: 0.5, "MAE": lambda x, y: np.abs(x - y).mean()}
    group = pictures(5)
    assert figures_of(SCALE, group, measures).agreement is None
    for picture, off in zip(group, (0.5, -1.0, 0.0, 0.25, -0.25), strict=True):
        picture.label = picture.score + off if picture.number else 1.5
    agreement = figures_of(SCALE, group, measures).agreement
    assert agreement.values == pytest.approx({"SRCC": 0.5, "MAE": 0.4})
    assert [picture.number for picture in agreement.largest_differences(2)] == [1, 0]
    group[0].label = 80.0
    agreement = figures_of(SCALE, group, measures).agreement
    assert (agreement.values, agreement.differences) == ({"SRCC": 0.5}, None)
    assert agreement.largest_differences(2) == []


def test_failures_share_a_reason_where_only_names_and_numbers_differ():
    errors = [
        "no such file",
        "begins with b'abc\\'d'",
        "too large: 300 bytes",
        'begins with b"x\'y"',
        "too large: 7 bytes",
    ]
    found = group_failures([FailedPicture(n, f"{n}.jpg", text, None) for n, text in enumerate(errors)])
    assert [(reason, len(members)) for reason, members in found] == [
        ("begins with …", 2), ("too large: … bytes", 2), ("no such file", 1),
    ]  # fmt: skip
    assert reason_of("the model's output isn't finite") == "the model's output isn't finite"


@pytest.mark.parametrize("most, count", [(0, 3), (10, 10), (50, 50), (5000, 1040)])
def test_the_table_lists_what_is_shown_then_failures_then_evenly_by_rank(most, count):
    rows = [row(f"{n}", 1 + n / 200) for n in range(1000)] + [row("x", None, error="gone") for _ in range(40)]
    scores = collect_scores([rows])
    chosen = choose_rows(scores, [1, 2, 1000], most)
    assert {1, 2, 1000} <= chosen
    assert len(chosen) == count
    failed = sum(number > 1000 for number in chosen)
    assert failed == min(40, max(0, most - 3))
    if most == 50:
        others = sorted(number for number in chosen - {1, 2, 1000} if number <= 1000)
        assert np.diff(others).min() > 100


# Models against each other -------------------------------------------------------------------------------------------


def test_models_are_compared_by_ranks_with_regard_to_their_direction():
    rows = [row(f"{n}", 1 + n / 5) for n in range(20)] + [row("only", 7.0)]
    rows += [row(f"{n}", 100.0 - n if n != 3 else 0.0, score_max=100.0, higher_is_better=False) for n in range(20)]
    rows += [row(f"{n}", 3.0, model="few") for n in range(2)]
    (pair,) = find_pairs([figures_of(scale, group, {}) for scale, group in collect_scores([rows]).pictures.items()])
    assert len(pair.pictures) == 20
    assert (pair.most_different(1)[0].path, pair.places[0]) == ("3", pytest.approx((3 / 19, 1.0)))
    assert 0.7 < pair.srcc < 0.9
