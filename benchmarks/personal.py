"""
Personal taste on FLICKR-AES: how well heads fitted to 10 or 100 ratings of a person rank the rest of their ratings.

    python benchmarks/personal.py MODEL FLICKR-AES      # a Hub name or folder, and the folder of the data set
    python benchmarks/personal.py roc4mllm-tiny FLICKR-AES --counts 105 171
    python benchmarks/personal.py MODEL FLICKR-AES --workers test.txt --draws 10

The protocol is that of "Personalized Image Aesthetics" (ICCV 2017), in whose terms TANet (IJCAI 2022, table 4)
reports: of each test worker some ratings are drawn to fit and all others are ranked; SRCC is the mean over draws and
workers. The general score is measured on the same pictures of the same draws.

FLICKR-AES holds `FLICKR-AES_image_labeled_by_each_worker.csv` (worker, imagePair, score 1 to 5; blanks around names
and cells) and the pictures in `40K`. It does not say which 37 workers are the papers' test set: name them in a file,
one a line, or choose by how many pictures each has rated. A picture that is missing or cannot be read is left out and
counted; so are workers who are left with too few.
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roc4mllm import load_scorer
from roc4mllm.inference.load_scorer import BUNDLED_CHECKPOINT
from roc4mllm.inference.personal.personal_scorer import read_features
from roc4mllm.inference.personal.personal_taste import Array, fit_ridge
from roc4mllm.processing_roc4mllm.pipeline_image_aesthetics import attribute_range
from roc4mllm.trainer.image_aesthetics_metric.score_agreement import srcc

RATINGS, PICTURES = "FLICKR-AES_image_labeled_by_each_worker.csv", "40K"
LOWEST, HIGHEST = 1.0, 5.0  # of a rating
FEWEST_RANKED = 5  # pictures that are left to rank
Ratings = Mapping[str, Mapping[str, float]]  # by worker and picture


@dataclass(frozen=True)
class Result:
    """
    SRCC with the ratings that were not drawn, means over draws and workers.

    Args:
        fitted (`int`): Ratings that each head was fitted to.
        workers (`int`): Workers with more ratings than that.
        general, personal (`float`): Of the model's own score and of the personal one, −1 to 1.
        spread (`float`): Standard deviation of `personal` − `general` over workers, each the mean of its draws.
    """

    fitted: int
    workers: int
    general: float
    personal: float
    spread: float


def read_worker_ratings(path: Path) -> dict[str, dict[str, float]]:
    """
    Ratings by worker and picture; of a picture that a worker rated twice, the mean.

    Raises:
        ValueError: If a column is missing or a score is no number from 1 to 5.
    """
    found: dict[str, dict[str, list[float]]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        columns = {name.strip(): name for name in reader.fieldnames or []}
        if missing := {"worker", "imagePair", "score"} - set(columns):
            raise ValueError(f"{path.name} has no column {', '.join(sorted(missing))}; its columns are {[*columns]}")
        for line, row in enumerate(reader, start=2):
            worker, picture, score = ((row[columns[name]] or "").strip() for name in ("worker", "imagePair", "score"))
            try:
                rating = float(score)
            except ValueError:
                rating = np.nan
            if not (LOWEST <= rating <= HIGHEST and worker and picture):
                raise ValueError(f"{path.name}, line {line}: expected a worker, a picture and 1 to 5, got {row}")
            found.setdefault(worker, {}).setdefault(picture, []).append(rating)
    return {
        worker: {picture: float(np.mean(values)) for picture, values in pictures.items()}
        for worker, pictures in found.items()
    }


def chosen_workers(ratings: Ratings, names: Sequence[str] | None, counts: Sequence[int] | None) -> dict:
    """The ratings of the workers named, or of those who rated as many pictures as said; of all without either."""
    if unknown := set(names or []) - set(ratings):
        raise ValueError(f"no ratings of the workers {', '.join(sorted(unknown)[:5])}")
    fewest, most = counts or (0, sys.maxsize)
    return {
        worker: pictures
        for worker, pictures in ratings.items()
        if (names is None or worker in names) and fewest <= len(pictures) <= most
    }


def measure_workers(
    ratings: Ratings,
    features: Mapping[str, Array],
    general: Mapping[str, float],
    score_range: tuple[float, float],
    fitted: int,
    draws: int = 10,
    seed: int = 0,
) -> Result:
    """
    The protocol for one number of ratings.

    Args:
        ratings (mapping): From worker and picture to a score in `score_range`.
        features (mapping from `str` to `np.ndarray` of shape `(num_features,)`): Of every picture that can be read.
        general (mapping from `str` to `float`): The model's scores of these pictures.
        score_range (pair of `float`): Lowest and highest score.
        fitted (`int`): Ratings of a worker to fit to.
        draws (`int`, *optional*, defaults to 10): How often they are drawn.
        seed (`int`, *optional*, defaults to 0): Of the draws.

    Raises:
        ValueError: If no worker has ratings enough.
    """
    generator, found = np.random.default_rng(seed), []
    for worker in sorted(ratings):
        pictures = sorted(set(ratings[worker]) & set(features))
        if len(pictures) < fitted + FEWEST_RANKED:
            continue
        inputs = np.stack([features[picture] for picture in pictures])  # (n, C)
        own = np.array([general[picture] for picture in pictures])  # (n,)
        rated = np.array([ratings[worker][picture] for picture in pictures])  # (n,)
        pairs = []
        for _ in range(draws):
            order = generator.permutation(len(pictures))
            drawn, rest = order[:fitted], order[fitted:]
            weight, bias, _ = fit_ridge(inputs[drawn], rated[drawn] - own[drawn])
            personal = np.clip(own[rest] + inputs[rest] @ weight + bias, *score_range)
            pairs.append([srcc(own[rest], rated[rest]), srcc(personal, rated[rest])])
        found.append(np.nanmean(pairs, axis=0))  # a worker whose rest is all alike has no SRCC in that draw
    if not found:
        raise ValueError(f"no worker has {fitted + FEWEST_RANKED} ratings of pictures that can be read")
    values = np.array(found)  # (workers, 2)
    general_mean, personal_mean = np.nanmean(values, axis=0)
    return Result(
        fitted, len(values), float(general_mean), float(personal_mean), float(np.nanstd(values[:, 1] - values[:, 0]))
    )


def mapped(ratings: Ratings, score_range: tuple[float, float]) -> dict[str, dict[str, float]]:
    """Ratings from 1 to 5 in units of the model."""
    low, high = score_range
    stretch = (high - low) / (HIGHEST - LOWEST)
    return {
        worker: {picture: low + (score - LOWEST) * stretch for picture, score in pictures.items()}
        for worker, pictures in ratings.items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fit", type=int, nargs="+", default=[10, 100], help="ratings to fit to (default: 10 100)")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=Path, help="a file with a worker a line")
    parser.add_argument("--counts", type=int, nargs=2, metavar=("FEWEST", "MOST"), help="pictures that a worker rated")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--num-workers", type=int, default=0)
    args = parser.parse_args(argv)

    names = args.workers and args.workers.read_text(encoding="utf-8").split()
    ratings = chosen_workers(read_worker_ratings(args.folder / RATINGS), names, args.counts)
    scorer = load_scorer(None if args.model == BUNDLED_CHECKPOINT.name else args.model)
    config = scorer.model.config
    low, high = attribute_range(config, 0)
    pictures = sorted({picture for rated in ratings.values() for picture in rated})
    paths = [str(args.folder / PICTURES / picture) for picture in pictures]
    options = {"batch_size": args.batch_size, "num_workers": args.num_workers}
    records = dict(zip(pictures, read_features(scorer, paths, config.attributes[0], **options), strict=True))
    good = {picture: record for picture, record in records.items() if record["error"] is None}
    print(f"{len(ratings)} workers, {len(good)} of {len(pictures)} pictures; {args.draws} draws, seed {args.seed}\n")
    print(
        "| ratings to fit | workers | SRCC general | SRCC personal | gain (std over workers) |\n|---|---|---|---|---|"
    )
    for fitted in args.fit:
        found = measure_workers(
            mapped(ratings, (low, high)),
            {picture: record["features"] for picture, record in good.items()},
            {picture: record["score"] for picture, record in good.items()},
            (low, high),
            fitted,
            args.draws,
            args.seed,
        )
        gain = f"{found.personal - found.general:+.3f} ({found.spread:.3f})"
        print(f"| {fitted} | {found.workers} | {found.general:.3f} | {found.personal:.3f} | {gain} |")


if __name__ == "__main__":
    main()
