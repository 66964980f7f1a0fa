"""Evaluation of a real pipeline on a tiny random model, with rated pictures written to a folder."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from tiny import photo, scorer_parts

from roc4mllm import ImageAestheticsPipeline
from roc4mllm.trainer.evaluation import evaluate_scorer
from roc4mllm.trainer.rating_data import read_ratings

COUNT = 24


@pytest.fixture(scope="module")
def scorer() -> ImageAestheticsPipeline:
    model, processor = scorer_parts("llava", ("aesthetics", "color"), num_levels=7, score_range=(1.0, 7.0))
    return ImageAestheticsPipeline(model, processor=processor)


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("album")
    for seed in range(COUNT):
        photo(seed).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def scores(scorer, album) -> np.ndarray:
    """What the pipeline itself says, `(COUNT, 2)`."""
    records = scorer([str(album / f"{seed}.png") for seed in range(COUNT)])
    found = np.array([[record["attributes"][name] for name in ("aesthetics", "color")] for record in records])
    assert found.std(0).min() > 1e-3  # pictures must differ, or no test below proves anything
    return found


def table(scores: np.ndarray) -> pd.DataFrame:
    """Ratings that agree in part with the model, of which every third misses the color."""
    random = np.random.default_rng(0)
    rated = scores + scores.std(0) * random.normal(size=scores.shape)
    frame = pd.DataFrame(
        {"path": [f"{seed}.png" for seed in range(COUNT)], "score": rated[:, 0], "color": rated[:, 1]}
    )
    frame.loc[::3, "color"] = np.nan
    return frame.assign(theme=["sea", "town"] * (COUNT // 2))


def read(frame: pd.DataFrame, album: Path, attributes=("aesthetics", "color"), score_range=(1.0, 7.0), **options):
    path = album / "ratings.csv"
    frame.to_csv(path, index=False)
    return read_ratings(path, attributes=list(attributes), score_range=score_range, **options)


def test_metrics_are_those_of_the_scores_of_the_pipeline(scorer, album, scores):
    frame = table(scores)
    found = evaluate_scorer(scorer, read(frame, album), batch_size=5, bootstraps=200)
    assert list(found.results) == ["aesthetics", "color"]
    for column, result in enumerate(found.results.values()):
        labels = frame[["score", "color"]].to_numpy()[:, column]
        rated = ~np.isnan(labels)
        predicted = scores[rated, column]
        assert (result.n, result.failed) == (rated.sum(), 0)
        values = {name: metric.value for name, metric in result.metrics.items()}
        assert values["srcc"] == pytest.approx(scipy.stats.spearmanr(predicted, labels[rated]).statistic, abs=1e-4)
        assert values["mae"] == pytest.approx(np.abs(predicted - labels[rated]).mean(), abs=1e-4)
        intervals = [metric for metric in result.metrics.values() if metric.low is not None]
        assert len(intervals) >= 6  # a curve that jumps to one outlier is constant in resamples without it
        assert [metric for metric in intervals if not metric.low <= metric.value <= metric.high] == []
        assert sum(tenth.n for tenth in result.calibration) == result.n
    assert list(found.results["color"].metrics) == ["srcc", "plcc", "plcc_logistic", "krcc", "mae", "rmse", "accuracy"]
    assert found.results["aesthetics"].calibration[0].predicted_std > 0
    assert found.results["color"].calibration[0].predicted_std is None  # a record tells the spread of the first alone


def test_predictions_keep_the_order_of_the_data_and_short_paths(scorer, album, scores):
    found = evaluate_scorer(scorer, read(table(scores)[::-1], album), bootstraps=0)
    assert [picture.picture for picture in found.pictures] == [f"{seed}.png" for seed in reversed(range(COUNT))]
    assert [picture.predicted["color"] for picture in found.pictures] == pytest.approx(scores[::-1, 1], abs=5e-5)
    assert found.pictures[0].where == "ratings.csv, line 2"
    assert str(album) not in json.dumps(found.to_dict())


def test_picture_that_fails_is_counted_and_in_no_metric(scorer, album, scores):
    frame = table(scores)
    (album / "half.png").write_bytes((album / "3.png").read_bytes()[:-500])  # its header is sound
    broken = frame.assign(path=frame["path"].replace("3.png", "half.png"))
    found = evaluate_scorer(scorer, read(broken, album), by="theme", bootstraps=100)
    without = evaluate_scorer(scorer, read(frame.drop(index=3), album), by="theme", bootstraps=100)
    assert [(row.picture, row.where) for row in found.failures] == [("half.png", "ratings.csv, line 5")]
    assert "half of" in found.failures[0].error or "truncated" in found.failures[0].error
    assert found.failures[0].predicted == {}
    for name, result in found.results.items():
        assert (result.n, result.failed) == (without.results[name].n, int(name == "aesthetics"))
        for metric, value in result.metrics.items():
            assert value.value == pytest.approx(without.results[name].metrics[metric].value, abs=1e-5)
    assert {group.name: group.n for group in found.results["aesthetics"].groups} == {"sea": 12, "town": 11}


def test_all_failed_gives_no_numbers_and_no_crash(scorer, album, scores):
    frame = table(scores)[:4].assign(path="half.png")
    (album / "half.png").write_bytes((album / "3.png").read_bytes()[:-500])
    found = evaluate_scorer(scorer, read(frame, album), by="theme")
    result = found.results["aesthetics"]
    assert (result.n, result.failed, len(found.failures)) == (0, 4, 4)
    assert {metric.value for metric in result.metrics.values()} == {None}
    assert result.metrics["srcc"].reason == "0 pictures, a correlation needs 3"
    assert (result.segments, result.groups, result.curve) == ([], [], None)
    assert found.model == "ROC4MLLMForImageAesthetics"


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_pictures_have_errors_but_no_correlation(scorer, album, scores, count):
    result = evaluate_scorer(scorer, read(table(scores)[1 : 1 + count], album)).results["aesthetics"]
    assert result.n == count
    assert result.metrics["mae"].value is not None
    assert (result.metrics["plcc"].value, result.metrics["plcc_logistic"].value) == (None, None)
    assert result.metrics["plcc"].reason == f"{count} pictures, a correlation needs 3"


def test_labels_of_another_range_are_refused_unless_predictions_are_mapped(scorer, album, scores):
    frame = table(scores)
    frame[["score", "color"]] = (frame[["score", "color"]] - 1) / 6 * 100
    rated = read(frame, album, score_range=(0.0, 100.0))
    with pytest.raises(ValueError, match="labels of aesthetics go from 0 to 100, the model's scores from 1 to 7"):
        evaluate_scorer(scorer, rated)
    mapped = evaluate_scorer(scorer, rated, rescale=True, bootstraps=0)
    plain = evaluate_scorer(scorer, read(table(scores), album), bootstraps=0)
    first, second = (found.results["aesthetics"].metrics for found in (mapped, plain))
    assert first["srcc"].value == pytest.approx(second["srcc"].value)
    assert first["mae"].value == pytest.approx(second["mae"].value * 100 / 6)
    assert first["accuracy"].value == second["accuracy"].value  # both at the middle
    assert mapped.pictures[0].std == pytest.approx(plain.pictures[0].std * 100 / 6)
    assert mapped.notes[1:] == [
        "aesthetics: predictions are mapped linearly from 1 to 7 to 0 to 100",
        "color: predictions are mapped linearly from 1 to 7 to 0 to 100",
    ]
    assert plain.notes[1:] == []


def test_range_that_nobody_stated_is_the_model_s(scorer, album, scores):
    frame = table(scores).drop(columns="color")
    rated = read(frame, album, ["aesthetics"], score_range=None)
    assert rated.range_guessed
    assert rated.score_range == (1.0, 5.0)
    found = evaluate_scorer(scorer, rated, bootstraps=0)
    assert found.results["aesthetics"].score_range == (1.0, 7.0)
    assert found.notes[1:] == ["aesthetics: the data state no score range, so the model's is taken, 1 to 7"]
    outside = read(frame.assign(score=frame["score"] * 12), album, ["aesthetics"], score_range=None)
    with pytest.raises(ValueError, match="go from 0 to 100, the model's scores from 1 to 7"):
        evaluate_scorer(scorer, outside)
    with pytest.raises(ValueError, match="rescale=True needs a stated score_range"):
        evaluate_scorer(scorer, rated, rescale=True)


def votes(scores: np.ndarray, levels: int) -> pd.DataFrame:
    counts = np.random.default_rng(1).integers(0, 9, (COUNT, levels)) + 1
    names = [f"r{level + 1}" for level in range(levels)]
    return pd.concat([table(scores)[["path"]], pd.DataFrame(counts, columns=names)], axis=1)


def test_emd_is_of_predicted_distribution_and_votes(scorer, album, scores):
    frame = votes(scores, 7)
    frame.loc[5, [f"r{level}" for level in range(1, 8)]] = np.nan
    frame["score"] = 4.0
    frame.loc[frame.index != 5, "score"] = np.nan  # a picture without votes is in the other metrics
    found = evaluate_scorer(scorer, read(frame, album, ["aesthetics"]), bootstraps=50)
    shares = frame.drop(index=5)[[f"r{level}" for level in range(1, 8)]].to_numpy()
    shares = shares / shares.sum(1, keepdims=True)
    records = scorer([str(album / path) for path in frame["path"].drop(5)], attributes=["aesthetics"])
    apart = np.cumsum([record["distribution"] for record in records], 1) - shares.cumsum(1)
    metrics = found.results["aesthetics"].metrics
    assert metrics["emd_r1"].value == pytest.approx(np.abs(apart).mean(), abs=1e-4)
    assert metrics["emd_r2"].value == pytest.approx(np.sqrt((apart**2).mean(1)).mean(), abs=1e-4)
    assert metrics["emd_r1"].low < metrics["emd_r1"].value < metrics["emd_r1"].high
    assert found.results["aesthetics"].n == COUNT


def test_votes_over_other_levels_have_no_emd_and_say_why(scorer, album, scores):
    found = evaluate_scorer(scorer, read(votes(scores, 5), album, ["aesthetics"]), bootstraps=50)
    assert found.results["aesthetics"].metrics["emd_r1"].value is None
    assert found.results["aesthetics"].metrics["emd_r2"].reason == "votes are over 5 levels, 7 levels are predicted"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"attributes": ["taste"]},
            "taste cannot be compared: the model scores aesthetics, color, the data rate aesth",
        ),
        ({"by": "style"}, "no column 'style' to group by; further columns: theme"),
        ({"cut": 7.0}, "the cut 7 is not inside the score range of aesthetics, 1 to 7"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_compared_is_refused(scorer, album, scores, options, reason):
    with pytest.raises(ValueError, match=reason):
        evaluate_scorer(scorer, read(table(scores), album), **options)


def test_data_without_scores_are_refused(scorer, album, scores):
    table(scores)[["path"]].assign(comment="Calm.").to_csv(album / "comments.csv", index=False)
    with pytest.raises(ValueError, match="the data hold no scores"):
        evaluate_scorer(scorer, read_ratings(album / "comments.csv"))


def test_cut_and_single_attribute_are_those_asked_for(scorer, album, scores):
    frame = table(scores)
    cut = float(np.median(frame["color"].dropna()))
    found = evaluate_scorer(scorer, read(frame, album), attributes=["color"], cut=cut, bootstraps=0)
    assert list(found.results) == ["color"]
    labels = frame["color"].to_numpy()
    rated = ~np.isnan(labels)
    alone = np.array([scorer(str(album / f"{seed}.png"), attributes=["color"])["score"] for seed in range(COUNT)])
    assert found.results["color"].metrics["accuracy"].value == ((alone > cut) == (labels > cut))[rated].mean()
    assert found.results["color"].calibration[0].predicted_std > 0


def test_workers_give_the_same_evaluation(scorer, album, scores):
    rated = read(table(scores), album)
    alone, shared = (evaluate_scorer(scorer, rated, num_workers=workers, bootstraps=0) for workers in (0, 2))
    assert [picture.predicted for picture in alone.pictures] == [picture.predicted for picture in shared.pictures]
