"""
What a training step costs beside the backbone's own, and what `evaluate` costs beside scoring, as ratios on CPU.

    python benchmarks/training.py            # prints the table; about ten minutes
    python benchmarks/training.py --write    # and saves it with machine and versions to benchmarks/results/training.md
    python benchmarks/training.py --busy     # where others use the machine too: one thread, its processor time

Both steps see the same batch of 4 rows of 512 positions, 16 of each supervised, and take the same step of AdamW on the
same weights. The backbone's own computes logits of all positions, as `labels=` makes it; ours those of the supervised
positions, and a score loss besides. Ratios and clocks are those of `scoring.py`.
"""

import argparse
import copy
import datetime
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import scoring
import torch
import transformers
from scoring import Clock, Inputs, Scorer, cpu_name, peak_bytes, time_ratio

import roc4mllm
from roc4mllm.inference.freed_memory import keep_freed_memory
from roc4mllm.trainer.evaluation import evaluate_scorer
from roc4mllm.trainer.rating_data import read_ratings

ROWS, POSITIONS, SUPERVISED = 4, 512, 16
IMAGE_TOKENS = 256
PICTURES = 256  # of one round of `evaluate`; a held-out part has hundreds, AVA's test set 20 000
PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
RESULTS = Path(__file__).parent / "results" / "training.md"


def batch(model: Scorer) -> Inputs:
    """Random text round a random picture; the answer stands at the end, its last but one token is `[SCORE]`."""
    torch.manual_seed(1)
    ids = torch.randint(3, scoring.IMAGE_TOKEN, (ROWS, POSITIONS))
    ids[:, 8 : 8 + IMAGE_TOKENS] = scoring.IMAGE_TOKEN
    ids[:, -2] = model.config.score_token_id
    labels = torch.full_like(ids, -100)
    labels[:, -SUPERVISED:] = ids[:, -SUPERVISED:]
    side = scoring.VISION["image_size"]
    pictures = torch.randn(ROWS, 3, side, side)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pictures, "labels": labels}


def our_loss(model: Scorer, inputs: Inputs) -> torch.Tensor:
    """Text and smooth-L1."""
    scores = torch.full((ROWS, len(model.config.attributes)), float("nan"))
    scores[:, 0] = torch.tensor([3.0, 5.0, 6.0, 8.0])
    slots = torch.zeros(ROWS, 1, dtype=torch.long)
    return model(**inputs, scores=scores, slot_attributes=slots).loss


def native_loss(model: Scorer, inputs: Inputs) -> torch.Tensor:
    """The backbone's own."""
    return model.backbone(**inputs, use_cache=False).loss


def step(loss: Callable, model: Scorer, optimizer: torch.optim.Optimizer, inputs: Inputs) -> torch.Tensor:
    """One step of training."""
    optimizer.zero_grad()
    value = loss(model, inputs)
    value.backward()
    optimizer.step()
    return value.detach()


def measure_step(clock: Clock) -> Iterator[str]:
    """Time, memory and text loss of a step."""
    model = scoring.scorer(patch_size=scoring.VISION["image_size"] // 16).train()
    inputs = batch(model)
    with torch.no_grad():
        text = model(**inputs, slot_attributes=torch.zeros(ROWS, 1, dtype=torch.long)).text_loss
        difference = abs(text - native_loss(model, inputs)).item()
    # Each side trains weights of its own, so that neither sees what the other has done to them.
    sides = []
    for loss, own in ((our_loss, model), (native_loss, copy.deepcopy(model))):
        optimizer = torch.optim.AdamW(own.parameters(), lr=1e-5, fused=True)
        sides.append(partial(step, loss, own, optimizer, inputs))
    ratio, detail = time_ratio(*sides, clock)
    yield row("training step ÷ the backbone's own with `labels=`, time", "≤ 0.900", ratio, detail, ratio <= 0.9)
    peaks = [peak_bytes(side) for side in sides]
    ratio, detail = peaks[0] / peaks[1], " ÷ ".join(f"{peak / 2**20:.1f}" for peak in peaks) + " MiB"
    yield row("peak of live tensors above the weights", "≤ 0.700", ratio, detail, ratio <= 0.7)
    yield row("difference of the two text losses", "≤ 1e-5", difference, f"of {text.item():.4f}", difference <= 1e-5)


def measure_evaluate(clock: Clock) -> Iterator[str]:
    """Throughput of `evaluate` on the bundled checkpoint, metrics and intervals included."""
    scorer = roc4mllm.load_scorer()
    photos = sorted(path for path in PHOTOS.iterdir() if path.suffix in (".jpg", ".png"))
    paths = [str(photos[index % len(photos)]) for index in range(PICTURES)]
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "ratings.csv"
        lines = [f"{path},{1 + index % 60 / 10}" for index, path in enumerate(paths)]
        table.write_text("\n".join(["path,score", *lines]) + "\n")
        rated = read_ratings(str(table), score_range=(1, 7))
        bare = partial(lambda: list(scorer(paths, batch_size=8)))
        ours = partial(evaluate_scorer, scorer, rated, batch_size=8)
        ratio, detail = time_ratio(bare, ours, clock)
    what = f"`evaluate` ÷ bare scoring loop, pictures per second ({PICTURES} pictures)"
    yield row(what, "≥ 0.950", ratio, detail, ratio >= 0.95)


def row(what: str, limit: str, value: float, detail: str, is_met: bool) -> str:
    """One line of the table."""
    shown = f"{value:.3f}" if value > 1e-3 else f"{value:.1e}"
    return f"| {what} | {limit} | {shown} | {detail} | {'ok' if is_met else 'NOT'} |"


def head(clock: str) -> str:
    """What stands above the rows: the set-up, the machine and the versions."""
    text, vision = (f"{part['hidden_size']} × {part['num_hidden_layers']}" for part in (scoring.TEXT, scoring.VISION))
    return f"""# Training beside the backbone alone

`python benchmarks/training.py --write`

LLaVA of random weights: Llama {text}, vocabulary {scoring.VOCABULARY}, CLIP {vision}, float32; {ROWS} rows of
{POSITIONS} positions, {IMAGE_TOKENS} of them image tokens and {SUPERVISED} supervised; AdamW. `evaluate` is that of \
the bundled checkpoint
with metrics and their intervals of 1000 resamples; reading the ratings comes before it and is not timed.
Times: median ratio of {scoring.PAIRS} interleaved pairs; in detail their middle half and the median of each side.
glibc keeps freed memory (`keep_freed_memory` says why).
{datetime.date.today()}; {cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; \
{torch.get_num_threads()} thread(s) by {clock}; torch {torch.__version__}, transformers {transformers.__version__}.

| what | limit | measured | detail | |
|---|---|---:|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"save the table to results/{RESULTS.name}")
    parser.add_argument("--busy", action="store_true", help="one thread, timed by its processor time")
    options = parser.parse_args()
    torch.set_num_threads(1 if options.busy else torch.get_num_threads())
    keep_freed_memory()
    clock = time.thread_time if options.busy else time.perf_counter
    table = head("processor time (`--busy`)" if options.busy else "wall time")
    print(table, end="", flush=True)
    for measure in (measure_step, measure_evaluate):
        for line in measure(clock):
            print(line, flush=True)
            table += f"{line}\n"
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
