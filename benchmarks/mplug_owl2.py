"""
What scoring with mPLUG-Owl2 costs beside its parts, decoding beside one pass, and memory of converting a checkpoint.

    python benchmarks/mplug_owl2.py            # prints the table; about four minutes, and 4 GB of temporary files
    python benchmarks/mplug_owl2.py --write    # and saves it with machine and versions to results/mplug_owl2.md
    python benchmarks/mplug_owl2.py --busy     # where others use the machine too: one thread, its processor time

Time ratios and clocks are those of `scoring.py`. The parts are a plain `LlamaModel` on as many positions, the vision
tower and the abstractor, each called alone; they share their weights with the scorer, so that both sides read the same
memory.

A conversion runs in a process of its own, whose memory is looked at every millisecond from outside (Linux only): a
thread inside would have to wait wherever Python's lock is held. Limited is the whole resident memory (`VmRSS`), which
counts mapped pages of files although the system may take them back; the detail also tells the most that was the
process's own (`RssAnon`). Names of axes: T tokens, H hidden, N levels.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, islice, product
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
import transformers
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import safe_open
from safetensors.torch import save_file
from scoring import PAIRS, Call, Clock, Inputs, Scorer, cpu_name, generate, one_pass, time_ratio
from transformers import DynamicCache, LlamaConfig, LlamaModel

from roc4mllm import MPLUGOwl2Config, MPLUGOwl2ForConditionalGeneration
from roc4mllm.hub.convert_original import ROC4MLLMConversion
from roc4mllm.hub.mplug_owl2_keys import TABLES, computed_tables, original_name
from roc4mllm.inference.freed_memory import keep_freed_memory
from roc4mllm.modeling_roc4mllm import language_mplug_owl2

PROMPT_TEXT, ANSWERS = 55, (12, 60)  # tokens; of an answer the last two are `[SCORE]` and the stop
VOCABULARY = 32011  # with `[SCORE]`, the last one
IMAGE_TOKEN = VOCABULARY  # the first id that has no embedding
RESULTS = Path(__file__).parent / "results" / "mplug_owl2.md"

PART = {"initializer_range": 0.05}  # drawn wide, so that another picture would show in the score
TEXT = PART | {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8}
VISION = PART | {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4}
VISION |= {"image_size": 224, "patch_size": 14}
ABSTRACTOR = PART | {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 4}
ABSTRACTOR |= {"num_queries": 64}

# The published layout with a smaller language model; vision encoder and abstractor have their published sizes.
LEVELS, SHARDS, SHARD_SIZE = 10, 8, "260MB"
CHECKPOINT = {"model_type": "mplug_owl2", "vocab_size": VOCABULARY, "hidden_size": 2048, "intermediate_size": 5504}
CHECKPOINT |= {"num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 16, "pad_token_id": 0}
CHECKPOINT |= {"score_id": VOCABULARY - LEVELS - 1, "num_tokens": LEVELS, "img_token_num": LEVELS}
CHECKPOINT |= {"min_score": 1, "max_score": 10, "torch_dtype": "float16"}
CHECKPOINT["visual_config"] = {
    "visual_model": {"hidden_size": 1024, "image_size": 448, "patch_size": 14},
    "visual_abstractor": {"hidden_size": 1024, "num_learnable_queries": 64, "grid_size": 32},
}
CHILD = """\
import sys, transformers
from roc4mllm.hub.convert_folder import convert_folder
transformers.logging.disable_progress_bar()
print("imported", flush=True)
input()
convert_folder("roc4mllm", *sys.argv[1:])
"""


class Row(NamedTuple):
    """One line of the table; a limit of `None` is a ratio that is only reported."""

    what: str
    limit: float | None
    ratio: float
    detail: str

    def __str__(self) -> str:
        limit = "reported" if self.limit is None else f"≤ {self.limit:.3f}"
        verdict = "" if self.limit is None else "ok" if self.ratio <= self.limit else "NOT"
        return f"| {self.what} | {limit} | {self.ratio:.3f} | {self.detail} | {verdict} |"


# ---- time -----------------------------------------------------------------------------------------------------------


def scorer() -> Scorer:
    """One attribute on an mPLUG-Owl2 of random weights."""
    torch.manual_seed(0)
    parts = {"vision_config": VISION, "abstractor_config": ABSTRACTOR}
    config = MPLUGOwl2Config(**parts, text_config=TEXT | {"vocab_size": VOCABULARY - 1}, image_token_id=IMAGE_TOKEN)
    model = Scorer.from_backbone(MPLUGOwl2ForConditionalGeneration(config))
    model.generation_config.pad_token_id = 0
    torch.nn.init.normal_(model.score_head.weight, std=0.05)  # wider, one level would get all
    model.config.score_head_trained = True
    return model


def batch(model: Scorer, answer_tokens: int, picture: int = 0) -> Inputs:
    """A picture, the prompt and an answer of so many tokens (0: the prompt alone, as `generate` gets it)."""
    torch.manual_seed(1)
    text = torch.randint(3, VOCABULARY - 1, (PROMPT_TEXT,))
    image = torch.full((model.config.mllm_config.num_image_tokens,), IMAGE_TOKEN)
    answer = torch.randint(3, VOCABULARY - 1, (answer_tokens,))
    answer[-2:-1] = model.config.score_token_id
    ids = torch.cat([text[:36], image, text[36:], answer]).unsqueeze(0)  # (1, T)
    torch.manual_seed(picture)
    pixel_values = torch.randn(1, 3, VISION["image_size"], VISION["image_size"])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixel_values}


def one_pass_by_where(model: Scorer, inputs: Inputs) -> torch.Tensor:
    """The score `(1,)` as on an accelerator, where the host does not know which tokens are the picture's."""
    with patch.object(language_mplug_owl2, "can_read", lambda values: False):
        return one_pass(model, inputs)


def step_by_step(model: Scorer, inputs: Inputs) -> torch.Tensor:
    """
    The score `(1,)` as decoding would give it: the prompt once, then the answer token by token on a cache, each with
    the choice of the next token that a decoder makes.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    cache = DynamicCache(config=model.config.get_text_config())
    start = PROMPT_TEXT + model.config.mllm_config.num_image_tokens
    picture, begin = {"pixel_values": inputs["pixel_values"]}, 0
    for end in range(start, ids.shape[1]):
        hidden = model.backbone.model(
            input_ids=ids[:, begin:end], attention_mask=mask[:, :end], past_key_values=cache, use_cache=True, **picture
        ).last_hidden_state[:, -1]  # (1, H)
        if ids[0, end] == model.config.score_token_id:
            levels = model.score_head(hidden).softmax(-1)  # (1, N)
        model.backbone.lm_head(hidden).argmax(-1)  # the answer is known here; a decoder would have to look
        begin, picture = end, {}
    return (levels * model.levels(levels)).sum(-1)


def plain_llama(model: Scorer) -> LlamaModel:
    """Llama with the weights of the text modules."""
    llama = LlamaModel(LlamaConfig(**TEXT, vocab_size=VOCABULARY)).eval()
    llama.load_state_dict(model.backbone.model.language_model.state_dict(), strict=False, assign=True)
    return llama


def parts(model: Scorer, inputs: Inputs) -> dict[str, Call]:
    """The three parts, each on what it gets in a pass; instead of image tokens Llama gets text ones."""
    base, pixels = model.backbone.model, inputs["pixel_values"]
    text = {"input_ids": inputs["input_ids"] % IMAGE_TOKEN, "attention_mask": inputs["attention_mask"]}
    states = base.vision_tower(pixels).last_hidden_state
    return {
        "`LlamaModel`": partial(plain_llama(model), **text, use_cache=False),
        "vision tower": partial(base.vision_tower, pixels),
        "abstractor": partial(base.abstractor, states),
    }


def one_after_another(calls: Iterable[Call]) -> None:
    """All of them, for their times summed."""
    for call in calls:
        call()


def check(model: Scorer) -> None:
    """Speed of a wrong result means nothing: refuse to time roads that do not end at the same place."""
    inputs, other = (batch(model, ANSWERS[0], picture) for picture in (0, 1))
    score = one_pass(model, inputs)
    assert (score - one_pass(model, other)).abs() > 1e-2, score
    for road in (one_pass_by_where, step_by_step):
        torch.testing.assert_close(road(model, inputs), score, atol=5e-5, rtol=0)
    text = {"input_ids": inputs["input_ids"] % IMAGE_TOKEN, "use_cache": False}
    ours, llama = (call(**text).last_hidden_state for call in (model.backbone.model, plain_llama(model)))
    torch.testing.assert_close(ours, llama)


def measure_scoring(model: Scorer, clock: Clock) -> Iterator[Row]:
    """One pass beside the parts, and decoding beside one pass."""
    short, long = (batch(model, tokens) for tokens in ANSWERS)
    alone = parts(model, short)
    for what, limit, first, second in comparisons(model, batch(model, 0), short, long, alone):
        yield Row(what, limit, *time_ratio(first, second, clock))


def comparisons(model: Scorer, prompt: Inputs, short: Inputs, long: Inputs, alone: dict[str, Call]) -> list[tuple]:
    """What is timed, its limit and its two sides."""
    score, by_where = partial(one_pass, model, short), partial(one_pass_by_where, model, short)
    all_parts = partial(one_after_another, alone.values())
    steps = "step-by-step ÷ one-pass, {} answer tokens"
    return [
        ("one-pass score ÷ the parts, each alone", 1.15, score, all_parts),
        ("the same by `where`, as on an accelerator", None, by_where, all_parts),
        *((f"{part} alone ÷ one-pass", None, call, score) for part, call in alone.items()),
        (steps.format(ANSWERS[0]), None, partial(step_by_step, model, short), score),
        (steps.format(ANSWERS[1]), None, partial(step_by_step, model, long), partial(one_pass, model, long)),
        (f"`generate` of {ANSWERS[0]} tokens ÷ one-pass", None, partial(generate, model.backbone, prompt), score),
    ]


# ---- memory ---------------------------------------------------------------------------------------------------------


def write_checkpoint(folder: Path, kind: str) -> int:
    """Write a folder in the authors' layout, with random weights; returns the bytes of its largest shard."""
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(CHECKPOINT))
    weights = original_weights()
    stem, suffix = ("pytorch_model", ".bin") if kind == ".bin" else ("model", ".safetensors")
    split = split_torch_state_dict_into_shards(
        weights, filename_pattern=f"{stem}{{suffix}}{suffix}", max_shard_size=SHARD_SIZE
    )
    assert len(split.filename_to_tensors) == SHARDS, split.metadata
    for file, names in split.filename_to_tensors.items():
        shard = {name: filled(weights[name]) for name in names}
        (torch.save if kind == ".bin" else save_file)(shard, folder / file)
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index))
    return max((folder / file).stat().st_size for file in split.filename_to_tensors)


def filled(weight: torch.Tensor) -> torch.Tensor:
    """Random values where there are none yet."""
    return torch.randn(weight.shape, dtype=weight.dtype) if weight.is_meta else weight


def original_weights() -> dict[str, torch.Tensor]:
    """Half-precision weights under the authors' names, without values; only the tables have theirs."""
    conversion = ROC4MLLMConversion(CHECKPOINT)
    shapes = {original_name(name.removeprefix("backbone.")): shape for name, shape in conversion.shapes.items()}
    del shapes["score_head.weight"]
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        shapes[name] = torch.Size([VOCABULARY, CHECKPOINT["hidden_size"]])
    weights = {name: torch.empty(shape, dtype=torch.float16, device="meta") for name, shape in shapes.items()}
    backbone, tables = conversion.backbone_config, computed_tables(conversion.backbone_config)
    for stem in sorted(TABLES):
        part = backbone.text_config if stem.startswith("model.layers") else backbone.abstractor_config
        for layer in range(part.num_hidden_layers):
            weights[stem.replace("*", str(layer))] = tables[stem].half()
    return weights


def write_tokenizer(folder: Path) -> None:
    """Tokenizer and preprocessor files; the pieces are all short words in order."""

    def field(number: int, value: int | bytes) -> bytes:
        """In protobuf's format; all numbers and lengths are below 128."""
        return bytes([number << 3, value]) if isinstance(value, int) else bytes([number << 3 | 2, len(value)]) + value

    words = chain.from_iterable(product("▁abcdefghijklmnopqrstuvwxyz", repeat=length) for length in (1, 2, 3, 4))
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += map("".join, islice(words, CHECKPOINT["score_id"] - len(pieces)))
    model = b"".join(field(1, field(1, piece.encode())) for piece in pieces)
    (folder / "tokenizer.model").write_bytes(model + field(2, field(3, 2)))  # 2: BPE
    added = ["[SCORE]", *(f"[IMG{level}]" for level in range(LEVELS))]
    files = {
        "added_tokens": {token: len(pieces) + number for number, token in enumerate(added)},
        "tokenizer_config": {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True},
        "preprocessor_config": {"size": 448, "crop_size": 448, "do_center_crop": True, "resample": 3},
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def measure_conversion(kind: str) -> Row:
    """Most memory of a conversion above what its process had after the imports, by the largest shard."""
    with tempfile.TemporaryDirectory() as folder:
        source, native = Path(folder, "original"), Path(folder, "native")
        source.mkdir()
        shard = write_checkpoint(source, kind)
        size = sum(path.stat().st_size for path in source.iterdir())
        resident, own = conversion_memory(source, native)
        check_native(native)
    what = f"memory of a conversion ÷ one shard, {size / 1e9:.1f} GB in {SHARDS} `{kind}` files"
    detail = f"{resident / 2**20:.0f} ÷ {shard / 2**20:.0f} MiB; of its own at most {own / 2**20:.0f} MiB"
    return Row(what, 1.3, resident / shard, detail)


def conversion_memory(source: Path, native: Path) -> tuple[int, int]:
    """Most bytes of the converting process above those after its imports: resident ones, and its own."""
    command = [sys.executable, "-c", CHILD, str(source), str(native)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        if child.stdout.readline() != "imported\n":
            raise RuntimeError("The converting process could not import the converter.")
        first = peak = memory(child.pid)
        child.stdin.write("\n")
        child.stdin.flush()
        while child.poll() is None:
            peak = tuple(map(max, peak, memory(child.pid)))
            time.sleep(1e-3)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    resident, own = (most - before for most, before in zip(peak, first, strict=True))
    return resident, own


def memory(process: int) -> tuple[int, ...]:
    """Bytes of a process that are resident, and those of them that belong to no file; 0 when it has ended."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return tuple(1024 * int(fields.get(name, "0 kB").split()[0]) for name in ("VmRSS", "RssAnon"))


def check_native(folder: Path) -> None:
    """The folder holds the native model's weights."""
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert found == ROC4MLLMConversion(CHECKPOINT).shapes


# ---- the table ------------------------------------------------------------------------------------------------------


def head(model: Scorer, clock: str) -> str:
    """What stands above the rows: the set-up, the machine and the versions."""
    text, vision, abstractor = (
        f"{part['hidden_size']} × {part['num_hidden_layers']}" for part in (TEXT, VISION, ABSTRACTOR)
    )
    return f"""# mPLUG-Owl2: one pass beside its parts, and converting a checkpoint

`python benchmarks/mplug_owl2.py --write`

mPLUG-Owl2 of {model.num_parameters() / 1e6:.0f} M random weights: Llama {text}, vocabulary {VOCABULARY}; vision \
{vision} at {VISION["image_size"]} px;
abstractor {abstractor}, {ABSTRACTOR["num_queries"]} queries; float32.
One picture ({model.config.mllm_config.num_image_tokens} image tokens), {PROMPT_TEXT} prompt tokens and, if nothing \
else is said, {ANSWERS[0]} answer tokens.
The parts: `LlamaModel` without head on as many positions, vision tower, abstractor.
Times: median ratio of {PAIRS} interleaved pairs; in detail the middle half of the pairs and the median of each side.
glibc keeps freed memory (`keep_freed_memory` says why), but not in the process that converts.
Memory: the most that was resident (`VmRSS`, mapped pages of files included) above what was after the imports; in
detail also the most of `RssAnon`, the process's own. The checkpoint is in float16 and stays so.
{datetime.date.today()}; {cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; \
{torch.get_num_threads()} thread(s) by {clock}; torch {torch.__version__}, transformers {transformers.__version__}.

| what | limit | measured | detail | |
|---|---:|---:|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"save the table to results/{RESULTS.name}")
    parser.add_argument("--busy", action="store_true", help="one thread, timed by its processor time")
    options = parser.parse_args()
    torch.set_num_threads(1 if options.busy else torch.get_num_threads())
    keep_freed_memory()
    clock = time.thread_time if options.busy else time.perf_counter
    model = scorer()
    table = head(model, "processor time on a busy machine (`--busy`)" if options.busy else "wall time")
    print(table, end="", flush=True)
    with torch.no_grad():
        check(model)
        kinds = (".bin", ".safetensors") if sys.platform == "linux" else ()
        for row in chain(measure_scoring(model, clock), map(measure_conversion, kinds)):
            print(row, flush=True)
            table += f"{row}\n"
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
