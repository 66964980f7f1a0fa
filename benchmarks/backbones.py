"""
Does ROC4MLLM carry every architecture that transformers maps to image-text-to-text?

    python benchmarks/backbones.py                      # all; writes benchmarks/results/backbones.md, about a minute
    python benchmarks/backbones.py llava mllama         # these only, printed with tracebacks, nothing written

A row is one of: works (every check of `backbones_checks.py`), only one by one (a score depends on the picture's place
in the batch), fails (a check, named), refused or not refused (with the reason), not built. The models are tiny and
random, in float32 on the CPU and without processors: this is the model level, no statement about published weights.
`[SCORE]` gets a new row of the embedding; where that fails, the row tries an existing unused id.
The exit code is 1 if fewer than 90 % of the decoder-style architectures work or another one is not refused.
"""

import datetime
import inspect
import os
import platform
import resource
import sys
import traceback
import warnings
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402
from backbones_checks import ATTRIBUTES, CHECKS, Trial  # noqa: E402
from backbones_tiny import ARCHITECTURES, TinyTower, tiny_model  # noqa: E402
from transformers import GenerationMixin, PreTrainedModel  # noqa: E402

from roc4mllm import ROC4MLLMForImageAesthetics  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "backbones.md"
UNUSED_ID = 290  # an existing row that no text of ours uses
MEMORY = 12 << 30  # a config that was not shrunk must fail here, not take the machine down


# ---- rows -----------------------------------------------------------------------------------------------------------


def kind(backbone: PreTrainedModel) -> str:
    """What an architecture is by its properties, found without the package; empty for decoder-style."""
    parts = [part for part in backbone.modules() if isinstance(part, PreTrainedModel)]
    if any(part.config.is_encoder_decoder for part in parts):
        return "encoder-decoder"
    if not isinstance(backbone, GenerationMixin):
        return "no generation token by token"
    if "image" not in backbone.input_modalities:
        return "no picture"
    return ""


def reason(error: Exception) -> str:
    """Error and place on one line."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split())[:160].replace("|", "/")
    return f"{type(error).__name__}: {message} ({Path(place.filename).name}:{place.lineno})"


def run_checks(name: str, score_token_id: int | None, loud: bool) -> tuple[dict, dict]:
    """Numbers, and what went wrong, by check."""
    try:
        trial = Trial(name, tiny_model(name), score_token_id)
    except Exception as error:  # a row of the table, whatever happens
        if loud:
            traceback.print_exc()
        return {}, {"forward": reason(error)}
    numbers, wrong = {}, {}
    for column, (check, lowest, highest) in CHECKS.items():
        try:
            numbers[column] = check(trial)
            if not lowest <= numbers[column] <= highest:
                wrong[column] = f"{numbers[column]:.1g}"
        except Exception as error:
            if loud:
                traceback.print_exc()
            wrong[column] = reason(error)
    return numbers, wrong


def decoder_row(name: str, backbone, loud: bool) -> dict:
    """With a new embedding row, else with an existing unused one."""
    notes = remarks(backbone)
    for row, score_token_id in (("a new row", None), ("an existing unused id", UNUSED_ID)):
        numbers, wrong = run_checks(name, score_token_id, loud)
        if not wrong:
            break
        notes.append(f"with {row} " + "; ".join(f"{check}: {what}" for check, what in wrong.items()))
    if score_token_id is not None and not wrong:
        notes.append(f"works with {row}")
    result = "only one by one" if set(wrong) == {"batch of one"} else "fails" if wrong else "works"
    return {"result": result, "numbers": numbers, "notes": notes, "new_row": score_token_id is None}


def remarks(backbone) -> list[str]:
    """What a reader should know of an architecture, found on the model."""
    notes = []
    if any(isinstance(module, TinyTower) for module in backbone.modules()):
        notes.append("a convolution stands in for the timm tower")
    if backbone.get_output_embeddings() is None:
        notes.append("the output embedding belongs to a part")
    if "pixel_values" not in inspect.signature(backbone.forward).parameters:
        notes.append("pictures do not enter as pixel_values")
    return notes


def other_row(name: str, backbone, what: str) -> dict:
    """An architecture that is not decoder-style must be refused with a reason."""
    try:
        ROC4MLLMForImageAesthetics.from_backbone(backbone, num_levels=5, score_range=(1, 5), attributes=ATTRIBUTES)
    except ValueError as error:
        return {"result": "refused", "numbers": {}, "notes": [str(error)]}
    except Exception as error:
        return {"result": "not refused", "numbers": {}, "notes": [f"{what}; {reason(error)}"]}
    return {"result": "not refused", "numbers": {}, "notes": [what]}


def make_row(name: str, loud: bool) -> dict:
    try:
        backbone = tiny_model(name)
    except Exception as error:
        return {"name": name, "kind": "", "result": "not built", "numbers": {}, "notes": [reason(error)]}
    what = kind(backbone)
    row = other_row(name, backbone, what) if what else decoder_row(name, backbone, loud)
    return {"name": name, "kind": what, **row}


# ---- table ----------------------------------------------------------------------------------------------------------

INTRODUCTION = """\
# Backbones

`python benchmarks/backbones.py` with transformers {transformers}, torch {torch}, Python {python}, {machine} CPU,
float32, {date}.

Every architecture in transformers' image-text-to-text mapping, as a tiny random model without its processor: this is
the model level, no statement about published weights. {total} architectures: **{decoders} decoder-style, of which
{works} work ({share:.0%})**, {existing} of them only with an existing id for `[SCORE]`; {others} others, of which
{refused} are refused with a reason.

{kinds}

Two pictures with one sentence and two `[SCORE]`, a head drawn with std 0.5, scores from 1 to 5. A row works if:

| column | what is measured | limit |
|---|---|---|
| pictures differ | distance of the two pictures' scores | > 1e-3 |
| cut before slots | one pass − passes over the ids that end before each slot | 1e-4 |
| cached steps | one pass − the backbone's own cached generation, made to write the sentence | 1e-4 |
| later tokens | first score after all tokens behind it are changed | 1e-6 |
| right padding | scores with three padding tokens | 5e-5 |
| batch of one | scores of each picture alone | 5e-5 |
| text loss | our text loss − cross entropy on the backbone's full logits | 1e-5 |
| gradients | share of the backbone's trainable tensors that a score sends a gradient into | > 0 |
| save and load | scores after `save_pretrained` and `AutoModel.from_pretrained` | 2e-6 |

`generate` runs too. Where a new embedding row for `[SCORE]` fails, the notes say so and the row shows an existing
unused id, as a processor may choose it.
"""


def cell(column: str, numbers: dict) -> str:
    if column not in numbers:
        return ""
    return f"{numbers[column]:.0%}" if column == "gradients" else f"{numbers[column]:.1g}"


def table(rows: list[dict]) -> str:
    shown = [column for column in CHECKS if column != "generate"]
    lines = ["| architecture | result | " + " | ".join(shown) + " | notes |", "|---" * (len(shown) + 3) + "|"]
    for row in rows:
        cells = [cell(column, row["numbers"]) for column in shown]
        lines.append("| " + " | ".join([row["name"], row["result"], *cells, "; ".join(row["notes"])]) + " |")
    return "\n".join(lines) + "\n"


def counts(rows: list[dict]) -> dict:
    """The numbers in the head of the table."""
    decoders = [row for row in rows if not row["kind"]]
    others = [row for row in rows if row["kind"]]
    works = sum(row["result"] == "works" for row in decoders)
    kinds = dict.fromkeys(row["kind"] for row in others)
    names = {what: ", ".join(row["name"] for row in others if row["kind"] == what) for what in kinds}
    return {
        "total": len(rows),
        "decoders": len(decoders),
        "works": works,
        "share": works / len(decoders),
        "existing": sum(row["result"] == "works" and not row["new_row"] for row in decoders),
        "others": len(others),
        "refused": sum(row["result"] == "refused" for row in others),
        "kinds": "\n".join(f"- {what}: {members}" for what, members in names.items()),
    }


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    transformers.utils.logging.disable_progress_bar()
    rows = []
    for name in sys.argv[1:] or ARCHITECTURES:
        rows.append(make_row(name, loud=bool(sys.argv[1:])))
        print(f"{name}: {rows[-1]['result']}", *rows[-1]["notes"], sep="; ", flush=True)
    if sys.argv[1:]:
        print(table(rows))
        return 0
    found = counts(rows)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    versions |= {"python": platform.python_version(), "machine": platform.machine(), "date": datetime.date.today()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(INTRODUCTION.format(**versions, **found) + "\n" + table(rows), encoding="utf-8")
    print(f"{found['works']} of {found['decoders']} work, {found['refused']} of {found['others']} refused: {RESULTS}")
    return int(found["share"] < 0.9 or found["refused"] < found["others"])


if __name__ == "__main__":
    sys.exit(main())
