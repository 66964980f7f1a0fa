"""The formulas against scipy and numbers worked out by hand; intervals; the metric of `evaluate`."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from transformers import EvalPrediction

from roc4mllm.trainer.image_aesthetics_metric.score_agreement import (
    MOST_FOR_PAIRS,
    accuracy,
    fit_logistic,
    krcc,
    logistic,
    mae,
    plcc,
    rmse,
    score_agreement,
    srcc,
)
from roc4mllm.trainer.metrics_aesthetics import (
    FEWEST_FOR_INTERVAL,
    METRIC_PATH,
    aesthetics_metrics,
    measure,
    measure_agreement,
    resamples,
    vote_distances,
)

CORRELATIONS = {srcc: scipy.stats.spearmanr, plcc: scipy.stats.pearsonr, krcc: scipy.stats.kendalltau}
by_name = pytest.mark.parametrize("metric", CORRELATIONS, ids=lambda metric: metric.__name__)


def ratings(n: int, seed: int = 0, decimals: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels that agree in part; rounded, so that many are equal."""
    random = np.random.default_rng(seed)
    labels = random.normal(4, 1, n)
    return (0.6 * labels + random.normal(1, 0.8, n)).round(decimals), labels.round(decimals)


# Formulas ------------------------------------------------------------------------------------------------------------


@by_name
@pytest.mark.parametrize("n", [3, 4, 50, MOST_FOR_PAIRS, MOST_FOR_PAIRS + 1])
def test_correlation_is_that_of_scipy_with_ties(metric, n):
    predicted, labels = ratings(n, seed=n)
    assert n < 50 or len(np.unique(labels)) < n
    assert metric(predicted, labels) == pytest.approx(CORRELATIONS[metric](predicted, labels).statistic, abs=1e-12)


@by_name
@pytest.mark.parametrize("n", [40, MOST_FOR_PAIRS + 1])
def test_counts_are_pictures_drawn_several_times_or_not_at_all(metric, n):
    predicted, labels = ratings(n)
    counts = next(resamples(n, 6, seed=1)).reshape(2, 3, n)
    assert counts.max() > 2
    assert counts.min() == 0
    drawn = counts.reshape(6, n).astype(int)
    expected = [CORRELATIONS[metric](predicted.repeat(row), labels.repeat(row)).statistic for row in drawn]
    assert metric(predicted, labels, counts) == pytest.approx(np.reshape(expected, (2, 3)), abs=1e-12)


def test_errors_and_accuracy_are_those_worked_out_by_hand():
    predicted, labels = np.array([1.0, 2.0, 5.0, 7.0]), np.array([2.0, 5.0, 5.0, 6.0])
    assert mae(predicted, labels) == 1.25
    assert rmse(predicted, labels) == pytest.approx(np.sqrt(11 / 4))
    assert accuracy(predicted, labels, cut=4.5) == 0.75
    assert accuracy(predicted, labels, cut=5.0) == 1.0  # only 7 and 6 are above 5
    assert mae(predicted, labels, np.array([0.0, 2, 0, 2])) == 2.0


@by_name
@pytest.mark.parametrize(
    ("predicted", "labels"),
    [
        ([], []),
        ([1.0], [2.0]),
        ([1.0, 2.0], [2.0, 1.0]),
        ([3.0, 3.0, 3.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [0.1] * 3),
    ],
    ids=["none", "one", "two", "constant predictions", "constant labels"],
)
def test_correlation_of_few_or_constant_values_is_nan(metric, predicted, labels):
    assert np.isnan(metric(np.array(predicted), np.array(labels)))


def test_resample_of_one_value_has_no_correlation():
    predicted, labels = np.array([0.1, 0.3, 0.7]), np.array([0.1, 0.2, 0.4])
    counts = np.array([[3.0, 0, 0], [1, 1, 1]])
    for metric in CORRELATIONS:
        assert list(np.isnan(metric(predicted, labels, counts))) == [True, False]


# The logistic curve --------------------------------------------------------------------------------------------------


def test_curve_that_made_the_labels_is_found_again():
    predicted = np.linspace(1, 10, 60)
    parameters = np.array([6.5, 1.5, 5.0, 0.8])
    labels = logistic(predicted, parameters)
    assert logistic(np.array([5.0]), parameters) == 4.0  # halfway between the ends
    assert fit_logistic(predicted, labels) == pytest.approx(parameters, abs=1e-4)
    assert plcc(predicted, labels) < 0.97
    assert plcc(logistic(predicted, fit_logistic(predicted, labels)), labels) == pytest.approx(1)


@pytest.mark.parametrize(
    "relation",
    [
        lambda x: 2 * x + 1,
        lambda x: -x,
        np.exp,
        lambda x: (x > 4) * 1.0,
        lambda x: 1000 - 5 * x,
        lambda x: 1e-4 * x**3,
    ],
    ids=["line", "falling", "exponential", "step", "other units", "small"],
)
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_curve_is_never_worse_than_a_line(relation, noise):
    random = np.random.default_rng(0)
    predicted = random.normal(4, 1, 200)
    labels = relation(predicted)
    labels = labels + noise * labels.std() * random.normal(size=200)
    fitted = logistic(predicted, fit_logistic(predicted, labels))
    assert plcc(fitted, labels) > abs(plcc(predicted, labels)) - 1e-4


@pytest.mark.parametrize(
    ("predicted", "labels", "reason"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], "4 distinct predictions, the curve needs 5"),
        ([1, 1, 1, 1, 1], [1, 2, 3, 4, 5], "all predictions are 1"),
        ([1, 2, 3, 4, 5], [2.5] * 5, "all labels are 2.5"),
        ([], [], "0 pictures, a correlation needs 3"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, np.inf], "."),
    ],
)
def test_what_cannot_be_fitted_says_why(predicted, labels, reason):
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=reason):
        fit_logistic(np.array(predicted, dtype=float), np.array(labels, dtype=float))


# Intervals -----------------------------------------------------------------------------------------------------------


def test_interval_of_a_mean_is_that_of_resampled_pictures():
    values = np.random.default_rng(0).exponential(size=80)
    found = measure({"mean": lambda counts: counts @ values / 80}, 80, bootstraps=4000, seed=3)["mean"]
    drawn = np.random.default_rng(8).choice(values, (4000, 80)).mean(1)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.02)


def test_intervals_repeat_with_their_seed_and_do_not_depend_on_chunks(monkeypatch):
    predicted, labels = ratings(30)
    first, again, other = (measure_agreement(predicted, labels, 4, {}, 50, seed)[0] for seed in (0, 0, 1))
    assert first == again != other
    monkeypatch.setattr("roc4mllm.trainer.metrics_aesthetics.MOST_COUNTS", 7 * 30)
    chunked = measure_agreement(predicted, labels, 4, {}, 50, 0)[0]
    assert [found.high for found in chunked.values()] == pytest.approx([found.high for found in first.values()])


def test_intervals_cover_the_true_correlation_as_often_as_they_say():
    random, truth, covered = np.random.default_rng(0), 0.6, 0
    for sample in range(200):
        labels = random.normal(size=100)
        predicted = truth * labels + np.sqrt(1 - truth**2) * random.normal(size=100)
        found = measure({"plcc": lambda counts: plcc(predicted, labels, counts)}, 100, 300, seed=sample)["plcc"]  # noqa: B023
        covered += found.low <= truth <= found.high
    assert 0.90 <= covered / 200 <= 0.98  # 0.95 with a standard error of 0.015, less what percentiles miss at n = 100


def test_metric_that_many_resamples_lack_has_no_interval():
    random = np.random.default_rng(0)
    predicted, labels = np.array([1.0] + 11 * [2.0]), random.normal(size=12)
    found = measure_agreement(predicted, labels, 2.5, {}, 200)[0]
    assert found["srcc"].value is not None
    assert found["srcc"].low is None
    assert re.fullmatch(r"no value in [34]\d% of the resamples", found["srcc"].reason)  # (11/12)¹² = 35 %
    assert found["mae"].low < found["mae"].value < found["mae"].high


def test_few_pictures_have_values_and_no_intervals():
    for n, expected in ((FEWEST_FOR_INTERVAL - 1, False), (FEWEST_FOR_INTERVAL, True)):
        found = measure_agreement(*ratings(n), 4, {}, 200)[0]
        assert (found["mae"].low is not None) is expected
        assert found["mae"].value is not None
        assert found["mae"].reason == (None if expected else "9 pictures, an interval needs 10")


def test_no_pictures_and_no_resamples_give_no_intervals():
    none, curve = measure_agreement(np.array([]), np.array([]), 2.5, {}, 200)
    assert {(found.value, found.low) for found in none.values()} == {(None, None)}
    plain = measure_agreement(*ratings(30), 4, bootstraps=0)[0]
    assert all(found.value is not None and found.low is None for found in plain.values())


def test_metric_that_only_some_pictures_have_is_their_mean():
    predicted, labels = ratings(4)
    found = measure_agreement(predicted, labels, 4, {"emd_r1": np.array([0.2, np.nan, 0.4, np.nan])}, 0)[0]
    assert found["emd_r1"].value == pytest.approx(0.3)


# Votes and the Trainer -----------------------------------------------------------------------------------------------


def test_vote_distances_are_those_worked_out_by_hand():
    # cumulated: 0 0.5 1 against 0.25 0.25 1, so the steps are 0.25, 0.25 and 0 apart
    found = vote_distances(np.array([[0.0, 0.5, 0.5], [0, 0, 1]]), np.array([[1.0, 0, 3], [0, 0, 9]]))
    assert found["emd_r1"] == pytest.approx([0.5 / 3, 0])
    assert found["emd_r2"] == pytest.approx([np.sqrt(0.125 / 3), 1e-6])


# For a Trainer -------------------------------------------------------------------------------------------------------


def test_trainer_gets_metrics_of_the_main_attribute_and_named_ones_of_the_others():
    predicted, labels = ratings(20)
    scores, rated = np.stack([predicted, labels], 1), np.stack([labels, predicted], 1)
    rated[3:, 1] = np.nan
    metrics = aesthetics_metrics(["aesthetics", "color"])(EvalPrediction((scores, "logits"), rated))
    assert list(metrics) == ["srcc", "plcc", "mae", "rmse", "srcc_color", "plcc_color", "mae_color", "rmse_color"]
    assert metrics["srcc"] == pytest.approx(scipy.stats.spearmanr(predicted, labels).statistic)
    assert metrics["mae_color"] == pytest.approx(np.abs(predicted - labels)[:3].mean())


def test_score_that_is_missing_for_a_rated_picture_makes_no_good_metric():
    predicted, labels = ratings(20)
    scores, rated = predicted[:, None].copy(), labels[:, None].copy()
    scores[2], rated[4] = np.nan, np.nan
    assert all(np.isnan(value) for value in aesthetics_metrics(["a"])(EvalPrediction(scores, rated)).values())
    rated[2] = np.nan
    assert not any(np.isnan(value) for value in aesthetics_metrics(["a"])(EvalPrediction(scores, rated)).values())


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"shape \(pictures, 2\), got \(4, 1\) and \(4, 2\)"):
        aesthetics_metrics(["a", "b"])(EvalPrediction(np.ones((4, 1)), np.ones((4, 2))))


# The metric of `evaluate` --------------------------------------------------------------------------------------------


def test_all_metrics_at_once():
    predicted, labels = ratings(50)
    labels[7] = np.nan
    found = score_agreement(predicted, labels, cut=4)
    rated = ~np.isnan(labels)
    assert found["n"] == 49
    assert found["srcc"] == pytest.approx(scipy.stats.spearmanr(predicted[rated], labels[rated]).statistic)
    assert found["plcc_logistic"] >= found["plcc"] - 1e-6
    assert set(found) == {"n", "srcc", "plcc", "plcc_logistic", "krcc", "mae", "rmse", "accuracy"}
    with pytest.raises(ValueError, match="1 predictions are no numbers"):
        score_agreement([1, np.nan], [1, 2])
    with pytest.raises(ValueError, match="as many predictions as labels"):
        score_agreement([1, 2], [1])


def test_metric_loads_from_its_folder_without_network_and_without_this_package(tmp_path):
    shutil.copytree(METRIC_PATH, tmp_path / "image_aesthetics_metric")
    code = """
import sys
sys.modules["roc4mllm"] = None  # an import of it fails
import evaluate
metric = evaluate.load("./image_aesthetics_metric")
print(metric.compute(predictions=[2.0, 3.0, 5.0, 4.0], references=[1.0, 3.0, 4.0, 5.0], cut=3.5))
metric.add(prediction=1, reference=2)
metric.add_batch(predictions=[2, 3], references=[1, None])
print(evaluate.combine([metric]).compute()["n"])
"""
    cache = {"HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    options = {"cwd": tmp_path, "env": os.environ | cache, "capture_output": True, "text": True, "timeout": 120}
    child = subprocess.run([sys.executable, "-c", code], **options)
    assert child.returncode == 0, child.stderr
    found, count = child.stdout.splitlines()
    assert "'srcc': 0.8" in found
    assert "'accuracy': 1.0" in found
    assert count == "2"
