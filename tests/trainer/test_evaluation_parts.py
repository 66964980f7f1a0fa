"""Segments of the labels, tenths of the predictions and groups, from numbers alone."""

import time

import numpy as np
import pytest
import scipy.stats

from roc4mllm.trainer.evaluation_parts import SMALL_GROUP, label_segments, measure_groups, prediction_tenths
from roc4mllm.trainer.image_aesthetics_metric.score_agreement import mae


def test_segments_are_fifths_and_a_label_at_a_limit_belongs_below():
    labels = np.arange(1.0, 12)  # the quantiles 0.2 and 0.8 are the labels 3 and 9
    low, middle, high = label_segments(labels + 0.5, labels)
    assert [segment.n for segment in (low, middle, high)] == [3, 6, 2]
    assert low.limits == (1.0, 3.0)
    assert (high.label_mean, high.predicted_mean, high.mae, high.bias) == (10.5, 11.0, 0.5, 0.5)


@pytest.mark.parametrize("parts", [label_segments, prediction_tenths])
@pytest.mark.parametrize("seed", range(5))
def test_no_picture_is_lost_or_counted_twice_whatever_values_are_equal(parts, seed):
    random = np.random.default_rng(seed)
    predicted, labels = random.normal(4, 1, (2, 97)).round()
    found = parts(predicted, labels)
    assert sum(part.n for part in found) == 97
    assert sum(part.mae * part.n for part in found if part.n) == pytest.approx(97 * mae(predicted, labels))


def test_tenths_of_a_calibrated_scorer_lie_on_the_identity():
    random = np.random.default_rng(0)
    predicted = random.normal(4, 1, 20_000)
    labels = predicted + random.normal(0, 1, 20_000)  # errors as large as the differences between pictures
    tenths = prediction_tenths(predicted, labels)
    assert [tenth.n for tenth in tenths] == [2000] * 10
    assert max(abs(tenth.bias) for tenth in tenths) < 0.08  # 3.6 standard errors
    low, _, high = label_segments(predicted, labels)
    assert (low.bias > 0.5, high.bias < -0.5) == (True, True)  # by labels the same scorer seems to shrink


def test_equal_predictions_are_one_tenth():
    predicted = np.repeat([2.0, 3.0, 5.0], [3, 13, 4])
    labels = predicted + np.tile([0.5, -0.5], 10)
    found = [(tenth.predicted_mean, tenth.n) for tenth in prediction_tenths(predicted, labels) if tenth.n]
    assert found == [(2.0, 3), (3.0, 13), (5.0, 4)]


def test_equal_labels_are_one_segment_and_the_others_are_empty():
    first, *others = label_segments(np.array([1.0, 2.0]), np.array([3.0, 3.0]))
    assert (first.n, first.bias) == (2, -1.5)
    assert [(segment.n, segment.mae) for segment in others] == [(0, None), (0, None)]
    assert label_segments(np.array([]), np.array([])) == []


def test_spread_of_a_tenth_is_the_mean_of_what_is_known():
    predicted = np.repeat([1.0, 2.0], 2)
    found = prediction_tenths(predicted, predicted, np.array([1.0, 3.0, np.nan, 2.0]))
    assert [tenth.predicted_std for tenth in found if tenth.n] == [2.0, 2.0]
    unknown = prediction_tenths(predicted, predicted, np.full(4, np.nan))
    assert {tenth.predicted_std for tenth in unknown} == {None}


def test_groups_have_their_own_metrics_and_small_ones_are_marked():
    predicted, labels = np.random.default_rng(0).normal(4, 1, (2, SMALL_GROUP + 4))
    names = ["sea"] * SMALL_GROUP + ["town", "town", "cat", "cat"]
    sea, cat, town = measure_groups(predicted, labels, names)
    assert [(group.name, group.n, group.small) for group in (sea, cat, town)] == [
        ("sea", SMALL_GROUP, False), ("cat", 2, True), ("town", 2, True)
    ]  # fmt: skip
    assert sea.srcc == pytest.approx(scipy.stats.spearmanr(predicted[:SMALL_GROUP], labels[:SMALL_GROUP]).statistic)
    assert town.mae == pytest.approx(mae(predicted, labels, np.array([name == "town" for name in names], dtype=float)))
    assert (cat.srcc, cat.plcc) == (None, None)


def test_as_many_groups_as_pictures_are_measured_in_one_pass():
    start = time.process_time()
    assert len(measure_groups(np.ones(10_000), np.ones(10_000), list(map(str, range(10_000))))) == 10_000
    assert time.process_time() - start < 2  # 8 s where each group looks at all pictures
