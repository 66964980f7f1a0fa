"""
Ablation after Table 6 of the paper: four ways to a score, on the same tiny backbone, data and steps, five seeds each.

    python benchmarks/ablation.py run --cache FILE    # 20 runs; resumes where it stopped; about an hour on one core
    python benchmarks/ablation.py table               # results/ablation.jsonl -> results/ablation.md

The methods, `digits`, `words` (Q-Align), `coupled` (regression without loss decoupling) and `roc4mllm`, are described
in `ablation_methods.py`; the warm start that all share, once for all seeds, in `ablation_warm_start.py`. `--cache` is
that of `tiny_checkpoint.py`, made if it is missing; the warm start is kept beside it. Both must stay outside the
repository: they hold crops of photographs and what can be seen on them.

Fold 0 of the fixed folds: photographs sorted by name, `KFold(5, shuffle=True, random_state=0)`. Nothing was chosen on
it: steps, equal for all methods, were taken on fold 1 (`--fold 1`, with `--results` elsewhere), and the learning rates
are those of `roc4mllm-tiny`, developed there.
A seed decides the rows and their order, which all methods share, and the start of the score head.

Names of axes: P photographs, S steps of a ladder, H hidden.
"""

import argparse
import datetime
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ablation_methods import HIGH, LOW, METHODS, Row, Sentences, draw_rows, learn, score
from ablation_warm_start import make_warm_start, warm_scorer
from scipy.stats import pearsonr, spearmanr
from tiny_checkpoint import folds, machine
from tiny_damage import DAMAGES
from tiny_model import ATTRIBUTES
from tiny_photographs import LADDERS, SIZE, Photographs, read_photographs
from tiny_photographs import STEPS as STRENGTHS

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "ablation.jsonl"
SEEDS = (0, 1, 2, 3, 4)
PAIRS = 15  # of timed calls
CHUNK = 64  # pictures scored at a time
NAMES = {
    "digits": "(a) score as digits",
    "words": "(b) five level words",
    "coupled": "(c) regression on level words",
    "roc4mllm": "(d) ROC4MLLM",
}


# ---- the runs -------------------------------------------------------------------------------------------------------


def run(arguments) -> None:
    """Every run that the results do not hold yet."""
    missing = [
        (method, seed)
        for seed in arguments.seeds
        for method in arguments.methods
        if not any((line["method"], line["seed"]) == (method, seed) for line in read_lines(arguments.results))
    ]
    if not missing:
        return
    photos = read_photographs(arguments.data, arguments.cache)
    train, test = (photos.take(rows) for rows in folds(len(photos.mean))[arguments.fold])
    warm = arguments.cache.with_name(f"{arguments.cache.name}.ablation{arguments.fold}")
    if not warm.exists():
        make_warm_start(train, {"views": train.views, "plain": test.views[:, 0], "tests": test.tests}, warm)
    for method, seed in missing:
        append(arguments.results, run_one(method, seed, train, test, warm))


def run_one(method: str, seed: int, train: Photographs, test: Photographs, warm: Path) -> dict:
    """Train and examine one method; a line of the results."""
    print(f"{method}, seed {seed}", flush=True)
    start, work = time.time(), time.process_time()
    model, processor, tower = warm_scorer(warm, seed)
    seen = torch.load(warm, weights_only=True, mmap=True)
    sentences = Sentences(method, processor, seen["views"])
    history = learn(model, sentences, draw_rows(train.mean, train.scores, seed), seed)
    seconds = {"train_seconds": time.process_time() - work}

    def told(pictures: torch.Tensor, attribute: str) -> np.ndarray:
        parts = [score(model, sentences, part, attribute) for part in pictures.split(CHUNK)]
        return torch.cat(parts).numpy()

    line = {"method": method, "seed": seed, **examine(told, seen["plain"], seen["tests"], test)}
    losses = [entry for entry in history if "loss" in entry]
    line["losses"] = {name: [entry.get(name) for entry in losses] for name in ("loss", "text_loss", "smooth_l1_loss")}
    line["passes"] = scoring_time(model, sentences, tower)
    return line | seconds | {"processor_seconds": time.process_time() - work, "seconds": time.time() - start}


def examine(told: Callable, plain: torch.Tensor, tests: torch.Tensor, test: Photographs) -> dict[str, dict]:
    """Figures by attribute: of plain photographs for beauty, else of random strengths and of ladders of strengths."""
    figures = {"aesthetics": measure(told(plain, "aesthetics"), test.mean.numpy())}
    ladders = tests[:, : len(LADDERS) * len(STRENGTHS)].unflatten(1, (len(LADDERS), len(STRENGTHS)))
    draws = tests[:, len(LADDERS) * len(STRENGTHS) :].unflatten(1, (-1, len(DAMAGES)))
    for index, kind in enumerate(DAMAGES):
        keep = test.coloured if kind == "colourfulness" else torch.ones_like(test.coloured)
        rated = LOW + (HIGH - LOW) * test.drawn[keep][:, :, index].flatten().numpy() / 100
        figures[kind] = measure(told(draws[keep][:, :, index].flatten(0, 1), kind), rated)
        own = [place for place, (name, _) in enumerate(LADDERS) if name == kind]
        best = told(plain[keep], kind)  # (P,)
        steps = [told(ladders[keep][:, place].flatten(0, 1), kind).reshape(len(best), -1) for place in own]
        figures[kind] |= order(np.concatenate([np.column_stack([best, fall]) for fall in steps]))
    return figures


def measure(predicted: np.ndarray, rated: np.ndarray) -> dict[str, float]:
    """Correlations and error (share of the range) of what could be read; answers that are all equal rank nothing."""
    known = ~np.isnan(predicted)
    predicted, rated = predicted[known], rated[known]
    ranks = len(predicted) > 1 and np.ptp(predicted) > 0
    return {
        "n": int(known.sum()),
        "failures": int((~known).sum()),
        "srcc": float(spearmanr(predicted, rated)[0]) if ranks else 0.0,
        "plcc": float(pearsonr(predicted, rated)[0]) if ranks else 0.0,
        "mae": float(np.abs(predicted - rated).mean() / (HIGH - LOW)) if known.any() else math.nan,
    }


def order(falling: np.ndarray) -> dict[str, float]:
    """Shares of pairs of strengths of one photograph, of (P, S) scores, that are in the right order, and of ties."""
    pairs = [(falling[:, i], falling[:, j]) for i in range(falling.shape[1]) for j in range(i + 1, falling.shape[1])]
    return {
        "order": float(np.mean([weak > strong for weak, strong in pairs])),
        "ties": float(np.mean([weak == strong for weak, strong in pairs])),
    }


@torch.no_grad()
def scoring_time(model, sentences: Sentences, tower: torch.nn.Module) -> float:
    """Time to score one picture, as a multiple of one pass of the backbone over it: median of interleaved pairs."""
    model.backbone.model.vision_tower = tower
    picture = torch.randn(1, 2, 3, SIZE, SIZE)
    answer = sentences.answer(Row(0, 0, "aesthetics", LOW))
    ids = torch.cat([sentences.prompts["aesthetics"], answer])[None]
    ratios = []
    for _ in range(PAIRS):
        times = [time.perf_counter()]
        score(model, sentences, picture, "aesthetics")
        times.append(time.perf_counter())
        model.backbone.model(input_ids=ids, pixel_values=picture[0], use_cache=False)
        times.append(time.perf_counter())
        ratios.append((times[1] - times[0]) / (times[2] - times[1]))
    return statistics.median(ratios)


# ---- the lines ------------------------------------------------------------------------------------------------------


def append(results: Path, line: dict) -> None:
    """Add a line, with machine and versions."""
    results.parent.mkdir(exist_ok=True)
    line = rounded(line) | {"date": datetime.date.today().isoformat(), "machine": machine()}
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
    print({name: line[name] for name in ATTRIBUTES}, flush=True)


def rounded(value):
    """Four digits behind the point, in dicts and lists too; null for NaN, which is no JSON."""
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [rounded(entry) for entry in value]
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else round(value, 4)


def read_lines(results: Path) -> list[dict]:
    """What the file holds."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


# ---- the table ------------------------------------------------------------------------------------------------------


def table(arguments) -> None:
    """Write the table beside the results."""
    lines = read_lines(arguments.results)
    runs = {method: [line for line in lines if line["method"] == method] for method in METHODS}
    for method, own in runs.items():
        if sorted(line["seed"] for line in own) != list(SEEDS):
            raise SystemExit(
                f"{arguments.results.name} holds {len(own)} runs of {method}, not {len(SEEDS)}: run first."
            )
    text = TABLE.format(
        photographs=lines[-1]["aesthetics"]["n"] + lines[-1]["aesthetics"]["failures"],
        main="\n".join(main_row(method, own) for method, own in runs.items()),
        kinds=" | ".join(f"{kind} | order" for kind in DAMAGES),
        by_kind="\n".join(kind_row(method, own) for method, own in runs.items()),
        gains="\n".join(gain_row(method, runs) for method in METHODS[:-1]),
        seconds=statistics.median(line["train_seconds"] for line in lines),
        date=max(line["date"] for line in lines),
        machine=lines[-1]["machine"],
    )
    arguments.results.with_suffix(".md").write_text(text)
    print(text)


def figure(line: dict, group: str, name: str) -> float:
    """A figure of beauty, of one kind of damage, or the mean over all (`technical`)."""
    members = DAMAGES if group == "technical" else [group]
    return statistics.mean(line[member][name] for member in members)


def cell(values: list[float], sign: str = "") -> str:
    """Mean and standard deviation over the seeds."""
    return f"{statistics.mean(values):{sign}.3f} ± {statistics.stdev(values):.3f}"


def main_row(method: str, runs: list[dict]) -> str:
    """Beauty, technical attributes, failures and time."""
    names = [("aesthetics", "srcc"), ("aesthetics", "plcc"), ("aesthetics", "mae")]
    names += [("technical", name) for name in ("srcc", "plcc", "mae", "order")]
    cells = [cell([figure(line, group, name) for line in runs]) for group, name in names]
    failures = sum(line[name]["failures"] for line in runs for name in ATTRIBUTES)
    asked = failures + sum(line[name]["n"] for line in runs for name in ATTRIBUTES)
    cells += [f"{failures} of {asked}", f"{statistics.median(line['passes'] for line in runs):.2f}"]
    return f"| {NAMES[method]} | " + " | ".join(cells) + " |"


def kind_row(method: str, runs: list[dict]) -> str:
    """SRCC and share of pairs in the right order of each kind of damage."""
    cells = [cell([line[kind][name] for line in runs]) for kind in DAMAGES for name in ("srcc", "order")]
    return f"| {NAMES[method]} | " + " | ".join(cells) + " |"


def gain_row(method: str, runs: dict[str, list[dict]]) -> str:
    """SRCC of (d) minus that of a method with the same seed, and how often it is above 0."""
    cells = []
    for group in ("aesthetics", "technical"):
        ours, theirs = ({line["seed"]: figure(line, group, "srcc") for line in runs[m]} for m in ("roc4mllm", method))
        gains = [ours[seed] - theirs[seed] for seed in SEEDS]
        cells += [cell(gains, "+"), f"{sum(gain > 0 for gain in gains)} of {len(gains)}"]
    return f"| {NAMES[method]} | " + " | ".join(cells) + " |"


TABLE = """# Four ways to a score, on one tiny backbone

After Table 6 of the paper. Mean ± standard deviation over five seeds, on fold 0: {photographs} held-out photographs.

| method | beauty: SRCC | PLCC | MAE | technical: SRCC | PLCC | MAE | pairs in order | unreadable | passes |
|---|---|---|---|---|---|---|---|---|---|
{main}

Technical: mean of five attributes, each on photographs with its kind of damage, two random strengths each. MAE: share
of the score range. Pairs in order: of six strengths of one kind of damage to one photograph; a tie is wrong.
Unreadable: answers that are no number in the range; they have no score, and correlations leave them out. Passes: time
to score one picture, as a multiple of one pass of the backbone over picture, prompt and answer.

| method | {kinds} |
|---|---|---|---|---|---|---|---|---|---|---|
{by_kind}

| SRCC of (d) above | beauty | seeds | technical | seeds |
|---|---|---|---|---|
{gains}

All four start from the same backbone, which has seen the training photographs without labels, learn the same rows in
the same order, and take {seconds:.0f} seconds of one core (median). The backbone was never trained on text but a few
sentences about pictures: unlike a large one it does not know beforehand what a digit or "good" means.

Measured {date} on {machine}.
Command: `python benchmarks/ablation.py run --cache FILE && python benchmarks/ablation.py table`
"""


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data" / "oasis_beauty")
    parser.add_argument("--cache", type=Path, help="keeps views and warm start; outside the repository")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--fold", type=int, default=0, help="held out; another than 0 only to try things")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.action == "run" and arguments.cache is None:
        parser.error("run needs --cache FILE")
    torch.set_num_threads(1)  # what the times are stated for, and sums in one order
    {"run": run, "table": table}[arguments.action](arguments)


if __name__ == "__main__":
    main()
