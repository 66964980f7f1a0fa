"""
How good `roc4mllm-tiny` is on held-out photographs: what one run is asked, and the table of all runs with intervals.

Lines of `results/tiny_checkpoint.jsonl` hold predictions; with the ratings, which stay where they are, every number of
the table follows from them:
- `labels`, one per fold: `drawn`, true scores of the draws by kind of damage (null: no colour to lose)
- `ridge`, one per fold: `beauty`, predicted
- `tiny`, one per seed and fold: `beauty` and `drawn`, predicted, and `order`: of each photograph's pairs of strengths
  of one kind of damage, the share that the scores put in the right order; a tie is wrong, and `ties` counts them
  (two strengths that give the same picture are no pair)

An interval is the middle 95 % of 1000 bootstrap resamples of the photographs of each fold, the same for all methods
and seeds, so that the difference from ridge is a paired one.
"""

import itertools

import numpy as np
import torch
from scipy.stats import rankdata
from tiny_damage import DAMAGES
from tiny_photographs import DRAWS, LADDERS, STEPS, Photographs

SEEDS, FOLDS, RESAMPLES = (0, 1, 2), 5, 1000
GOALS = {"sharpness": 0.85, "noise": 0.85, "exposure": 0.85, "compression": 0.75, "colourfulness": 0.65}


# ---- one run --------------------------------------------------------------------------------------------------------


def labels_of(photos: Photographs) -> dict:
    """The known damage that the predictions of a fold are compared with."""
    drawn = photos.drawn.numpy().astype(float)  # (P, DRAWS, K)
    drawn[~photos.coloured.numpy(), :, DAMAGES.index("colourfulness")] = np.nan
    return {"drawn": by_kind(drawn)}


def judge(predicted_plain: np.ndarray, predicted_tests: np.ndarray, photos: Photographs) -> dict:
    """
    What is kept of one run.

    Args:
        predicted_plain (`np.ndarray` of shape `(P, A)`): Scores of the photographs as they are.
        predicted_tests (`np.ndarray` of shape `(P, T, A)`): Scores of ladders and draws.
        photos (`Photographs`): The held-out photographs.
    """
    order: dict[str, list] = {kind: [] for kind in DAMAGES}
    ties = 0
    for number, (kind, _) in enumerate(LADDERS):
        column, start = 1 + DAMAGES.index(kind), number * len(STEPS)
        ladder = predicted_tests[:, start : start + len(STEPS), column]
        ladder = np.concatenate([predicted_plain[:, None, column], ladder], axis=1)  # (P, 6), undamaged first
        pairs = list(itertools.combinations(range(ladder.shape[1]), 2))
        falls = np.stack([ladder[:, weak] - ladder[:, strong] for weak, strong in pairs], axis=1)  # (P, 15)
        falls[~distinct(photos, start, pairs)] = np.nan
        if kind == "colourfulness":
            falls[~photos.coloured.numpy()] = np.nan
        ties += int((falls == 0).sum())
        with np.errstate(invalid="ignore"):  # a photograph without pairs has no share: NaN
            order[kind].append((falls > 0).sum(1) / (~np.isnan(falls)).sum(1))
    drawn = predicted_tests[:, len(LADDERS) * len(STEPS) :].reshape(len(predicted_plain), DRAWS, len(DAMAGES), -1)
    own = np.stack([drawn[:, :, index, 1 + index] for index in range(len(DAMAGES))], axis=-1)  # (P, DRAWS, K)
    return {
        "beauty": rounded(predicted_plain[:, 0], 4),
        "drawn": by_kind(own),
        "order": {kind: rounded(np.mean(shares, axis=0), 3) for kind, shares in order.items()},
        "ties": ties,
    }


def distinct(photos: Photographs, start: int, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Which pairs of a ladder are two pictures, (P, 15): strong over-exposure may leave nothing but white, twice."""
    ladder = torch.cat([photos.views[:, :1], photos.tests[:, start : start + len(STEPS)]], dim=1)  # (P, 6, …)
    ladder = ladder.flatten(2)
    return np.stack([(ladder[:, weak] != ladder[:, strong]).any(1).numpy() for weak, strong in pairs], axis=1)


def by_kind(drawn: np.ndarray) -> dict[str, list]:
    """(P, DRAWS, K) as lists by kind, each of one list per draw."""
    return {kind: [rounded(draw, 2) for draw in drawn[..., index].T] for index, kind in enumerate(DAMAGES)}


def rounded(values, digits: int) -> list:
    """As JSON holds it; null for NaN."""
    return [None if np.isnan(value) else round(float(value), digits) for value in np.asarray(values)]


# ---- all runs -------------------------------------------------------------------------------------------------------


def srcc(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Rank correlation; rows without a label are left out."""
    known = ~np.isnan(labels)
    return plcc(rankdata(predicted[known]), rankdata(labels[known]))


def plcc(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Linear correlation."""
    return float(np.corrcoef(predicted, labels)[0, 1])


def measure(lines: list[dict], picks: list[np.ndarray]) -> dict[str, float]:
    """Every number of the table, a mean over folds and seeds, on these photographs of each fold."""
    values: dict[str, list[float]] = {}
    labels = {line["fold"]: line for line in lines if line["method"] == "labels"}
    for line in lines:
        if line["method"] == "labels":
            continue
        pick, label = picks[line["fold"]], labels[line["fold"]]
        for name, value in measure_run(line, label, pick).items():
            for group in [line["method"], *([f"seed {line['seed']}"] if line["method"] == "tiny" else [])]:
                values.setdefault(f"{group} {name}", []).append(value)
    means = {name: float(np.mean(group)) for name, group in values.items()}
    return means | {"gain": means["tiny srcc"] - means["ridge srcc"]}


def measure_run(line: dict, label: dict, pick: np.ndarray) -> dict[str, float]:
    """The numbers of one line."""
    predicted, rated = (np.array(values, dtype=float)[pick] for values in (line["beauty"], label["rated"]))
    found = {"srcc": srcc(predicted, rated), "plcc": plcc(predicted, rated)}
    found["mae"] = float(np.abs(predicted - rated).mean())
    for kind in line.get("drawn", ()):
        draws = zip(line["drawn"][kind], label["drawn"][kind], strict=True)
        pairs = [(np.array(told, dtype=float)[pick], np.array(known, dtype=float)[pick]) for told, known in draws]
        found[kind] = float(np.mean([srcc(*pair) for pair in pairs]))
        found[f"{kind} order"] = float(np.nanmean(np.array(line["order"][kind], dtype=float)[pick]))
    return found


def summarize(lines: list[dict]) -> dict[str, tuple[float, float, float]]:
    """Value and ends of the interval of every number of the table."""
    sizes = [len(line["rated"]) for line in sorted(labels_only(lines), key=lambda line: line["fold"])]
    found = measure(lines, [np.arange(size) for size in sizes])
    generator = np.random.default_rng(0)
    resampled = [measure(lines, [generator.integers(0, n, n) for n in sizes]) for _ in range(RESAMPLES)]
    ends = {name: np.quantile([sample[name] for sample in resampled], (0.025, 0.975)) for name in found}
    found["gain share"] = float(np.mean([sample["gain"] > 0 for sample in resampled]))
    return {name: (value, *map(float, ends.get(name, (value, value)))) for name, value in found.items()}


def with_ratings(lines: list[dict], rated: list[np.ndarray]) -> list[dict]:
    """The lines, with the ratings of each fold in its line of labels; they are not ours to pass on in a file."""
    return [line | {"rated": rated[line["fold"]].tolist()} if line["method"] == "labels" else line for line in lines]


def labels_only(lines: list[dict]) -> list[dict]:
    """The lines with labels."""
    return [line for line in lines if line["method"] == "labels"]


def check_complete(lines: list[dict]) -> None:
    """Refuse to make a table of less than all runs."""
    expected = {("labels", None), ("ridge", None), *(("tiny", seed) for seed in SEEDS)}
    missing = [
        f"{method} seed {seed} fold {fold}" if seed is not None else f"{method} fold {fold}"
        for method, seed in sorted(expected, key=str)
        for fold in range(FOLDS)
        if not any((line["method"], line["seed"], line["fold"]) == (method, seed, fold) for line in lines)
    ]
    if missing:
        raise SystemExit(f"Runs are missing ({', '.join(missing)}): crossvalidate first.")
