"""Table and card of `roc4mllm-tiny` from the lines of its cross-validation."""

import numpy as np
from tiny_damage import DAMAGES
from tiny_judging import FOLDS, GOALS, SEEDS, labels_only, measure

Found = dict[str, tuple[float, float, float]]


def interval(found: tuple[float, float, float], sign: str = "") -> str:
    """The value with its interval in brackets."""
    return f"{found[0]:{sign}.3f} [{found[1]:{sign}.3f}, {found[2]:{sign}.3f}]"


def beauty_rows(found: Found) -> str:
    """Ridge, each seed, all seeds."""
    names = {"ridge": "ridge", "tiny": "roc4mllm-tiny, mean of seeds"}
    names |= {f"seed {seed}": f"roc4mllm-tiny, seed {seed}" for seed in SEEDS}
    return "\n".join(
        f"| {text} | {interval(found[f'{name} srcc'])} | {found[f'{name} plcc'][0]:.3f} | "
        f"{found[f'{name} mae'][0]:.3f} |"
        for name, text in names.items()
    )


def technical_rows(found: Found) -> str:
    """One row per kind of damage."""
    return "\n".join(
        f"| {kind} | {interval(found[f'tiny {kind}'])} | {goal} | {interval(found[f'tiny {kind} order'])} | 0.95 |"
        for kind, goal in GOALS.items()
    )


def fold_rows(lines: list[dict]) -> str:
    """SRCC of beauty in each fold, and of the technical attributes."""
    sizes = {line["fold"]: np.arange(len(line["rated"])) for line in labels_only(lines)}
    rows = []
    for method, name in [("ridge", "srcc"), ("tiny", "srcc"), *(("tiny", kind) for kind in DAMAGES)]:
        cells = []
        for fold in range(FOLDS):
            own = [line for line in lines if line["fold"] == fold]
            picks = [sizes[fold]] * FOLDS
            cells.append(f"{measure(own, picks)[f'{method} {name}']:.3f}")
        rows.append(f"| {method}, {'beauty' if name == 'srcc' else name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def table_text(lines: list[dict], found: Found) -> str:
    """The whole file of results."""
    runs = [line for line in lines if line["method"] == "tiny"]
    others = [line for line in lines if line["fold"] != DEVELOPED_ON]
    sizes = {line["fold"]: np.arange(len(line["rated"])) for line in labels_only(lines)}
    clean = measure(others, [sizes[fold] for fold in range(FOLDS)])
    return TABLE.format(
        beauty=beauty_rows(found),
        gain=interval(found["gain"], "+"),
        share=found["gain share"][0],
        technical=technical_rows(found),
        ties=sum(line["ties"] for line in runs),
        folds=" | ".join(str(fold) for fold in range(FOLDS)),
        rule="---|" * (FOLDS + 1),
        by_fold=fold_rows(lines),
        clean=", ".join(f"{name} {clean[f'tiny {name}']:.3f}" for name in ("srcc", *DAMAGES)),
        clean_gain=clean["gain"],
        minutes=np.median([line["processor_seconds"] for line in runs]) / 60,
        date=max(line["date"] for line in runs),
        machine=runs[-1]["machine"],
    )


def card_text(template: str, found: Found, **values) -> str:
    """The model card."""
    return template.format(
        ours={name: found[f"tiny {name}"][0] for name in ("srcc", "plcc", "mae")},
        ridge={name: found[f"ridge {name}"][0] for name in ("srcc", "plcc", "mae")},
        ours_srcc=interval(found["tiny srcc"]),
        ridge_srcc=interval(found["ridge srcc"]),
        gain=interval(found["gain"], "+"),
        technical="\n".join(
            f"| {kind} | {interval(found[f'tiny {kind}'])} | {interval(found[f'tiny {kind} order'])} |"
            for kind in DAMAGES
        ),
        **values,
    )


DEVELOPED_ON = 1  # the fold on which the recipe was worked out
TABLE = """# `roc4mllm-tiny` by cross-validation

## Beauty

| method | SRCC [95 % interval] | PLCC | MAE (range 1–7) |
|---|---|---|---|
{beauty}

SRCC against ridge: {gain} (required: ≥ +0.030); above ridge in {share:.1%} of the paired resamples.

## Technical attributes, learned from known damage

| attribute | SRCC across photographs | required | pairs of strengths in the right order | required |
|---|---|---|---|---|
{technical}

Across photographs: each held-out photograph with one kind of damage of random strength, two draws. Pairs: six
strengths (0, 0.2 … 1) of one kind of damage to the same photograph, 15 pairs; for exposure up and down apart. Ties:
{ties}. Photographs without colour are left out of colourfulness. What a strength is: `benchmarks/tiny_damage.py`.

## By fold

| SRCC in fold | {folds} |
|{rule}
{by_fold}

The recipe was developed on fold 1. Without it: {clean}; against ridge {clean_gain:+.3f}.

416 photographs, 5 fixed folds, 3 seeds; each figure is the mean of the folds' own figures. Intervals: bootstrap over
the photographs of each fold, 1000 resamples. Ridge: colour histograms, 6×6 thumbnail, HOG. A run of ours is a training
on the other four folds, {minutes:.1f} minutes of processor time (median). Views and descriptors of all photographs,
which hold nothing of their ratings, are made once before.

Measured {date} on {machine}.
Command: `python benchmarks/tiny_checkpoint.py crossvalidate && python benchmarks/tiny_checkpoint.py table`
"""
