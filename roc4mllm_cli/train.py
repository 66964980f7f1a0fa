"""`roc4mllm train`: ratings to a scorer."""

import argparse

from .arguments import Commands, at_least, names, number, share


def add_command(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "train",
        help="train a scorer on your own ratings",
        description="Train a scorer on rated pictures: put a score head on a multimodal LLM (all weights, or LoRA), "
        "begin a TANet, EAT or ELTA with fresh weights, or train a scorer on. Data, settings and output folder are "
        "checked before the first step.",
        epilog="Settings come from CONFIG, then from flags. CONFIG and --set take every option of SplitLossConfig, "
        "which has those of transformers' TrainingArguments; a name that is unknown is refused with the nearest known "
        "one. Several devices: accelerate launch -m roc4mllm_cli train …",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,  # a flag that is not given must not overwrite the file's setting
    )
    parser.add_argument("config", nargs="?", default=None, metavar="CONFIG", help="a YAML file of settings")
    data = parser.add_argument_group("data")
    data.add_argument("--data", help="rated pictures: .csv (path,score will do), .jsonl, .json, .parquet, a folder, …")
    data.add_argument("--split", help="part of a data set, as in train")
    data.add_argument("--pictures", metavar="DIR", help="folder that relative paths start from")
    data.add_argument("--eval-data", metavar="DATA", help="rated pictures to judge on")
    data.add_argument("--eval-split", metavar="SPLIT", help="part of that data set")
    data.add_argument("--eval-share", type=share, metavar="Q", help="or this share of --data (default: 0.1; 0: none)")
    data.add_argument("--attributes", type=names, metavar="A,B", help="what the columns rate, the main one first")
    data.add_argument("--score-range", type=number, nargs=2, metavar=("LOW", "HIGH"), help="units of the scores")
    data.add_argument("--skip-bad-rows", metavar="FILE", help="write bad rows to FILE (CSV) instead of stopping")
    model = parser.add_argument_group("model")
    model.add_argument(
        "-m",
        "--model",
        help="multimodal LLM or scorer: a Hub name or a folder (default: the bundled); or eat-tiny, tanet, …: fresh",
    )
    model.add_argument("-o", "--output-dir", metavar="DIR", help="folder of the trained scorer (default: scorer)")
    model.add_argument(
        "--num-levels", type=at_least(1), metavar="N", help="levels of a new score head, 1: one value (default: 10)"
    )
    model.add_argument("--lora", action="store_true", help="train low-rank adapters: tens of MB, far less memory")
    model.add_argument("--lora-rank", type=at_least(1), metavar="R", help="their rank (default: 16)")
    model.add_argument("--load-in-4bit", action="store_true", help="hold the frozen weights in 4 bits (QLoRA)")
    model.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="dtype of the weights")
    model.add_argument("--attn-implementation", metavar="NAME", help="sdpa, flash_attention_2, …")
    training = parser.add_argument_group("training")
    training.add_argument("--loss-preset", metavar="NAME", help="paper (default), paper-ava, authors-script, emd")
    training.add_argument("--num-train-epochs", "--epochs", type=number, metavar="N", help="passes (default: 2)")
    training.add_argument("--max-steps", type=at_least(1), metavar="N", help="stop after N steps instead")
    training.add_argument(
        "--per-device-train-batch-size", "--batch-size", type=at_least(1), metavar="N", help="pictures (default: 16)"
    )
    training.add_argument("--gradient-accumulation-steps", type=at_least(1), metavar="N", help="batches per step")
    training.add_argument("--learning-rate", type=number, metavar="X", help="default: 2e-5, with --lora 2e-4")
    training.add_argument("--freeze", type=names, metavar="A,B", help="parts that are not trained, as in vision_tower")
    training.add_argument("--report-to", metavar="NAME", help="tensorboard, trackio, wandb (default: none)")
    training.add_argument("--seed", type=at_least(0), metavar="N", help="of order and drawn weights (default: 42)")
    training.add_argument(
        "--self-training", type=at_least(1), metavar="ROUNDS", help="then learn on from --unlabelled"
    )
    training.add_argument("--unlabelled", metavar="DATA", help="pictures without ratings: a folder, a table of paths")
    training.add_argument("--pick-threshold", type=share, metavar="Q", help="how sure to be of one (default: 0.8)")
    training.add_argument("--sharpening", type=number, metavar="B", help="ELTA's beta (default: 1)")
    training.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the folder")
    training.add_argument("--tune", type=at_least(1), metavar="N", help="try N settings of search_space (optuna)")
    training.add_argument("--set", action="append", metavar="NAME=VALUE", default=None, help="any other option")
    training.add_argument("--dry-run", action="store_true", default=False, help="check and describe, train nothing")
