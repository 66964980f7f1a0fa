"""
Each family that scores a picture alone, small, trained from scratch for a few minutes on rated photographs.

    python benchmarks/family_training.py run       # 3 families x 3 seeds; resumes where it stopped
    python benchmarks/family_training.py table     # results/family_training.jsonl -> results/family_training.md

It shows that training works: that each learns to rank photographs which it has not seen. It does not tell which family
is better; all are far below their published size, and none has seen another picture than the 333 of its training.

Folds: photographs sorted by name, `KFold(5, shuffle=True, random_state=0)`. Settings were tried on fold 1 (`--fold 1`,
with `--results` elsewhere); the table is of fold 0. An interval is the middle 95 % of 1000 bootstrap resamples of the
held-out photographs. `--data` is the folder with `ratings.csv` and `images/`.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from ablation import read_lines
from family_models import BATCH, FAMILIES, SIDE, append, learn, predict, read_rated
from scipy.stats import pearsonr, rankdata, spearmanr
from tiny_checkpoint import folds
from transformers import set_seed

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "family_training.jsonl"
SEEDS, STEPS, RESAMPLES = (0, 1, 2), 500, 1000
GOAL = 0.2


def run(arguments) -> None:
    """Every run that the results do not hold yet."""
    done = {(line["family"], line["seed"]) for line in read_lines(arguments.results)}
    photographs = read_rated(arguments.data)
    train, test = (photographs.take(rows) for rows in folds(len(photographs.mean))[arguments.fold])
    for seed in arguments.seeds:
        for family in arguments.families:
            if (family, seed) in done:
                continue
            print(f"{family}, seed {seed}", flush=True)
            set_seed(seed)
            model = FAMILIES[family]()
            start = time.process_time()
            history = learn(model, family, train.rows(), arguments.steps, seed)
            seconds = time.process_time() - start
            line = {"family": family, "seed": seed, "fold": arguments.fold, "steps": arguments.steps}
            line |= {"millions": model.num_parameters() / 1e6, "train_seconds": seconds}
            line |= measure(predict(model, test)[0].numpy(), test.mean)
            line["losses"] = [entry["loss"] for entry in history if "loss" in entry]
            append(arguments.results, line)


def measure(predicted: np.ndarray, rated: np.ndarray) -> dict[str, float]:
    """Agreement with the ratings, and the interval of SRCC."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(rated), size=(RESAMPLES, len(rated)))
    resampled = [np.corrcoef(rankdata(predicted[rows]), rankdata(rated[rows]))[0, 1] for rows in drawn]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {
        "n": len(rated),
        "srcc": float(spearmanr(predicted, rated)[0]),
        "low": float(low),
        "high": float(high),
        "plcc": float(pearsonr(predicted, rated)[0]),
        "mae": float(np.abs(predicted - rated).mean()),
    }


# ---- the table ------------------------------------------------------------------------------------------------------


def table(arguments) -> None:
    """Write the table beside the results."""
    lines = read_lines(arguments.results)
    rows = []
    for family in FAMILIES:
        own = sorted((line for line in lines if line["family"] == family), key=lambda line: line["seed"])
        if [line["seed"] for line in own] != list(SEEDS):
            raise SystemExit(f"{arguments.results.name} holds {len(own)} runs of {family}, not {len(SEEDS)}: run.")
        rows.append(row(family, own))
    first = lines[0]
    text = TABLE.format(
        rows="\n".join(rows), photographs=first["n"], fold=first["fold"], steps=first["steps"], batch=BATCH, side=SIDE,
        goal=GOAL, date=max(line["date"] for line in lines), machine=lines[-1]["machine"],
    )  # fmt: skip
    arguments.results.with_suffix(".md").write_text(text)
    print(text)


def row(family: str, runs: list[dict]) -> str:
    """A family: SRCC and interval of each seed, means of the others."""
    srcc = " · ".join(f"{line['srcc']:.3f} [{line['low']:.3f}, {line['high']:.3f}]" for line in runs)
    reached = sum(line["srcc"] > GOAL and line["low"] > 0 for line in runs)
    plcc, mae, seconds = (statistics.mean(line[name] for line in runs) for name in ("plcc", "mae", "train_seconds"))
    cells = [family, f"{runs[0]['millions']:.2f}", srcc, f"{reached} of {len(runs)}", f"{plcc:.3f}", f"{mae:.3f}"]
    return "| " + " | ".join([*cells, f"{seconds / 60:.1f}"]) + " |"


TABLE = """# Each family trained from scratch

{photographs} held-out photographs of fold {fold}; {steps} steps of {batch} pictures of {side} × {side} pixels, earth
mover's distance to the votes. SRCC of each seed with its 95 % bootstrap interval.

| family | million parameters | SRCC of three seeds | above {goal}, interval above 0 | PLCC | MAE | minutes |
|---|---|---|---|---|---|---|
{rows}

It shows that training works, and not which family is better: all are far below their published size and have seen no
other picture. MAE is in points from 1 to 7. Minutes are of one core.

Measured {date} on {machine}.
Command: `python benchmarks/family_training.py run && python benchmarks/family_training.py table`
"""


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data" / "oasis_beauty")
    parser.add_argument("--families", nargs="+", choices=tuple(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--fold", type=int, default=0, help="held out; another than 0 only to try things")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # what the times are stated for, and sums in one order
    {"run": run, "table": table}[arguments.action](arguments)


if __name__ == "__main__":
    main()
