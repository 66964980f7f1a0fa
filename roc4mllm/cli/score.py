"""`roc4mllm score`: pictures to a table, as a file, on the terminal or as JSON lines."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..inference.bulk_scoring import remaining, score_inputs
from ..inference.cascade import Cascade, beside
from ..inference.image_aesthetics_scorer import ImageAestheticsScorer
from ..inference.inputs.dataset_inputs import DatasetInputs
from ..inference.inputs.expansion import STDIN, count_inputs, expand_inputs
from ..inference.inputs.picture_input import PictureInput
from ..inference.inputs.stores import check_store, is_stored
from ..inference.personal.personal_scorer import PersonalScorer
from ..inference.personal.personal_taste import PersonalTaste
from ..inference.ray_scoring import RayScorer, import_ray
from ..inference.tables.score_formats import FoundRows, Origin, origin_of
from ..inference.tables.score_table import GENERAL_SCORE, Row, make_row, shown, table_columns
from ..inference.tables.score_writing import TableFile, check_output
from .cores import workers_that_pay
from .interruption import exit_when_told
from .loading import choose_attributes, known_model, load, load_named
from .progress import Progress
from .score_display import TableDisplay

FEW = 64  # inputs for which starting workers does not pay
Write = Callable[[Row], None]


def run(args: argparse.Namespace) -> int:
    """Score `args.paths`; 1 if something failed and `args.strict`, else 0."""
    # What is wrong with the arguments is said before a model is loaded and hours are spent.
    output = check_arguments(args)
    taste = None if args.personal is None else PersonalTaste.load(args.personal)
    inputs = open_inputs(args, output)
    count = inputs.count if isinstance(inputs, DatasetInputs) else count_inputs(args.paths, recursive=args.recursive)
    here = args if args.engine == "local" else with_device(args, "cpu")  # only what it declares is asked
    scorer = load(here)
    attributes = choose_attributes(args.attributes, scorer.model.config)
    if taste is not None:
        scorer = personal(scorer, taste, args.personal, attributes)
    if args.cascade is not None:
        scorer = Cascade(load_named(args.cascade, here), scorer, tuple(args.band), attributes)
    if args.engine == "ray":
        scorer = on_ray(args, scorer, attributes)
    job = Job(args, scorer, attributes, inputs, count)
    if output is not None:
        write_file(output, job)
    elif sys.stdout.isatty():
        table = TableDisplay(attributes)
        try:
            job.score(table.write)
        finally:
            table.flush()
        if not job.progress.done:
            print("no picture")
    else:
        job.score(lambda row: print(json.dumps(row), flush=True))
    print(job.summary(), file=sys.stderr)
    return 1 if job.progress.failed and args.strict else 0


def check_arguments(args: argparse.Namespace) -> Path | None:
    """The table to be written; whatever does not fit together is refused."""
    if bool(args.paths) == bool(args.dataset):
        raise ValueError("name pictures (files, folders, shards, - for names on stdin), or a data set with --dataset")
    if (args.cascade is None) != (args.band is None):
        raise ValueError("--cascade FAST_MODEL and --band LOW HIGH go together")
    if args.cascade is not None and args.personal is not None:
        raise ValueError("--cascade and --personal cannot be combined: a band is in the units of a model")
    if args.output is None and (args.resume or (args.cascade and sys.stdout.isatty())):
        raise ValueError(f"{'--resume' if args.resume else '--cascade'} needs a file to write: name it with -o")
    if args.resume and args.personal is not None:
        raise ValueError("--resume and --personal cannot be combined: rows do not tell whose taste they are of")
    of_data_set = [name for name in ("config", "revision", "split") if getattr(args, name) is not None]
    if of_data_set and args.dataset is None:
        raise ValueError(f"--{of_data_set[0]} is of a data set: name one with --dataset")
    if args.revision is not None and os.path.isdir(args.dataset):
        raise ValueError(f"--revision is of a data set on the Hub, and {args.dataset!r} is a folder")
    if args.null and STDIN not in args.paths:
        raise ValueError("--null is for names on stdin: name - as input")
    check_engine(args)
    for path in filter(is_stored, args.paths):
        check_store(path)
    table_columns(args.attributes or [], args.alias, columns_beside(args))
    return None if args.output is None else check_output(args.output)


def check_engine(args: argparse.Namespace) -> None:
    """Refuse an engine that is not there, and Ray's options without Ray."""
    if args.engine == "ray":
        import_ray()
    elif given := [name for name in ("actors", "num_cpus", "num_gpus") if getattr(args, name) is not None]:
        raise ValueError(f"--{given[0].replace('_', '-')} is for a cluster: add --engine ray")


def open_inputs(args: argparse.Namespace, output: Path | None) -> Iterable[PictureInput]:
    """What was asked for, looked for as it is scored; a glob may match the table itself."""
    if args.dataset:
        return DatasetInputs(args.dataset, args.split, args.config, args.revision)
    separator = b"\0" if args.null else b"\n"
    found = expand_inputs(args.paths, recursive=args.recursive, separator=separator, by_place=args.engine == "ray")
    if output is None:
        return found
    return (item for item in found if not is_of_table(item.path, output))


def is_of_table(path: str, output: Path) -> bool:
    """Whether a file is the table that is being written, or stands beside it while it is."""
    name, partial = os.path.basename(path), f"{output.stem}.partial{output.suffix}"
    # a picture's name may begin as that of the table
    is_named_so = name in (output.name, partial) or name.startswith(f"{partial}.")
    return is_named_so and Path(os.path.realpath(path)).parent == output.parent


def columns_beside(args: argparse.Namespace) -> Sequence[str]:
    """The columns that a taste or a cascade adds."""
    if args.cascade is not None:
        return Cascade.columns
    return [GENERAL_SCORE] if args.personal is not None else []


def personal(scorer: Any, taste: PersonalTaste, file: str, attributes: Sequence[str]) -> PersonalScorer:
    """The scorer by a taste; whatever does not fit names the file."""
    try:
        by_taste = PersonalScorer(scorer, taste)
        by_taste.check_first(attributes)
    except ValueError as error:
        raise ValueError(f"{file!r}: {error}") from error
    return by_taste


def with_device(args: argparse.Namespace, device: str) -> argparse.Namespace:
    """The same arguments but for the device."""
    return argparse.Namespace(**vars(args) | {"device": device})


def on_ray(args: argparse.Namespace, local: Any, attributes: Sequence[str]) -> RayScorer:
    """The scorer that was loaded here, in actors of a cluster; they see folders and files by their whole path."""
    gpus = args.num_gpus or 0
    options = {"device": args.device or ("cuda" if gpus else "cpu"), "allow_untrained": args.allow_untrained}
    options |= {name: value for name, value in (("dtype", args.dtype),) if value is not None}
    if args.personal is not None:
        options["personal"] = os.path.abspath(args.personal)
    if args.cascade is not None:
        options |= {"cascade": whole_name(args.cascade), "band": tuple(args.band)}
    scorer = ImageAestheticsScorer(whole_name(args.model), attributes=attributes, **options)
    cpus = 1 if args.num_cpus is None else args.num_cpus
    return RayScorer(scorer, local, actors=tuple(args.actors or (1, None)), num_cpus=cpus, num_gpus=gpus)


def whole_name(given: str | None) -> str | None:
    """A model's name as other processes understand it."""
    model = known_model(given)
    return os.path.abspath(model) if model and os.path.isdir(model) else model


class Job:
    """
    One run over inputs.

    Args:
        args (`argparse.Namespace`): What the parser of `score` gives.
        scorer (`ImageAestheticsPipeline`, `Cascade` or `RayScorer`): The scorer.
        attributes (sequence of `str`): What to score.
        inputs (iterable of `PictureInput`): The pictures.
        count (`int`, *optional*): How many there are, if that is known.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        scorer: Any,
        attributes: Sequence[str],
        inputs: Iterable[PictureInput],
        count: int | None,
    ) -> None:
        self.args, self.scorer, self.attributes = args, scorer, list(attributes)
        self.declared = scorer.local if isinstance(scorer, RayScorer) else scorer  # knows what the rows will be of
        self.inputs, self.count = inputs, count
        self.columns = table_columns(attributes, args.alias, columns_beside(args))
        self.progress = Progress(count)

    def score(self, write: Write, found: FoundRows | None = None) -> None:
        """Score and write every input that has no row yet."""
        inputs = remaining(self.inputs, found.paths, self.progress.skip) if found else self.inputs
        options = {"batch_size": self.args.batch_size, "num_workers": self.workers(), "attributes": self.attributes}
        try:
            with self.progress:
                for item, record in self.records(inputs, **options):
                    row = make_row(item.path, record, self.attributes, self.args.alias)
                    write(row)
                    self.progress.add(row)
        except RuntimeError as error:  # a reading process was killed, or a data set broke off
            raise ValueError(f"the run broke off after {self.progress.done} pictures: {error}") from error

    def records(self, inputs: Iterable[PictureInput], **options: Any) -> Iterator[tuple[PictureInput, Row]]:
        """Inputs with their records, in order."""
        if isinstance(self.scorer, RayScorer):
            return self.scorer.score_inputs(inputs, **options)
        return score_inputs(self.scorer, inputs, **options)

    def workers(self) -> int:
        """Processes that read pictures (on a cluster, those of an actor), unless the user says how many."""
        if self.args.num_workers is not None:
            return int(self.args.num_workers)
        if self.args.engine == "ray":  # an actor without a GPU reads and scores in turn, on the CPUs it has
            return int(self.args.num_cpus or 1) if self.args.num_gpus else 0
        return 0 if self.count is not None and self.count < FEW else workers_that_pay()

    def origins(self) -> set[Origin]:
        """What the rows will have in common, as `origin_of` tells it."""
        cascade = self.declared if isinstance(self.declared, Cascade) else None
        scorers = [cascade.fast, cascade.slow] if cascade else [self.declared]
        asked = [cascade.fast_attributes, self.attributes] if cascade else [self.attributes]
        records = [
            scorer.postprocess({"error": "none"}, attributes=names)
            for scorer, names in zip(scorers, asked, strict=True)
        ]
        told = beside(records[0]) if cascade else {}
        return {origin_of(make_row("", record | told, self.attributes)) for record in records}

    def summary(self) -> str:
        """What was done."""
        line = self.progress.summary()
        if self.progress.skipped:
            line += f"; {self.progress.skipped} had a row already"
        if isinstance(self.declared, Cascade):
            line += f"; {self.declared.saving()}"
        return shown(line + (f"; written to {self.args.output}" if self.args.output else ""))


def write_file(output: Path, job: Job) -> None:
    """Score into a file; after an interruption, say where the rows so far are."""
    check = {"check": job.declared.check_row} if isinstance(job.declared, Cascade) else {}
    table = TableFile(output, job.columns, resume=job.args.resume, origins=job.origins(), **check)
    try:
        with exit_when_told(), table:
            job.score(table.write, table.found)
    except BaseException:
        if table.rows:
            print(f"roc4mllm: the rows so far are in {table.partial}; --resume goes on with them", file=sys.stderr)
        raise
