"""`roc4mllm evaluate`: a model against rated pictures, as a table, as JSON and as a folder with plots."""

import argparse
import json
import re
import sys

from ..inference.tables.score_table import shown
from ..trainer.evaluation import evaluate_scorer
from ..trainer.evaluation_report import NO_PLOTS, check_folder, format_text, has_matplotlib, write_report
from ..trainer.rated_pictures import RatedPictures
from ..trainer.rating_data import read_ratings
from ..trainer.rating_sources import open_source
from .loading import choose_attributes, load

OPTIONS = {  # by what a message of the Python functions says
    "skip_bad_rows": "--skip-bad-rows",
    "rescale=True": "--rescale",
    "allow_leak": "--allow-leak",
    "score_range": "--score-range",
    "as pictures": "with --pictures",
}
QUOTED = r"""(?<!\w)(['"]).*?\1(?!\w)"""  # what a user wrote; the apostrophe of `model's` opens nothing
ARGUMENT = rf"(?<!\S)(?:{'|'.join(OPTIONS)})(?=[.,;:]?(?:\s|$))"  # whole words: neither paths nor longer names


def run(args: argparse.Namespace) -> int:
    """Evaluate `args.model` on `args.data`; 1 if no picture could be scored, else 0."""
    if args.output is not None:
        check_folder(args.output, args.data)
    try:
        open_source(args.data, args.split)  # a wrong path is told before a model is loaded
        scorer = load(args)
        rated = read_rated(args, choose_attributes(args.attributes, scorer.model.config))
        options = {name: getattr(args, name) for name in ("batch_size", "num_workers", "cut", "by", "bootstraps")}
        options |= {"seed": args.seed, "rescale": args.rescale, "allow_leak": args.allow_leak, "data": data_name(args)}
        evaluation = evaluate_scorer(scorer, rated, attributes=rated.attributes, **options)
    except ValueError as error:
        raise ValueError(in_options(str(error))) from error
    if args.json:
        print(json.dumps(evaluation.to_dict(), indent=2))
    else:
        print("\n".join(map(shown, format_text(evaluation).split("\n"))))
    if args.output is not None:
        print(f"{', '.join(write_report(evaluation, args.output))} written to {args.output}", file=sys.stderr)
        if not has_matplotlib():
            print(NO_PLOTS, file=sys.stderr)
    return 0 if len(evaluation.failures) < len(evaluation.pictures) else 1


def read_rated(args: argparse.Namespace, known: list[str]) -> RatedPictures:
    """The ratings of what the model scores, or of what the user named; what the reading noticed goes to stderr."""
    rated = read_ratings(
        args.data,
        attributes=args.attributes,
        known_attributes=known,
        score_range=args.score_range,
        split=args.split,
        pictures=args.pictures,
        skip_bad_rows=args.skip_bad_rows,
    )
    for warning in rated.warnings:
        if "guessed from scores" not in warning:  # a guess gives way to the model's range, which the table says
            print(shown(f"roc4mllm: {warning}"), file=sys.stderr)
    return rated


def data_name(args: argparse.Namespace) -> str:
    """The data as the user named them."""
    return args.data if args.split is None else f"{args.data}, split {args.split}"


def in_options(text: str) -> str:
    """A message that names arguments of Python, with the options of the command instead; quotations stay."""
    return re.sub(f"{QUOTED}|{ARGUMENT}", lambda found: OPTIONS.get(found[0], found[0]), text)
