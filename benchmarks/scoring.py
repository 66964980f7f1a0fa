"""
What scoring costs beside the backbone alone: time and memory as ratios, on a LLaVA of random weights, on CPU.

    python benchmarks/scoring.py            # prints the table; about three minutes of processor time
    python benchmarks/scoring.py --write    # and saves it with machine and versions to benchmarks/results/scoring.md
    python benchmarks/scoring.py --busy     # where others use the machine too: one thread, its processor time

Each time ratio is the median of 15 interleaved pairs (A, B, A, B, …), so that a machine that slows down slows both.
A batch is one picture, where a fixed cost shows most. Neither forward keeps a cache: scoring needs none, and one in
the bare forward alone would flatter the memory ratio. Names of axes: T tokens, H hidden.
"""

import argparse
import datetime
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from torch.profiler import ProfilerActivity, profile
from transformers import DynamicCache, LlavaConfig, LlavaForConditionalGeneration

from roc4mllm import ROC4MLLMForImageAesthetics as Scorer
from roc4mllm.inference.freed_memory import keep_freed_memory

PAIRS, WARM_UP = 15, 3
PROMPT_TOKENS, NEW_TOKENS = 56, 12
SENTENCE_TOKENS = 12  # of one attribute; its last two are `[SCORE]` and the stop
ATTRIBUTES = ["aesthetics", "composition", "colour", "light", "content"]
VOCABULARY = 32011  # with `[SCORE]`, the last one
IMAGE_TOKEN = 32000
PATCH_SIZES = (28, 14)  # 64 and 256 image tokens
RESULTS = Path(__file__).parent / "results" / "scoring.md"

TEXT = {"model_type": "llama", "vocab_size": VOCABULARY - 1, "hidden_size": 512, "intermediate_size": 1376}
TEXT |= {"num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 8}
VISION = {"model_type": "clip_vision_model", "hidden_size": 256, "intermediate_size": 1024, "image_size": 224}
VISION |= {"num_hidden_layers": 6, "num_attention_heads": 4}

Inputs = dict[str, torch.Tensor]
Call = Callable[[], object]
Clock = Callable[[], float]


class Row(NamedTuple):
    """One line of the table; a limit of `None` is a ratio that is only reported."""

    image_tokens: int
    what: str
    limit: float | None
    ratio: float
    detail: str

    def __str__(self) -> str:
        limit = "reported" if self.limit is None else f"≤ {self.limit:.3f}"
        verdict = "" if self.limit is None else "ok" if self.ratio <= self.limit else "NOT"
        return f"| {self.image_tokens} | {self.what} | {limit} | {self.ratio:.3f} | {self.detail} | {verdict} |"


def scorer(patch_size: int) -> Scorer:
    """Five attributes on a LLaVA of random weights; the score head is drawn wide, so that wrong states would show."""
    torch.manual_seed(0)
    vision, length = VISION | {"patch_size": patch_size}, (VISION["image_size"] // patch_size) ** 2
    parts = {"text_config": TEXT, "vision_config": vision}
    config = LlavaConfig(**parts, image_token_index=IMAGE_TOKEN, image_seq_length=length)
    model = Scorer.from_backbone(LlavaForConditionalGeneration(config), attributes=ATTRIBUTES)
    model.generation_config.pad_token_id = 0
    torch.nn.init.normal_(model.score_head.weight, std=0.5)
    model.config.score_head_trained = True
    return model


def batch(model: Scorer, sentences: int) -> Inputs:
    """One picture, the prompt and that many scoring sentences (0: the prompt alone, as `generate` gets it)."""
    torch.manual_seed(1)
    text = torch.randint(3, IMAGE_TOKEN, (PROMPT_TOKENS,))
    picture = torch.full((model.config.mllm_config.image_seq_length,), IMAGE_TOKEN)
    answer = torch.randint(3, IMAGE_TOKEN, (sentences, SENTENCE_TOKENS))
    answer[:, -2] = model.config.score_token_id
    ids = torch.cat([text[:8], picture, text[8:], answer.flatten()]).unsqueeze(0)  # (1, T)
    side = VISION["image_size"]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(1, 3, side, side)}


def one_pass(model: Scorer, inputs: Inputs) -> torch.Tensor:
    """Scores `(slots,)` from one forward pass."""
    output = model(**inputs)
    return output.scores[output.score_mask]


def bare_forward(model: Scorer, inputs: Inputs) -> torch.Tensor:
    """Last hidden states `(1, T, H)` of the backbone's base model: no head, no score."""
    own = {name: value for name, value in inputs.items() if name != "slot_attributes"}
    return model.backbone.model(**own, use_cache=False).last_hidden_state


def step_by_step(model: Scorer, inputs: Inputs) -> torch.Tensor:
    """
    Scores `(slots,)` as decoding would give them: the prompt once, then the answer token by token on a cache, each
    with the choice of the next token that a decoder makes, up to the state that predicts the last `[SCORE]`.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    cache = DynamicCache(config=model.config.get_text_config())
    start = model.config.mllm_config.image_seq_length + PROMPT_TOKENS
    slots = (ids[0] == model.config.score_token_id).nonzero().flatten().tolist()
    levels, picture, begin = [], {"pixel_values": inputs["pixel_values"]}, 0
    for end in range(start, slots[-1] + 1):
        hidden = model.backbone.model(
            input_ids=ids[:, begin:end], attention_mask=mask[:, :end], past_key_values=cache, use_cache=True, **picture
        ).last_hidden_state[:, -1]  # (1, H)
        if end in slots:
            levels.append(model.score_head(hidden).softmax(-1))
        else:
            model.backbone.lm_head(hidden).argmax(-1)  # the answer is known here; a decoder would have to look
        begin, picture = end, {}
    return (torch.cat(levels) * model.levels(levels[0])[: len(levels)]).sum(-1)


def generate(model: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    """Ids of a greedy answer of always the same length."""
    return model.generate(**inputs, min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS, do_sample=False)


def timed(call: Call, clock: Clock) -> float:
    """Milliseconds of one call."""
    start = clock()
    call()
    return (clock() - start) * 1e3


def time_ratio(first: Call, second: Call, clock: Clock) -> tuple[float, str]:
    """Median over the pairs of first ÷ second; the middle half of the pairs and the median times as text."""
    for _ in range(WARM_UP):
        first(), second()
    pairs = [(timed(first, clock), timed(second, clock)) for _ in range(PAIRS)]
    low, middle, high = statistics.quantiles((one / other for one, other in pairs), n=4, method="inclusive")
    times = " ÷ ".join(f"{statistics.median(column):.1f}" for column in zip(*pairs, strict=True))
    return middle, f"{low:.3f}–{high:.3f}; {times} ms"


def peak_bytes(call: Call) -> int:
    """Most bytes of tensors alive at once during a call, above those alive before it."""
    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        _ = call()  # kept to the end: a result counts
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def check(model: Scorer, inputs: Inputs, prompt: Inputs) -> None:
    """Speed of a wrong result means nothing: refuse to time roads that do not end at the same place."""
    scores = one_pass(model, inputs)
    torch.testing.assert_close(scores, step_by_step(model, inputs), atol=5e-5, rtol=0)
    assert scores.std() > 1e-3, scores
    assert torch.equal(generate(model, prompt), generate(model.backbone, prompt))


def measure(patch_size: int, clock: Clock) -> Iterator[Row]:
    """All rows of one number of image tokens."""
    model = scorer(patch_size)
    prompt, one, five = batch(model, 0), batch(model, 1), batch(model, len(ATTRIBUTES))
    one["slot_attributes"] = torch.tensor([[0]])
    check(model, five, prompt)
    image_tokens = model.config.mllm_config.image_seq_length
    for what, limit, first, second in comparisons(model, prompt, one, five):
        yield Row(image_tokens, what, limit, *time_ratio(first, second, clock))
    peaks = [peak_bytes(partial(call, model, one)) for call in (one_pass, bare_forward)]
    detail = " ÷ ".join(f"{peak / 2**20:.2f}" for peak in peaks) + " MiB"
    yield Row(image_tokens, "peak of live tensors, one-pass ÷ base model's forward", 1.02, peaks[0] / peaks[1], detail)


def comparisons(model: Scorer, prompt: Inputs, one: Inputs, five: Inputs) -> list[tuple]:
    """What is timed, its limit and its two sides, on inputs with no, one and five scoring sentences."""
    score_one, score_five = partial(one_pass, model, one), partial(one_pass, model, five)
    bare_one, bare_five = partial(bare_forward, model, one), partial(bare_forward, model, five)
    tokens, more = (inputs["input_ids"].shape[1] for inputs in (one, five))
    ours, theirs = partial(generate, model, prompt), partial(generate, model.backbone, prompt)
    steps = "step-by-step ÷ one-pass, {} answer tokens"
    return [
        ("one-pass score ÷ base model's forward", 1.05, score_one, bare_one),
        (f"five attributes ÷ one ({more} ÷ {tokens} tokens)", 1 + 1.1 * (more / tokens - 1), score_five, score_one),
        ("the same two inputs, base model's forward", None, bare_five, bare_one),
        (f"`generate` ÷ the backbone's own, {NEW_TOKENS} tokens", 1.03, ours, theirs),
        (steps.format(SENTENCE_TOKENS), None, partial(step_by_step, model, one), score_one),
        (steps.format(len(ATTRIBUTES) * SENTENCE_TOKENS), None, partial(step_by_step, model, five), score_five),
    ]


def cpu_name() -> str:
    """The processor, as the system names it."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    return next((line.split(":")[1].strip() for line in cpuinfo if "model name" in line), platform.processor())


def head(clock: str) -> str:
    """What stands above the rows: the set-up, the machine and the versions."""
    text, vision = (f"{part['hidden_size']} × {part['num_hidden_layers']}" for part in (TEXT, VISION))
    return f"""# Scoring beside the backbone alone

`python benchmarks/scoring.py --write`

LLaVA of random weights: Llama {text}, vocabulary {VOCABULARY}, CLIP {vision} at {VISION["image_size"]} px, float32.
One picture, {PROMPT_TOKENS} prompt tokens, {SENTENCE_TOKENS} answer tokens per attribute.
Times: median ratio of {PAIRS} interleaved pairs; in detail the middle half of the pairs and the median of each side.
glibc keeps freed memory (`keep_freed_memory` says why).
{datetime.date.today()}; {cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; \
{torch.get_num_threads()} thread(s) by {clock}; torch {torch.__version__}, transformers {transformers.__version__}.

| image tokens | what | limit | measured | detail | |
|---:|---|---:|---:|---|---|
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
    with torch.no_grad():
        for patch_size in PATCH_SIZES:
            for row in measure(patch_size, clock):
                print(row, flush=True)
                table += f"{row}\n"
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
