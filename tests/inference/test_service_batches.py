"""Joining single pictures to batches, and the two stages that do so for many requests."""

import threading

import pytest
import torch
from pictures import bomb, encoded, half
from running_service import Gate
from tiny import BACKBONES, photo, shared_parts
from tiny_image_scorers import eat_scorer

from roc4mllm import load_scorer
from roc4mllm.inference.service.prepared_pictures import join, kind_of
from roc4mllm.inference.service.request_batcher import QueueFullError, RequestBatcher

SHAPES = [(64, 48), (64, 48), (40, 90), (150, 60)]
PICTURES = [photo(seed, *shape) for seed, shape in enumerate(SHAPES)]
FILES = [encoded(picture, "PNG") for picture in PICTURES]


def scorer_of(kind: str = "llava", attributes=("aesthetics",)):
    model, processor = shared_parts(kind, attributes)
    return load_scorer(model, processor=processor)


def batcher_of(scorer, **options):
    return RequestBatcher(scorer, **{"max_batch": 4, "queue_size": 16, "max_pixels": 10**6} | options)


@pytest.fixture
def gate():
    return Gate(scorer_of(attributes=("aesthetics", "light")))


@pytest.fixture
def batcher(gate):
    batcher = batcher_of(gate.scorer)
    batcher.start()
    yield batcher
    batcher.close()


# Joining -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*BACKBONES, "eat"])
def test_joined_singles_are_scored_as_a_batch_of_the_pipeline(kind):
    scorer = eat_scorer() if kind == "eat" else scorer_of(kind)
    preparation = scorer.preparation()
    singles = [preparation([picture]).inputs for picture in PICTURES]
    groups = {}
    for index, inputs in enumerate(singles):
        groups.setdefault(kind_of(inputs), []).append(index)
    assert next(iter(groups.values()))[:2] == [0, 1], "two pictures of one shape can always be joined"
    scores = torch.zeros(len(PICTURES))
    for indices in groups.values():
        rows = scorer.forward(join([singles[index] for index in indices], pad_token_id=3))
        scores[indices] = torch.stack([row["scores"][0] for row in rows])
    expected = scorer.score(PICTURES, batch_size=len(PICTURES))
    assert (expected[0] - expected[1]).abs() > 1e-3
    assert torch.allclose(scores, expected, atol=5e-5)


def test_texts_of_different_lengths_are_joined():
    preparation = scorer_of("qwen2_vl").preparation()
    singles = [preparation([picture]).inputs for picture in PICTURES]
    assert len({inputs["input_ids"].shape[1] for inputs in singles}) > 1
    assert len(set(map(kind_of, singles))) == 1


def test_inputs_that_are_no_tensors_are_joined_with_nothing():
    first, second = ({"pixel_values": torch.ones(1, 3), "sizes": [1]} for _ in range(2))
    assert kind_of(first) != kind_of(second)


# Two stages ----------------------------------------------------------------------------------------------------------


def test_records_are_those_of_the_direct_call(batcher):
    direct = batcher.scorer(FILES)
    assert abs(direct[0]["score"] - direct[1]["score"]) > 1e-3
    for record, expected in zip([future.result(10) for future in batcher.submit(FILES)], direct, strict=True):
        assert record["score"] == pytest.approx(expected["score"], abs=5e-5)
        assert record["attributes"] == pytest.approx(expected["attributes"], abs=5e-5)
        assert {**record, **dict.fromkeys(NUMBERS)} == {**expected, **dict.fromkeys(NUMBERS)}


NUMBERS = ("score", "normalized", "std", "distribution", "attributes")


def test_requests_for_different_attributes_stand_in_one_batch(batcher, gate):
    wanted = [["light"], ["aesthetics"], ["light"]]
    expected = [batcher.scorer(FILES[0], attributes=names)["score"] for names in wanted]
    assert abs(expected[0] - expected[1]) > 1e-3
    with gate.shut():
        futures = [batcher.submit(FILES[2:3])]
        wait_until(lambda: gate.sizes)
        futures += [batcher.submit(FILES[:1], names) for names in wanted]
        wait_until(lambda: len(batcher._prepared) == 3)
    records = [future.result(10) for (future,) in futures][1:]
    assert [record["score"] for record in records] == pytest.approx(expected, abs=5e-5)
    assert [list(record["attributes"]) for record in records] == wanted
    assert gate.sizes == [1, 3]


def test_a_batch_is_what_has_queued_when_the_model_becomes_free(batcher, gate):
    with gate.shut():
        futures = batcher.submit(FILES[:1])
        wait_until(lambda: gate.sizes == [1])  # the model took the first one at once, and did not wait for others
        for _ in range(7):
            futures += batcher.submit(FILES[:1])
        wait_until(lambda: len(batcher._prepared) == 7)
        assert len(batcher) == 8
    assert all(future.result(10)["error"] is None for future in futures)
    assert gate.sizes == [1, 4, 3]
    assert len(batcher) == 0


def test_broken_pictures_never_reach_the_model_or_their_neighbours(batcher, gate):
    files = [FILES[0], half(FILES[1]), b"no picture", b"", bomb(1001, 1000), FILES[1]]
    records = [future.result(10) for future in batcher.submit(files)]
    assert [record["error"] is None for record in records] == [True, False, False, False, False, True]
    assert [record["score"] is None for record in records] == [False, True, True, True, True, False]
    assert "too many pixels: 1001 x 1000, at most 1000000" in records[4]["error"]
    assert sum(gate.sizes) == 2


def test_a_batch_that_fails_is_halved_until_one_is_left(batcher, gate):
    forward = gate._forward

    def no_memory_for_two(batch, **options):
        if len(batch.sources) > 1:
            raise RuntimeError("out of memory")
        return forward(batch, **options)

    gate._forward = no_memory_for_two
    with gate.shut():
        futures = batcher.submit(FILES)
    scores = [future.result(10)["score"] for future in futures]
    assert scores == pytest.approx(batcher.scorer.score(FILES).tolist(), abs=5e-5)


@pytest.mark.parametrize("error", [IndexError, ZeroDivisionError, RuntimeError])
def test_a_picture_that_the_model_fails_on_costs_no_other_its_score(batcher, gate, error):
    forward = gate._forward

    def fail_on_several(batch, **options):
        if len(batch.inputs["pixel_values"]) > 1:
            raise error("too many")
        return forward(batch, **options)

    with gate.shut():
        futures = batcher.submit(FILES[:4])
        gate._forward = fail_on_several
    assert [future.result(10)["error"] for future in futures] == [None] * 4
    gate._forward = forward


def test_a_mistake_in_the_code_is_an_error_per_picture_and_the_thread_goes_on(batcher, gate):
    forward, gate._forward = gate._forward, lambda batch, **options: None.scores
    (future,) = batcher.submit(FILES[:1])
    with pytest.raises(RuntimeError, match="has no attribute 'scores'"):
        future.result(10)
    gate._forward = forward
    (future,) = batcher.submit(FILES[:1])
    assert future.result(10)["error"] is None
    assert batcher.alive


def test_a_full_queue_takes_all_of_a_request_or_nothing(batcher, gate):
    with gate.shut():
        futures = [future for _ in range(3) for future in batcher.submit(FILES)]
        futures += batcher.submit(FILES[:3])
        with pytest.raises(QueueFullError) as refusal:
            batcher.submit(FILES[:2])
        assert refusal.value.retry_after >= 1
        futures += batcher.submit(FILES[:1])
        assert len(batcher) == 16
    assert all(future.result(10)["error"] is None for future in futures)


def test_what_is_dropped_leaves_the_queue_and_is_not_scored(batcher, gate):
    with gate.shut():
        first = batcher.submit(FILES[:1])
        wait_until(lambda: gate.sizes == [1])
        dropped = [future for _ in range(3) for future in batcher.submit(FILES)]
        batcher.drop(dropped)
        wait_until(lambda: len(batcher) == 1)
        last = batcher.submit(FILES[1:2])
    assert all(future.result(10)["error"] is None for future in (*first, *last))
    assert all(future.cancelled() for future in dropped)
    assert gate.sizes == [1, 1]


class OfOneThread:
    """An image processor that refuses a second thread."""

    def __init__(self, processor):
        self.processor, self.threads = processor, set()

    def __call__(self, **options):
        self.threads.add(threading.get_ident())
        if len(self.threads) > 1:
            raise RuntimeError("two threads use one processor")
        return self.processor(**options)


def test_each_thread_that_prepares_has_a_processor_of_its_own():
    scorer = eat_scorer()
    expected = scorer.score(FILES).tolist()
    scorer.image_processor = OfOneThread(scorer.image_processor)
    batcher = batcher_of(scorer, num_preparers=4, queue_size=64)
    batcher.start()
    records = [future.result(20) for _ in range(16) for future in batcher.submit(FILES)]
    batcher.close()
    assert [record["error"] for record in records] == [None] * 64
    assert [record["score"] for record in records] == pytest.approx(expected * 16, abs=5e-5)


def test_closing_finishes_what_was_taken(gate):
    batcher = batcher_of(gate.scorer)
    batcher.start()
    with gate.shut():
        futures = batcher.submit(FILES)
        closing = threading.Thread(target=batcher.close)
        closing.start()
    closing.join(10)
    assert not closing.is_alive()
    assert not batcher.alive
    assert all(future.result(0)["error"] is None for future in futures)


def wait_until(condition):
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen within 10 seconds")
