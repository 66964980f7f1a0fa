"""
Scoring of any number of pictures: read and prepared by worker processes while the model runs, in bounded memory, one
result per input in input order.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..processing_roc4mllm.picture_batches_aesthetics import Unreadable
from .inputs.picture_input import PictureInput
from .tables.path_counts import PathCounts
from .tables.score_table import encodable

KILLED = "cannot be read: the process that read it was killed"
MOST_KILLED = 20  # one after the other: then it is not the pictures


def score_inputs(
    scorer: Any, inputs: Iterable[PictureInput], **options: Any
) -> Iterator[tuple[PictureInput, dict[str, Any]]]:
    """
    Score inputs as they are read; few are held at a time, however many there are.

    If a process that reads is killed, by a picture that its decoder cannot stand or for want of memory, the inputs
    that were under way are read one by one, each in a process of its own.

    Args:
        scorer (`ImageAestheticsPipeline` or `Cascade`):
            What `roc4mllm.load_scorer` returns.
        inputs (iterable of `PictureInput`):
            What `expand_inputs` yields.
        options:
            Passed on to the scorer: `batch_size`, `num_workers`, `attributes`.

    Yields:
        `tuple[PictureInput, dict]`: each input with its record, in order; a record of its error where it carries one.

    Raises:
        RuntimeError: If `inputs` raised an error of its own, or whatever is read ends the process that reads it.
    """
    waiting: deque[PictureInput] = deque()
    rest = iter(inputs)

    def sources() -> Iterator[Any]:
        for item in rest:
            waiting.append(item)
            yield item.source

    killed = 0  # in a row
    while True:
        try:
            for record in scorer(sources(), **options):
                if waiting:  # else it is the record of an error of `inputs` itself, which is raised after it
                    yield waiting.popleft(), record
            return
        except RuntimeError as error:
            if not is_killed_reader(error):
                raise
        while waiting:
            record = score_alone(scorer, waiting[0].source, options)
            killed = killed + 1 if record["error"] == KILLED else 0
            if killed == MOST_KILLED:
                raise RuntimeError(f"{killed} processes that read were killed one after the other; is there memory?")
            yield waiting.popleft(), record


def score_alone(scorer: Any, source: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The record of one picture, which a process of its own reads."""
    try:
        (record,) = scorer(iter([source]), **options | {"num_workers": 1})
    except RuntimeError as error:
        if not is_killed_reader(error):
            raise
        (record,) = scorer(iter([Unreadable(KILLED)]), **options | {"num_workers": 0})
    return dict(record)


def is_killed_reader(error: RuntimeError) -> bool:
    """Whether an error says that one of the processes that read is no longer there."""
    return str(error).startswith("DataLoader worker")


def remaining(
    inputs: Iterable[PictureInput], done: PathCounts, skipped: Callable[[], object] = lambda: None
) -> Iterator[PictureInput]:
    """
    The inputs that have no row yet; one that is listed twice needs two.

    Args:
        inputs (iterable of `PictureInput`): All.
        done ([`PathCounts`]): How many rows there are of each path, as `TableFile.found.paths`; counted down.
        skipped (callable, *optional*): Called for each input that has a row.
    """
    for item in inputs:
        if done.take(encodable(item.path)):
            skipped()
        else:
            yield item


__all__ = ["remaining", "score_inputs"]
