"""
Scoring on a cluster by Ray Data: a pool of actors, each with the model, reads and scores; records come back to the
driver, which writes them as a run on one machine does.

What travels to the actors says where pictures are. They are listed before the first is scored, and wait in Ray's
object store, blocks of some hundred to a table; the driver holds a reference to each block. Bytes travel only where
there is no place to read them again: members of compressed archives and data sets of the `datasets` library. Ray puts
on disk what its store has no room for; of more than a few GB one wave follows another, each with actors of its own.

Records wait there too, for those before them: if one block takes long, the others stop when the store's share is full.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

from .cascade import Cascade
from .image_aesthetics_scorer import ImageAestheticsScorer
from .inputs.picture_input import PictureInput
from .ray_actor import BlockScorer, start_notes
from .ray_blocks import block_table

BLOCKS = (32, 1024)  # pictures in a block: few at first, so that all actors have some, then more, to have fewer blocks
BLOCK_BYTES = 32 << 20  # in a block, where bytes travel
WAVE_BYTES = 4 << 30  # in Ray's store at once: some thirty million places of pictures, or the bytes of fewer

Wave = dict[Any, int]  # references to blocks, and how many pictures each has

logger = logging.getLogger(__name__)


class RayScorer:
    """
    A scorer on a cluster of Ray: the one that `ray.init` connects to (its `RAY_ADDRESS`), else this machine.

    Args:
        scorer ([`ImageAestheticsScorer`]):
            Names the model; each actor loads it once. A folder must be there for all of them.
        local ([`ImageAestheticsPipeline`] or [`Cascade`]):
            The same scorer, loaded here: what it declares is asked, and its weights are dropped. A cascade counts what
            those in the actors have done.
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
        self.scorer, self.local = scorer, local
        for part in [local.fast, local.slow] if isinstance(local, Cascade) else [local]:
            part.model.to("meta")
        self.actors, self.resources = actors, {"num_cpus": num_cpus, "num_gpus": num_gpus}

    def score_inputs(
        self, inputs: Iterable[PictureInput], **options: Any
    ) -> Iterator[tuple[PictureInput, dict[str, Any]]]:
        """
        Score inputs on the cluster.

        Args:
            inputs (iterable of `PictureInput`): Those of a wave are listed before its first is scored.
            options: As in `score_inputs` of one machine; `num_workers` are those of each actor.

        Yields:
            `tuple[PictureInput, dict]`: each input, by its path alone, with its record, in order.

        Raises:
            ValueError: If the cluster has no room for an actor.
            RuntimeError: If it gives up.
        """
        ray = import_ray()
        with ray_running(ray):
            pool, notes, place = self._pool(ray), start_notes(ray), 0
            try:
                for wave in waves(inputs):
                    yield from self._records(self._blocks(ray, wave, pool, notes, options), place, sum(wave.values()))
                    place += sum(wave.values())
            except ray.exceptions.RayError as error:
                raise RuntimeError(f"Ray gave up: {str(error).strip().splitlines()[-1]}") from error
            finally:
                ray.kill(notes)

    def _blocks(self, ray: Any, wave: Wave, pool: Any, notes: Any, options: dict[str, Any]) -> Iterable[Any]:
        """What actors return for the blocks of a wave, in order."""
        data = ray.data.from_arrow_refs(list(wave)).map_batches(
            BlockScorer,
            fn_constructor_args=(self.scorer, max(1, int(self.resources["num_cpus"])), options, notes),
            batch_size=None,
            batch_format="pyarrow",
            compute=pool,
            **self.resources,
        )
        blocks: Iterable[Any] = data.iter_batches(batch_size=None, batch_format="pyarrow")
        return blocks

    def _records(self, blocks: Iterable[Any], place: int, count: int) -> Iterator[tuple[PictureInput, dict[str, Any]]]:
        """The records in blocks of a wave that begins at a place."""
        end = place + count
        for block in blocks:
            rows = block.to_pylist()
            if rows and rows[0]["place"] != place:
                break
            place += len(rows)
            for row in rows:
                if row["totals"] is not None:
                    self.local.add_totals(json.loads(row["totals"]))
                yield PictureInput(row["path"]), json.loads(row["record"])
        if place < end:
            raise RuntimeError(f"Ray returned no records from picture {place + 1} on")

    def _pool(self, ray: Any) -> Any:
        """How many actors there may be; for more than there is room for Ray waits, and says nothing."""
        fewest, most = self.actors
        room = self._room(ray)
        if most is not None and room < most:
            logger.warning(
                f"the cluster has room for {room} of up to {most} actors: the others start when it grows"
                if room
                else f"{self._lack(ray)}: waiting for it to grow"
            )
        elif not room:
            raise ValueError(f"{self._lack(ray)}: ask for less; if it grows, say how many actors")
        return ray.data.ActorPoolStrategy(min_size=fewest, max_size=most or max(fewest, room))

    def _room(self, ray: Any) -> int:
        """How many actors the cluster has room for."""
        there = ray.cluster_resources()
        wanted = {"CPU": self.resources["num_cpus"], "GPU": self.resources["num_gpus"]}
        return int(min(there.get(kind, 0.0) / count for kind, count in wanted.items() if count))

    def _lack(self, ray: Any) -> str:
        """Why there is no room for an actor."""
        there, (cpus, gpus) = ray.cluster_resources(), self.resources.values()
        return (
            f"an actor needs {cpus:g} CPUs and {gpus:g} GPUs, and the cluster has {there.get('CPU', 0):g} and "
            f"{there.get('GPU', 0):g}"
        )


def waves(inputs: Iterable[PictureInput]) -> Iterator[Wave]:
    """Blocks of inputs in Ray's store, as many at a time as it shall hold."""
    ray = import_ray()
    wave: Wave = {}
    held = 0
    for table in block_tables(inputs):
        wave[ray.put(table)] = table.num_rows
        held += table.nbytes
        if held >= WAVE_BYTES:
            yield wave
            wave, held = {}, 0
    if wave:
        yield wave


def block_tables(inputs: Iterable[PictureInput]) -> Iterator[Any]:
    """Inputs in blocks, as tables."""
    block: list[PictureInput] = []
    place = held = 0
    for item in inputs:
        block.append(item)
        held += len(item.content) if isinstance(item.content, bytes) else 0
        if len(block) >= min(max(BLOCKS[0], place // 256), BLOCKS[1]) or held >= BLOCK_BYTES:
            yield block_table(block, place)
            place += len(block)
            block, held = [], 0
    if block:
        yield block_table(block, place)


def import_ray() -> Any:
    """
    The module `ray`.

    Raises:
        ImportError: If it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to its makers unless told not to
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it warns of what is meant: actors that start anew
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
    bars, order = context.enable_progress_bars, context.execution_options.preserve_order
    context.enable_progress_bars = False  # there is one of our own
    context.execution_options.preserve_order = True
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars, context.execution_options.preserve_order = bars, order
        log.setLevel(level)
        if started:
            ray.shutdown()


__all__ = ["RayScorer"]
