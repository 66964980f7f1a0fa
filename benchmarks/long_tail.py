"""
The three parts of ELTA (ICML 2024) switched on one by one, on photographs whose ratings have a long tail.

    python benchmarks/long_tail.py run --family elta    # 4 ways x 5 seeds; resumes where it stopped
    python benchmarks/long_tail.py table                # results/long_tail.jsonl -> results/long_tail.md

`plain`; `mixup` adds tail mixup to it; `similarity` adds the similarity loss to that; `self-training` adds a round of
pseudo-labels to that. The ratings of the photographs are nearly normal, so their tail is made: of the training
photographs those within half a standard deviation of the mean stay, of the others the fewer, the further they are
from it. A seed draws them, the order and the fresh weights, alike for all four ways. Photographs that do not stay are
the pictures without ratings of the last way.

All ways take the same steps, in two trainings one behind the other: between them the last way picks its pictures.
Held out are whole folds, with both tails. Folds as in `family_training.py`, whose small models these are: settings
were tried on fold 1 (`--fold 1`, with `--results` elsewhere); the table is of fold 0.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from ablation import read_lines
from family_models import BATCH, FAMILIES, SCORES, Rated, append, learn, predict, read_rated
from scipy.stats import spearmanr
from tiny_checkpoint import folds
from transformers import set_seed

from roc4mllm.trainer.evaluation_parts import label_segments
from roc4mllm.trainer.self_training import pick_sure

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "long_tail.jsonl"
SEEDS = (0, 1, 2, 3, 4)
STEPS = (400, 100)  # before and after the pick
NEAR, FALL = 0.5, 0.4  # standard deviations from the mean: all stay within the one, a 1/e more far by each other
MIXUP = {"mixup_pairs": 1, "mixup_tau_1": 0.5, "mixup_tau_2": 5.0}
SIMILARITY = {"similarity_weight": 0.1}
WAYS = {"plain": {}, "mixup": MIXUP, "similarity": MIXUP | SIMILARITY, "self-training": MIXUP | SIMILARITY}
SHARPENING, THRESHOLD = 1.0, 0.4
SEGMENTS = ("lowest fifth", "middle", "highest fifth")


# ---- the runs -------------------------------------------------------------------------------------------------------


def run(arguments) -> None:
    """Every run that the results do not hold yet."""
    done = {(line["family"], line["way"], line["seed"]) for line in read_lines(arguments.results)}
    photographs = read_rated(arguments.data)
    train, test = (photographs.take(rows) for rows in folds(len(photographs.mean))[arguments.fold])
    for seed in arguments.seeds:
        for way in arguments.ways:
            if (arguments.family, way, seed) in done:
                continue
            print(f"{arguments.family}, {way}, seed {seed}", flush=True)
            line = {"family": arguments.family, "way": way, "seed": seed, "fold": arguments.fold}
            append(arguments.results, line | run_one(arguments.family, way, seed, train, test, arguments.steps))


def run_one(family: str, way: str, seed: int, train: Rated, test: Rated, steps: tuple[int, int]) -> dict:
    """Train and judge one way."""
    start = time.process_time()
    stays = long_tailed(train.mean, seed)
    labelled, others = train.take(stays), train.take(~stays)
    set_seed(seed)
    model, rows = FAMILIES[family](), labelled.rows()
    learn(model, family, rows, steps[0], seed, **WAYS[way])
    picked = pseudo_rows(model, others) if way == "self-training" else []
    learn(model, family, rows + picked, steps[1], seed + 100, **WAYS[way])
    predicted = predict(model, test)[0].numpy()
    return {
        "steps": list(steps),
        "labelled": len(rows),
        "unlabelled": len(others.mean),
        "picked": len(picked),
        "n": len(test.mean),
        "srcc": float(spearmanr(predicted, test.mean)[0]),
        "mae": float(np.abs(predicted - test.mean).mean()),
        "segments": [{"n": s.n, "mae": s.mae, "bias": s.bias} for s in label_segments(predicted, test.mean)],
        "seconds": time.process_time() - start,
    }


def long_tailed(mean: np.ndarray, seed: int) -> np.ndarray:
    """Which photographs `(P,)` stay."""
    far = np.maximum(np.abs(mean - mean.mean()) / mean.std() - NEAR, 0)
    return np.random.default_rng(seed).random(len(mean)) < np.exp(-far / FALL)


def pseudo_rows(model, others: Rated) -> list[dict]:
    """Photographs that the model is sure of, with the distributions that it predicts."""
    scores, shares = predict(model, others)  # (P,), (P, N)
    picked, _ = pick_sure(scores[:, None], shares[:, None], SCORES["score_range"], SHARPENING, THRESHOLD)
    kept = picked[:, 0].numpy()
    return Rated(others.pixels, scores.double().numpy(), shares.numpy()).take(kept).rows()


# ---- the table ------------------------------------------------------------------------------------------------------


def table(arguments) -> None:
    """Write the table beside the results."""
    lines = read_lines(arguments.results)
    sections = [section(family, [line for line in lines if line["family"] == family]) for family in families_in(lines)]
    first = lines[0]
    text = TABLE.format(
        sections="\n".join(sections), n=first["n"], fold=first["fold"], steps=" + ".join(map(str, first["steps"])),
        batch=BATCH, sharpening=SHARPENING, threshold=THRESHOLD, **MIXUP, **SIMILARITY,
        labelled=statistics.mean(line["labelled"] for line in lines),
        unlabelled=statistics.mean(line["unlabelled"] for line in lines),
        sizes=", ".join(f"{name} {part['n']}" for name, part in zip(SEGMENTS, first["segments"], strict=True)),
        seconds=max(line["seconds"] for line in lines), date=max(line["date"] for line in lines),
        machine=lines[-1]["machine"],
    )  # fmt: skip
    arguments.results.with_suffix(".md").write_text(text)
    print(text)


def families_in(lines: list[dict]) -> list[str]:
    """Families with all their runs."""
    for family in dict.fromkeys(line["family"] for line in lines):
        for way in WAYS:
            seeds = sorted(line["seed"] for line in lines if (line["family"], line["way"]) == (family, way))
            if seeds != list(SEEDS):
                raise SystemExit(
                    f"The results hold the seeds {seeds} of {family}, {way}, not {list(SEEDS)}: run first."
                )
    return list(dict.fromkeys(line["family"] for line in lines))


def section(family: str, lines: list[dict]) -> str:
    """The table of a family, and what each way gains over the one above it, seed by seed."""
    runs = {way: sorted((r for r in lines if r["way"] == way), key=lambda line: line["seed"]) for way in WAYS}
    head = ["way", "SRCC", "MAE", *(f"MAE, {name}" for name in SEGMENTS), "picked"]
    rows = [head, ["---"] * len(head), *(main_row(way, own) for way, own in runs.items())]
    head = ["change", "of SRCC", "seeds above 0", "of MAE in both tails", "seeds below 0"]
    gains = [head, ["---"] * len(head)]
    ways = list(WAYS)
    gains += [gain_row(*pair, runs) for pair in [*zip(ways[:-1], ways[1:], strict=True), (ways[0], ways[-1])]]
    tables = ["\n".join("| " + " | ".join(cells) + " |" for cells in part) for part in (rows, gains)]
    return f"## {family}\n\n" + "\n\n".join(tables) + "\n"


def main_row(way: str, runs: list[dict]) -> list[str]:
    """Means and standard deviations over the seeds."""
    cells = [cell([line[name] for line in runs]) for name in ("srcc", "mae")]
    cells += [cell([line["segments"][index]["mae"] for line in runs]) for index in range(len(SEGMENTS))]
    return [way, *cells, f"{statistics.mean(line['picked'] for line in runs):.0f}"]


def gain_row(before: str, after: str, runs: dict[str, list[dict]]) -> list[str]:
    """Differences with the same seed."""
    pairs = list(zip(runs[before], runs[after], strict=True))
    srcc = [new["srcc"] - old["srcc"] for old, new in pairs]
    tails = [tail_error(new) - tail_error(old) for old, new in pairs]
    counts = [sum(change > 0 for change in srcc), sum(change < 0 for change in tails)]
    count = len(pairs)
    return [
        f"{before} → {after}",
        cell(srcc, "+"),
        f"{counts[0]} of {count}",
        cell(tails, "+"),
        f"{counts[1]} of {count}",
    ]


def tail_error(line: dict) -> float:
    """Mean absolute error of the lowest and the highest fifth."""
    low, _, high = line["segments"]
    return (low["mae"] * low["n"] + high["mae"] * high["n"]) / (low["n"] + high["n"])


def cell(values: list[float], sign: str = "") -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):{sign}.3f} ± {statistics.stdev(values):.3f}"


TABLE = """# Training against the long tail, part by part

After ELTA (ICML 2024). Mean ± standard deviation over five seeds, on fold {fold}: {n} held-out photographs, rated from
1 to 7 ({sizes}). On average {labelled:.0f} photographs with ratings, few of them in the tails, and {unlabelled:.0f}
without. Steps: {steps} of {batch} pictures.

{sections}
Each way adds a part to the one above it: tail mixup ({mixup_pairs} pair, tau_1 {mixup_tau_1}, tau_2 {mixup_tau_2}),
the similarity loss (weight {similarity_weight}), and a round of self-training (sharpening {sharpening}, threshold
{threshold}).
In training, pictures are mirrored and cropped at random, which `roc4mllm train` does not do.
The models are small and fresh, so this tells how the parts act together with little data, and not what
they gain on a pretrained model of published size. A run takes {seconds:.0f} s of one core at most.

Measured {date} on {machine}.
Command: `python benchmarks/long_tail.py run --family FAMILY && python benchmarks/long_tail.py table`
"""


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data" / "oasis_beauty")
    parser.add_argument("--family", choices=tuple(FAMILIES), default="elta")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--steps", type=int, nargs=2, default=STEPS, metavar=("BEFORE", "AFTER"))
    parser.add_argument("--fold", type=int, default=0, help="held out; another than 0 only to try things")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # what the times are stated for, and sums in one order
    {"run": run, "table": table}[arguments.action](arguments)


if __name__ == "__main__":
    main()
