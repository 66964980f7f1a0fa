"""Records come in the order of the inputs, whoever reads the pictures."""

import os

import pytest
from tiny import photo, shared_parts

from roc4mllm import load_scorer
from roc4mllm.inference.bulk_scoring import score_inputs
from roc4mllm.inference.inputs.picture_input import PictureInput


def test_records_come_in_the_order_of_the_inputs_and_pictures_are_read_when_their_turn_comes(tmp_path):
    model, processor = shared_parts("llava")
    scorer = load_scorer(model, processor=processor)
    first, second = str(tmp_path / "first.png"), str(tmp_path / "second.png")
    photo(1).save(first)
    inputs = [PictureInput("x", "gone"), PictureInput(first), PictureInput("y", "empty"), PictureInput(second)]
    records = (record for _, record in score_inputs(scorer, inputs, batch_size=1))
    start = [next(records), next(records)]
    photo(2).save(second)  # not there before: an eager reader would report it missing
    found = [*start, *records]
    assert [record["error"] for record in found] == ["gone", None, "empty", None]
    assert [found[1]["score"], found[3]["score"]] == [scorer(first)["score"], scorer(second)["score"]]
    assert abs(found[1]["score"] - found[3]["score"]) > 1e-3
    assert found[0].keys() == found[1].keys()
    assert found[0]["score_range"] == found[1]["score_range"]


def test_several_workers_give_the_same_records_in_the_same_order(tmp_path):
    model, processor = shared_parts("llava")
    scorer = load_scorer(model, processor=processor)
    names = [str(tmp_path / f"{number}.png") for number in range(5)]
    for number, name in enumerate(names):
        photo(number).save(name)
    inputs = [PictureInput(name) for name in [*names, str(tmp_path / "missing.png")]]
    alone = [record["score"] for _, record in score_inputs(scorer, inputs, batch_size=2, num_workers=0)]
    shared_out = [record["score"] for _, record in score_inputs(scorer, inputs, batch_size=2, num_workers=2)]
    assert shared_out == pytest.approx(alone, abs=1e-5)  # batches differ: pictures of one size stand together
    assert len(set(alone)) == 6


class Deadly:
    """A picture that ends the process which reads it, unless that is the one of the tests."""

    def __init__(self):
        self.owner = os.getpid()

    def read_bytes(self) -> bytes:
        if os.getpid() != self.owner:
            os._exit(11)
        raise AssertionError("read in the process that scores")


@pytest.mark.parametrize("batch_size", [1, 2])  # of one, torch's signal would be taken for the picture's error
def test_a_picture_that_kills_its_reader_is_a_row_and_the_others_go_on(tmp_path, batch_size):
    model, processor = shared_parts("llava")
    scorer = load_scorer(model, processor=processor)
    inputs = []
    for number in range(12):
        photo(number).save(tmp_path / f"{number}.png")
        inputs.append(PictureInput(str(tmp_path / f"{number}.png")))
    inputs.insert(5, PictureInput("deadly", content=Deadly()))
    found = list(score_inputs(scorer, iter(inputs), batch_size=batch_size, num_workers=2))
    assert [item.path for item, _ in found] == [item.path for item in inputs]
    errors = {item.path: record["error"] for item, record in found if record["error"] is not None}
    assert errors == {"deadly": "cannot be read: the process that read it was killed"}
    assert found[5][1]["score"] is None
    expected = scorer([item.path for item in inputs if item.path != "deadly"])
    scores = [record["score"] for _, record in found if record["score"] is not None]
    assert scores == pytest.approx([record["score"] for record in expected], abs=1e-5)
    assert max(scores) - min(scores) > 1e-3


def test_where_every_reader_is_killed_the_run_breaks_off():
    model, processor = shared_parts("llava")
    scorer = load_scorer(model, processor=processor)
    inputs = [PictureInput(str(number), content=Deadly()) for number in range(60)]
    found = score_inputs(scorer, iter(inputs), batch_size=2, num_workers=2)
    rows = []
    with pytest.raises(RuntimeError, match="20 processes that read were killed one after the other"):
        rows.extend(found)
    assert len(rows) < 20
