"""
Scoring on a cluster by Ray Data: a pool of actors, each with the model, reads and scores; records come back to the
driver, which writes them as a run on one machine does.

What travels to the actors says where pictures are. They are listed before the first is scored, and wait in Ray's
object store, blocks of some hundred to a table; the driver holds a reference to each block. Bytes travel only where
there is no place to read them again: members of compressed archives and data sets of the `datasets` library.
"""

import contextlib
import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

from .image_aesthetics_scorer import ImageAestheticsScorer
from .inputs.picture_input import PictureInput
from .ray_blocks import block_table, read_ahead

BLOCKS = (32, 1024)  # pictures in a block: few at first, so that all actors have some, then more, to have fewer blocks


class RayScorer:
    """
    A scorer on a cluster of Ray: the one that `ray.init` connects to (its `RAY_ADDRESS`), else this machine.

    Args:
        scorer ([`ImageAestheticsScorer`]):
            Names the model; each actor loads it once. A folder must be there for all of them.
        local ([`ImageAestheticsPipeline`]):
            The same scorer, loaded here: what it declares is asked, and its weights are dropped.
        actors (`tuple[int, int | None]`, *optional*, defaults to `(1, None)`):
            Fewest and most actors; as many as the cluster has room for if the second is `None`.
        num_cpus (`float`, *optional*, defaults to 1):
            CPUs per actor, and threads of its model.
        num_gpus (`float`, *optional*, defaults to 0):
            GPUs per actor; four share one at 0.25.

    Raises:
        ImportError: If Ray is not installed.
    """

    def __init__(
        self,
        scorer: ImageAestheticsScorer,
        local: Any,
        *,
        actors: tuple[int, int | None] = (1, None),
        num_cpus: float = 1,
        num_gpus: float = 0,
    ) -> None:
        import_ray()
        self.scorer, self.model, self.postprocess = scorer, local.model.to("meta"), local.postprocess
        self.actors, self.resources = actors, {"num_cpus": num_cpus, "num_gpus": num_gpus}

    def score_inputs(
        self, inputs: Iterable[PictureInput], **options: Any
    ) -> Iterator[tuple[PictureInput, dict[str, Any]]]:
        """
        Score inputs on the cluster.

        Args:
            inputs (iterable of `PictureInput`): All are listed before the first is scored.
            options: As in `score_inputs` of one machine; `num_workers` are those of each actor.

        Yields:
            `tuple[PictureInput, dict]`: each input, by its path alone, with its record, in order.

        Raises:
            ValueError: If the cluster has no room for an actor.
            RuntimeError: If it gives up.
        """
        ray = import_ray()
        with ray_running(ray):
            blocks = [ray.put(table) for table in block_tables(inputs)]
            if not blocks:
                return
            fewest, most = self.actors
            pool = ray.data.ActorPoolStrategy(min_size=fewest, max_size=most or max(fewest, self._room(ray)))
            data = ray.data.from_arrow_refs(blocks).map_batches(
                BlockScorer,
                fn_constructor_args=(self.scorer, max(1, int(self.resources["num_cpus"])), options),
                batch_size=None,
                batch_format="pyarrow",
                compute=pool,
                **self.resources,
            )
            try:
                yield from in_order(data.iter_batches(batch_size=None, batch_format="pyarrow"))
            except ray.exceptions.RayError as error:
                raise RuntimeError(f"Ray gave up: {str(error).strip().splitlines()[-1]}") from error

    def _room(self, ray: Any) -> int:
        """How many actors the cluster has room for; none would wait for ever."""
        there = ray.cluster_resources()
        wanted = {"CPU": self.resources["num_cpus"], "GPU": self.resources["num_gpus"]}
        room = int(min(there.get(kind, 0.0) / count for kind, count in wanted.items() if count))
        if not room:
            raise ValueError(
                f"an actor needs {wanted['CPU']:g} CPUs and {wanted['GPU']:g} GPUs, and the cluster has "
                f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g}: ask for less; if it grows, say how many actors"
            )
        return room


class BlockScorer:
    """What an actor runs: a scorer that is loaded when the actor starts."""

    def __init__(self, scorer: ImageAestheticsScorer, threads: int, options: dict[str, Any]) -> None:
        import torch

        torch.set_num_threads(threads)
        self.scorer, self.options = scorer.scorer, options

    def __call__(self, block: Any) -> Any:
        """The records of a block of pictures, in its order."""
        import pyarrow  # type: ignore[import-untyped]

        records = self.scorer(read_ahead(block.to_pylist()), **self.options)
        texts = [json.dumps(record) for record in records]
        return pyarrow.table({"place": block["place"], "path": block["path"], "record": texts})


def block_tables(inputs: Iterable[PictureInput]) -> Iterator[Any]:
    """Inputs in blocks, as tables."""
    stream, place = iter(inputs), 0
    while block := list(itertools.islice(stream, min(max(BLOCKS[0], place // 256), BLOCKS[1]))):
        yield block_table(block, place)
        place += len(block)


def in_order(blocks: Iterable[Any]) -> Iterator[tuple[PictureInput, dict[str, Any]]]:
    """What actors return, which is ready in any order."""
    waiting: dict[int, Any] = {}
    place = 0
    for block in blocks:
        if block.num_rows:
            waiting[block["place"][0].as_py()] = block
        while place in waiting:
            rows = waiting.pop(place).to_pylist()
            place += len(rows)
            yield from ((PictureInput(row["path"]), json.loads(row["record"])) for row in rows)
    if waiting:
        raise RuntimeError(f"Ray returned no records from picture {place + 1} on")


def import_ray() -> Any:
    """
    The module `ray`.

    Raises:
        ImportError: If it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to its makers unless told not to
    try:
        import ray.data
    except ImportError as error:
        raise ImportError("scoring on a cluster needs Ray: pip install 'roc4mllm[bulk]'") from error
    return ray


@contextlib.contextmanager
def ray_running(ray: Any) -> Iterator[None]:
    """A connection to Ray, quiet where nothing is wrong; one that was there stays."""
    log, level, started = logging.getLogger("ray.data"), logging.getLogger("ray.data").level, not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    bars = context.enable_progress_bars
    context.enable_progress_bars = False  # there is one of our own
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        log.setLevel(level)
        if started:
            ray.shutdown()


__all__ = ["RayScorer"]
