"""A person's taste is found where there is one, does no harm where there is none, and fits one model only."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import Ridge
from tiny import photo, scorer_parts, shared_parts
from tiny_image_scorers import eat_scorer, tanet_scorer

from roc4mllm import ImageAestheticsPipeline, load_scorer
from roc4mllm.inference.personal import personal_taste
from roc4mllm.inference.personal.personal_scorer import PersonalScorer, read_features
from roc4mllm.inference.personal.personal_taste import (
    STRENGTHS,
    PersonalTaste,
    eigenvectors_of,
    fit_ridge,
    fit_taste,
    leave_one_out_errors,
    left_out_scores,
)
from roc4mllm.trainer.image_aesthetics_metric.score_agreement import srcc

PICTURES = [photo(seed) for seed in range(12)]


def invented(seed: int, count: int, amount: float, noise: float = 0.5, num_features: int = 40):
    """Features, general scores and ratings of a rater who adds `amount` of a taste of their own; 1 to 7."""
    generator = np.random.default_rng(seed)
    features = generator.normal(3.0, 1.0, (count, num_features)) * np.linspace(0.1, 30, num_features)
    standard = (features - features.mean(0)) / features.std(0)
    liked = standard @ np.random.default_rng(99).normal(0, 1, num_features) / np.sqrt(num_features)
    general = np.clip(4 + generator.normal(0, 1, count), 1, 7)
    ratings = np.clip(general + 0.7 + amount * liked + generator.normal(0, noise, count), 1, 7)
    return features, general, ratings


# Fitting -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [30, 60])  # fewer and more than there are features
def test_closed_form_is_the_ridge_of_scikit_learn(count):
    features, general, ratings = invented(0, count, amount=1.0)
    assert 30 < features.shape[1] < 60
    weight, bias, strength = fit_ridge(features, ratings - general)
    standard = (features - features.mean(0)) / features.std(0) / np.sqrt(features.shape[1])
    model = Ridge(alpha=strength).fit(standard, ratings - general)
    assert np.isfinite(strength)
    np.testing.assert_allclose(features @ weight + bias, model.predict(standard), atol=1e-8)


@pytest.mark.parametrize("features_kept", [None, 6])
def test_leave_one_out_in_closed_form_is_leaving_one_out(features_kept):
    features, general, ratings = invented(1, 15, amount=1.0)
    features = features[:, :features_kept]
    standard = (features - features.mean(0)) / features.std(0) / np.sqrt(features.shape[1])
    deviations = ratings - general
    found = leave_one_out_errors(*eigenvectors_of(standard), deviations - deviations.mean())
    for strength, error in zip(STRENGTHS, found, strict=True):
        errors = []
        for out in range(15):
            rest = np.arange(15) != out
            predicted = deviations[rest].mean()
            if np.isfinite(strength):
                model = Ridge(alpha=strength).fit(standard[rest], deviations[rest])
                predicted = model.predict(standard[~rest])[0]
            errors.append((predicted - deviations[out]) ** 2)
        assert error == pytest.approx(np.mean(errors), rel=1e-6)


@pytest.mark.parametrize("amount", [0.0, 1.5])
@pytest.mark.parametrize("count", [10, 100])
def test_a_taste_is_found_and_its_absence_does_no_harm(count, amount):
    gains, estimates = [], []
    for seed in range(10):
        features, general, ratings = invented(seed, count + 200, amount, noise=1.0)
        first, rest = slice(count), slice(count, None)
        weight, bias, _ = fit_ridge(features[first], (ratings - general)[first])
        personal = general[rest] + features[rest] @ weight + bias
        gains.append(srcc(personal, ratings[rest]) - srcc(general[rest], ratings[rest]))
        left_out = left_out_scores(features[first], general[first], ratings[first], (1.0, 7.0))
        estimates.append(srcc(left_out, ratings[first]) - srcc(general[first], ratings[first]))
    if amount and count == 100:
        assert np.mean(gains) > 0.1
        assert np.mean(estimates) > 0.1
    else:
        assert np.mean(gains) > -0.02
    if not amount:
        assert np.mean(estimates) < 0.02  # an honest estimate promises nothing


def test_left_out_picture_is_not_seen():
    """Its own rating moves every score but its own, and that one only by the common shift, which ranks do not see."""
    features, general, ratings = invented(3, 20, amount=1.5)
    before = left_out_scores(features, general, ratings, (-100.0, 100.0))
    changed = ratings.copy()
    changed[7] += 2.0
    moved = left_out_scores(features, general, changed, (-100.0, 100.0)) - before
    assert moved[7] == pytest.approx(2.0 / 20)
    assert np.abs(np.delete(moved, 7) - 0.1).max() > 1e-3


def test_nobodys_taste_ranks_as_the_general_score():
    """The mean of the others, had it been used, would turn ranks round where pictures are left out."""
    features, general, _ = invented(4, 12, amount=0.0)
    ratings = general + np.random.default_rng(0).choice([-1.0, 1.0], 12)
    left_out = left_out_scores(0 * features, general, ratings, (-100.0, 100.0))
    np.testing.assert_allclose(left_out - general, (ratings - general).mean())


def test_many_ratings_are_left_out_in_twenty_parts(monkeypatch):
    calls = []
    monkeypatch.setattr(personal_taste, "fit_ridge", lambda x, y: calls.append(len(y)) or fit_ridge(x, y))
    left_out_scores(*invented(5, 150, amount=1.0), (1.0, 7.0))
    assert len(calls) == 20
    assert set(calls) == {142, 143}


def test_units_of_features_do_not_matter():
    """A few features of an LLM are a thousand times as large as the others."""
    features, general, ratings = invented(6, 60, amount=1.5)
    units = np.geomspace(1e-3, 1e6, features.shape[1])
    weight, bias, strength = fit_ridge(features, ratings - general)
    other_weight, other_bias, other_strength = fit_ridge(features * units + 5 * units, ratings - general)
    assert strength == other_strength < np.inf
    np.testing.assert_allclose(other_weight * units, weight, atol=1e-9)
    np.testing.assert_allclose((features + 5) * units @ other_weight + other_bias, features @ weight + bias, atol=1e-6)


@pytest.mark.parametrize("kind", ["constant features", "equal ratings", "no deviation"])
def test_odd_numbers_give_a_finite_head(kind):
    features, general, ratings = invented(6, 10, amount=1.0)
    if kind == "constant features":
        features[:] = 3.3
    elif kind == "equal ratings":
        ratings[:] = 4.0
    else:
        ratings = general
    weight, bias, strength = fit_ridge(features, ratings - general)
    assert np.isfinite([*weight, bias]).all()
    assert kind == "equal ratings" or not weight.any()
    assert weight.any() == np.isfinite(strength)
    assert np.isfinite(left_out_scores(features, general, ratings, (1.0, 7.0))).all()


# Scorers -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eat():
    return eat_scorer()


@pytest.fixture(scope="module")
def mllm():
    model, processor = shared_parts("llava", ("aesthetics", "color"))
    return load_scorer(model, processor=processor)


@pytest.fixture(params=["eat", "mllm"])
def scorer(request):
    return request.getfixturevalue(request.param)


def taste_of(scorer, attribute="aesthetics", size=1.0) -> PersonalTaste:
    """A taste that moves scores by about `size`, drawn at random."""
    features = np.stack([record["features"] for record in read_features(scorer, PICTURES, attribute, batch_size=4)])
    general = np.array([scorer(picture, attributes=[attribute])["score"] for picture in PICTURES])
    wanted = np.random.default_rng(0).normal(0, size, len(PICTURES))
    taste, _ = fit_taste(scorer.model, attribute, features, general, np.clip(general + wanted, 1, 5))
    weight = np.random.default_rng(1).normal(0, 1, features.shape[1]) / features.std(0).clip(1e-6) / 3
    return dataclasses.replace(taste, weight=weight.astype(np.float32), bias=float(-(features @ weight).mean()))


def test_features_are_what_the_head_reads(scorer):
    """The head's values of these features are the logits; one picture fails and keeps its place."""
    attribute = list(scorer.model.config.attributes)[-1]
    records = list(read_features(scorer, [PICTURES[0], b"no picture", PICTURES[1]], attribute, batch_size=3))
    assert [record["features"] is None for record in records] == [False, True, False]
    assert "not a picture" in records[1]["error"]
    for record in records[::2]:
        values = scorer.model.score_head(torch.tensor(record["features"], dtype=torch.float32))
        levels = values.view(-1, scorer.model.config.num_levels)[0].softmax(-1)
        assert levels.tolist() == pytest.approx(record["distribution"], abs=1e-5)
    assert np.abs(records[0]["features"] - records[2]["features"]).max() > 1e-3
    assert "features" not in scorer(PICTURES[0])


def test_personal_records(scorer):
    taste = taste_of(scorer)
    personal = PersonalScorer(scorer, taste)
    general = scorer([*PICTURES[:3], b"no picture"], batch_size=4)
    records = personal([*PICTURES[:3], b"no picture"], batch_size=4)
    features = [record["features"] for record in read_features(scorer, PICTURES[:3], "aesthetics")]
    for record, before, feature in zip(records[:3], general, features, strict=False):
        expected = np.clip(before["score"] + feature @ taste.weight.astype(np.float64) + taste.bias, 1, 5)
        assert record["score"] == pytest.approx(expected, abs=1e-4)
        assert record["score"] == record["attributes"]["aesthetics"]
        assert record["normalized"] == pytest.approx((expected - 1) / 4, abs=1e-4)
        assert record["general_score"] == pytest.approx(before["score"], abs=1e-5)
        assert record["std"] is record["distribution"] is None
        assert {name: value for name, value in record["attributes"].items() if name != "aesthetics"} == pytest.approx(
            {name: value for name, value in before["attributes"].items() if name != "aesthetics"}, abs=1e-5
        )
    assert max(abs(record["score"] - record["general_score"]) for record in records[:3]) > 0.1
    assert records[3]["score"] is records[3]["general_score"] is None
    assert records[3]["error"] == general[3]["error"]
    assert isinstance(personal, ImageAestheticsPipeline)
    assert scorer(PICTURES[0])["score"] == pytest.approx(general[0]["score"], abs=1e-5)  # it stays as it was


def test_personal_scores_do_not_depend_on_the_batch(scorer):
    personal = PersonalScorer(scorer, taste_of(scorer))
    together = [record["score"] for record in personal(PICTURES, batch_size=5)]
    alone = [personal(picture)["score"] for picture in PICTURES]
    assert np.std(alone) > 1e-2
    assert together == pytest.approx(alone, abs=5e-5)


def test_head_of_several_layers(eat):
    """As in ELTA: what counts is what goes into the first one."""
    model = copy.deepcopy(eat.model)
    model.score_head = torch.nn.Sequential(torch.nn.Linear(16, 4), torch.nn.Tanh(), torch.nn.Linear(4, 5))
    scorer = load_scorer(model, image_processor=eat.image_processor)
    taste = taste_of(scorer)
    assert taste.weight.shape == (16,)
    record = PersonalScorer(scorer, taste)(PICTURES[0])
    assert abs(record["score"] - record["general_score"]) > 1e-3


def test_text_holds_the_personal_score(mllm):
    personal = PersonalScorer(mllm, taste_of(mllm))
    record = personal(PICTURES[0], text=True, max_new_tokens=2)
    assert abs(record["score"] - record["general_score"]) > 0.01
    assert f"{record['score']:.2f}" in record["text"]


def test_the_rated_attribute_must_come_first(mllm):
    taste = taste_of(mllm, "color")
    personal = PersonalScorer(mllm, taste)
    with pytest.raises(ValueError, match="taste is of 'color', but the first attribute asked for is 'aesthetics'"):
        personal(PICTURES[0])
    both = personal(PICTURES[0], attributes=["color", "aesthetics"])
    assert both["score"] == both["attributes"]["color"] != both["general_score"]
    assert both["score"] == pytest.approx(personal(PICTURES[0], attributes=["color"])["score"], abs=1e-5)


def test_it_refuses_to_be_saved_as_a_folder(eat, tmp_path):
    with pytest.raises(ValueError, match="taste's file"):
        PersonalScorer(eat, taste_of(eat)).save_pretrained(tmp_path / "folder")


# Files ---------------------------------------------------------------------------------------------------------------


def test_file_is_small_safetensors_and_gives_the_same_scores(scorer, tmp_path):
    taste = dataclasses.replace(taste_of(scorer), strength=None, general_srcc=0.5, personal_srcc=None)
    taste.save(tmp_path / "anna.safetensors")
    assert (tmp_path / "anna.safetensors").stat().st_size < 3000
    assert set(load_file(tmp_path / "anna.safetensors")) == {"weight", "bias"}
    again = PersonalTaste.load(tmp_path / "anna.safetensors")
    fields = [field.name for field in dataclasses.fields(taste) if field.name not in ("weight", "bias")]
    assert [getattr(again, name) for name in fields] == [getattr(taste, name) for name in fields]
    np.testing.assert_array_equal(again.weight, taste.weight)
    expected = PersonalScorer(scorer, taste)(PICTURES[0])["score"]
    assert PersonalScorer(scorer, tmp_path / "anna.safetensors")(PICTURES[0])["score"] == pytest.approx(
        expected, abs=1e-5
    )


def test_load_scorer_takes_the_file(eat, tmp_path):
    taste_of(eat).save(tmp_path / "anna.safetensors")
    scorer = load_scorer(eat.model, image_processor=eat.image_processor, personal=tmp_path / "anna.safetensors")
    assert isinstance(scorer, PersonalScorer)
    assert abs(scorer(PICTURES[0])["score"] - eat(PICTURES[0])["score"]) > 1e-3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"attribute": "color"}, "made for attribute 'color', but the model has 'aesthetics'"),
        ({"score_range": (1.0, 10.0)}, "made for the score range 1 to 10, but the model has 1 to 5"),
        ({"weight": np.ones(7, dtype=np.float32)}, "made for 7 features, which the model's score head does not read"),
        ({"fingerprint": "0123"}, "made for the model 'EATForImageAesthetics', but this has other weights or another"),
        (
            {"fingerprint": "0123", "model": "user/other"},
            "made for the model 'user/other', but 'EATForImageAesthetics' has other weights or another config",
        ),
    ],
)
def test_another_models_taste_is_refused_by_name(eat, change, reason):
    with pytest.raises(ValueError, match=reason):
        PersonalScorer(eat, dataclasses.replace(taste_of(eat), **change))


@pytest.mark.parametrize("kind", ["llava", "eat", "tanet"])
def test_the_same_model_under_another_name_or_revision_is_taken(kind, tmp_path):
    if kind == "llava":
        model, processor = scorer_parts(kind)
        scorer = load_scorer(model, processor=processor)
    else:
        scorer = {"eat": eat_scorer, "tanet": tanet_scorer}[kind]()
    taste = dataclasses.replace(taste_of(scorer), revision="aaa")
    scorer.save_pretrained(tmp_path / "other")
    again = load_scorer(tmp_path / "other")
    again.model.loaded_revision = "bbb"
    assert personal_taste.identity(again.model, "aesthetics")["model"] == "other" != taste.model
    assert PersonalScorer(again, taste)(PICTURES[0])["score"] == pytest.approx(
        PersonalScorer(scorer, taste)(PICTURES[0])["score"], abs=1e-5
    )


@pytest.mark.parametrize("change", ["weight", "buffer", "config"])
def test_features_of_the_same_head_on_another_model_are_refused(change):
    scorer = tanet_scorer()
    taste = taste_of(scorer)
    PersonalScorer(scorer, taste)
    model = copy.deepcopy(scorer.model)
    if change == "weight":
        next(model.parameters()).data.mul_(1.1)
    elif change == "buffer":
        dict(model.named_buffers())[next(name for name in model.state_dict() if "running_mean" in name)].add_(1)
    else:
        model.config.theme_activation = "softmax"
    with pytest.raises(ValueError, match="other weights or another config"):
        PersonalScorer(load_scorer(model, image_processor=scorer.image_processor), taste)


def test_sample_falls_on_all_columns():
    matrix = torch.arange(64).repeat(1024, 1)  # its column is each number
    found = personal_taste.sample(matrix)
    assert 1000 < len(found) < 1100
    assert set(found.tolist()) == set(range(64))


def test_taste_of_a_retrained_head_is_refused_and_of_a_cast_one_is_not():
    model, processor = scorer_parts("llava")
    scorer = load_scorer(model, processor=processor)
    taste = taste_of(scorer)
    PersonalScorer(load_scorer(model.to(torch.bfloat16), processor=processor), taste)
    torch.nn.init.normal_(model.score_head.weight)
    with pytest.raises(ValueError, match="other weights or another config"):
        PersonalScorer(load_scorer(model, processor=processor), taste)


def damaged(kind: str, path) -> None:
    tensors, metadata = {"weight": np.ones(4, dtype=np.float32), "bias": np.ones(1, dtype=np.float32)}, {}
    fields = {
        "model": "m",
        "revision": None,
        "fingerprint": "h",
        "attribute": "a",
        "score_range": [1, 5],
        "num_ratings": 5,
    }
    metadata = {"format": personal_taste.FORMAT} | {name: json.dumps(value) for name, value in fields.items()}
    if kind == "another format":
        metadata["format"] = "pt"
    elif kind == "no bias":
        del tensors["bias"]
    elif kind == "no number":
        tensors["weight"][2] = np.nan
    elif kind == "wrong shape":
        tensors["weight"] = np.ones((2, 2), dtype=np.float32)
    elif kind == "broken metadata":
        metadata["fingerprint"] = "{"
    elif kind == "unknown field":
        metadata["taste"] = "1"
    elif kind == "range":
        metadata["score_range"] = "[5, 1]"
    save_file(tensors, path, metadata)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    elif kind == "pickle":
        torch.save({"weight": 1}, path)
    elif kind == "empty":
        path.write_bytes(b"")


@pytest.mark.parametrize(
    "kind",
    ["another format", "no bias", "no number", "wrong shape", "broken metadata", "unknown field", "range", "cut"]
    + ["pickle", "empty"],
)
def test_damaged_file_is_refused(kind, tmp_path):
    path = tmp_path / "file.safetensors"
    damaged("", path)
    PersonalTaste.load(path)
    damaged(kind, path)
    with pytest.raises(ValueError, match="is no personal taste"):
        PersonalTaste.load(path)


def test_missing_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        PersonalTaste.load(tmp_path / "missing.safetensors")


def test_too_few_ratings(eat):
    with pytest.raises(ValueError, match="needs 5 rated pictures at least, got 4"):
        fit_taste(eat.model, "aesthetics", np.ones((4, 16)), np.ones(4), np.ones(4))
