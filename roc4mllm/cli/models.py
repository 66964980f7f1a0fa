"""`roc4mllm models`: what there is to score with. A new family is one more entry of MODELS."""

import argparse
import dataclasses
import json


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """What a person needs to know before choosing a model; all fields are texts to be read."""

    name: str
    what: str
    paper: str
    score_range: str
    code_licence: str
    weights_licence: str
    example: str


MODELS = (
    ModelEntry(
        name="roc4mllm-tiny",
        what="the bundled checkpoint and default: a small MLLM with a ROC4MLLM head, offline, for demonstration",
        paper="ROC4MLLM, AAAI 2026",
        score_range="beauty 1 to 7; sharpness, noise, exposure, compression, colourfulness 0 to 100; higher is better",
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0; trained on OASIS photographs, which are free for research (see its card)",
        example="roc4mllm score examples/photos",
    ),
    ModelEntry(
        name="ROC4MLLM",
        what="any decoder-style image-text-to-text model of transformers, with a score token and a regression head",
        paper="AAAI 2026; github.com/woshidandan/Assessing-Image-Aesthetics-via-Multimodal-Large-Language-Models",
        score_range="that of its training labels, kept in config.score_range; 1 to 10 unless set; higher is better",
        code_licence="Apache-2.0",
        weights_licence="that of the backbone you choose, and what the labels you train on allow",
        example="roc4mllm score photos -m FOLDER_OR_HUB_NAME",
    ),
    ModelEntry(
        name="Ricardo-M/ROC4MLLM",
        what="the weights that the paper's authors publish, on mPLUG-Owl2 (7 billion); converted once, into the cache",
        paper="ROC4MLLM, AAAI 2026",
        score_range="min_score and max_score of its config, stated in every record; higher is better",
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0 by its card; the base model is under the Llama 2 Community License",
        example="roc4mllm score photos -m Ricardo-M/ROC4MLLM",
    ),
    ModelEntry(
        name="OneAlign, Q-Align, DeQA-Score",
        what="baselines on mPLUG-Owl2 (7 billion) that name one of five levels; read from a converted folder",
        paper="Q-Align, ICML 2024; DeQA-Score, CVPR 2025",
        score_range="1 to 5, higher is better",
        code_licence="Apache-2.0",
        weights_licence="MIT by OneAlign's card (its authors' code is non-commercial); Llama 2 Community License",
        example="hf download q-future/one-align --local-dir one-align && "
        "roc4mllm convert level-words one-align native && roc4mllm score photos -m native",
    ),
    ModelEntry(
        name="TANet",
        what="MobileNetV2, a theme branch on a scene network, and colour similarity; converted from its authors' .pth",
        paper="TANet, IJCAI 2022; github.com/woshidandan/TANet-image-aesthetics-and-quality-assessment",
        score_range="1 to 10 for weights of AVA, 0 to 10 for those of TAD66K; higher is better",
        code_licence="Apache-2.0",
        weights_licence="none is known for the files; the repository of its authors is under Apache-2.0",
        example="roc4mllm convert tanet FILE.pth tanet && roc4mllm score photos -m tanet",
    ),
    ModelEntry(
        name="EAT",
        what="a deformable-attention transformer that looks where the eye is caught; converted from its authors' .pth",
        paper="EAT, ACM MM 2023; github.com/woshidandan/Image-Aesthetics-and-Quality-Assessment",
        score_range="1 to 10 for weights of AVA, 0 to 10 for those of TAD66K; higher is better",
        code_licence="Apache-2.0",
        weights_licence="none is known for the files; the repository of its authors says Apache-2.0 in a badge only",
        example="roc4mllm convert eat FILE.pth eat && roc4mllm score photos -m eat",
    ),
    ModelEntry(
        name="ELTA",
        what="Swin Transformer V2, taught against the long tail of ratings; converted from its authors' .pth",
        paper="ELTA, ICML 2024",
        score_range="1 to 10 for weights of AVA, 0 to 10 for those of TAD66K; higher is better",
        code_licence="Apache-2.0",
        weights_licence="none is known for the files; the repository of its authors says Apache-2.0 in a badge only",
        example="roc4mllm convert elta FILE.pth elta && roc4mllm score photos -m elta",
    ),
)

LABELS = {
    "what": "what",
    "paper": "paper",
    "score_range": "range",
    "code_licence": "code",
    "weights_licence": "weights",
    "example": "try",
}


def run(args: argparse.Namespace) -> int:
    """Print the models; always 0."""
    if args.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in MODELS], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(format_entry(entry) for entry in MODELS))
    return 0


def format_entry(entry: ModelEntry) -> str:
    """One model as a block of lines; wider than a terminal as a table of seven columns would be."""
    lines = [f"  {label:<8}{getattr(entry, field)}" for field, label in LABELS.items()]
    return "\n".join([entry.name, *lines])
