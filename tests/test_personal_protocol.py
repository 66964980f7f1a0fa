"""The FLICKR-AES protocol on invented raters, and the benchmark on invented files in that data set's form."""

import numpy as np
import personal
import pytest
from tiny import photo


def invented(workers: int, pictures: int, amount: float):
    """Features, general scores and ratings, 1 to 5, of workers who each add a taste of their own."""
    generator = np.random.default_rng(0)
    names = [f"{number}.jpg" for number in range(pictures)]
    features = generator.normal(0, 1, (pictures, 30))
    general = np.clip(3 + generator.normal(0, 0.7, pictures), 1, 5)
    ratings = {}
    for worker in range(workers):
        liked = features @ generator.normal(0, 1, 30) / np.sqrt(30)
        rated = np.clip(general + amount * liked + generator.normal(0, 0.4, pictures), 1, 5)
        seen = generator.permutation(pictures)[:150]
        ratings[f"worker{worker}"] = {names[index]: float(rated[index]) for index in seen}
    return ratings, dict(zip(names, features, strict=True)), dict(zip(names, general.tolist(), strict=True))


def test_a_hundred_ratings_tell_more_than_ten():
    ratings, features, general = invented(4, 200, amount=1.0)
    ten, hundred = (personal.measure_workers(ratings, features, general, (1, 5), k, draws=4) for k in (10, 100))
    assert (ten.fitted, ten.workers, hundred.fitted) == (10, 4, 100)
    assert ten.personal > ten.general - 0.03
    assert hundred.personal > hundred.general + 0.1
    assert hundred.personal > ten.personal + 0.05


def test_without_a_taste_nothing_is_gained_and_little_lost():
    ratings, features, general = invented(4, 200, amount=0.0)
    for count in (10, 100):
        found = personal.measure_workers(ratings, features, general, (1, 5), count, draws=4)
        assert found.personal == pytest.approx(found.general, abs=0.03)
        assert found.spread < 0.05


def test_draws_are_of_the_seed_and_never_ranked():
    ratings, features, general = invented(2, 200, amount=1.0)
    first, again, other = (
        personal.measure_workers(ratings, features, general, (1, 5), 100, draws=2, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_workers_with_too_few_pictures_are_left_out():
    ratings, features, general = invented(3, 200, amount=1.0)
    ratings["worker0"] = dict(list(ratings["worker0"].items())[:20])
    assert personal.measure_workers(ratings, features, general, (1, 5), 100, draws=1).workers == 2
    known = dict(list(features.items())[:3])
    with pytest.raises(ValueError, match="no worker has 105 ratings"):
        personal.measure_workers(ratings, known, general, (1, 5), 100, draws=1)


@pytest.fixture
def folder(tmp_path):
    """Three workers as the file has them, with blanks, a picture rated twice and one that is missing."""
    (tmp_path / "40K").mkdir()
    lines = ["worker, imagePair, score"]
    for number in range(20):
        if number:
            photo(number).save(tmp_path / "40K" / f"farm_{number}.png")
        lines += [f"A1, farm_{number}.png, {number % 5 + 1}", f"A2,farm_{number}.png,{(number * 3) % 5 + 1}"]
    lines += ["A1, farm_3.png, 2", "A3, farm_1.png, 5"]
    (tmp_path / personal.RATINGS).write_text("\n".join(lines) + "\n")
    return tmp_path


def test_ratings_are_read_with_their_blanks(folder):
    ratings = personal.read_worker_ratings(folder / personal.RATINGS)
    assert {worker: len(pictures) for worker, pictures in ratings.items()} == {"A1": 20, "A2": 20, "A3": 1}
    assert ratings["A1"]["farm_3.png"] == 3.0  # of 4 and 2
    assert list(personal.chosen_workers(ratings, ["A2"], None)) == ["A2"]
    assert list(personal.chosen_workers(ratings, None, (2, 100))) == ["A1", "A2"]
    with pytest.raises(ValueError, match="A9"):
        personal.chosen_workers(ratings, ["A9"], None)
    mapped = personal.mapped(ratings, (1.0, 7.0))
    assert (mapped["A1"]["farm_0.png"], mapped["A1"]["farm_4.png"], mapped["A1"]["farm_3.png"]) == (1.0, 7.0, 4.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("worker,score\nA,1\n", "no column imagePair"), ("worker, imagePair, score\nA, a.jpg, 6\n", "line 2: expected")],
)
def test_other_files_are_refused(tmp_path, text, reason):
    (tmp_path / "ratings.csv").write_text(text)
    with pytest.raises(ValueError, match=reason):
        personal.read_worker_ratings(tmp_path / "ratings.csv")


def test_benchmark_prints_a_table(folder, capsys):
    personal.main(["roc4mllm-tiny", str(folder), "--fit", "5", "10", "--draws", "2"])
    head, _, names, _, five, ten = capsys.readouterr().out.splitlines()
    assert head == "3 workers, 19 of 20 pictures; 2 draws, seed 0"
    assert names.startswith("| ratings to fit | workers | SRCC general")
    assert five.startswith("| 5 | 2 | ")
    assert ten.startswith("| 10 | 2 | ")
