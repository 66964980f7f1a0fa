"""Rows of rated pictures to training batches."""

import math

import pytest
import torch
from tiny import photo, shared_parts
from tiny_training import eat_parts

from roc4mllm.trainer.rating_collator import RatingCollator

ATTRIBUTES = ("aesthetics", "sharpness")


@pytest.fixture(scope="module")
def collator() -> RatingCollator:
    """Five levels from 1 to 5."""
    model, processor = shared_parts("llava", ATTRIBUTES)
    return RatingCollator(processor, model.config)


def test_ratings_are_laid_out_by_attribute_and_nan_where_unknown(collator):
    batch = collator(
        [
            {"image": photo(0), "scores": {"aesthetics": 2.0, "sharpness": 3.5}},
            {"image": photo(1), "score": 4.0},
            {"image": photo(2), "comment": "calm light", "scores": {"sharpness": math.nan}},
        ]
    )
    nan = math.nan
    torch.testing.assert_close(batch["scores"], torch.tensor([[2.0, 3.5], [4.0, nan], [nan, nan]]), equal_nan=True)
    assert "votes" not in batch
    supervised = (batch["labels"] != -100).sum(1)
    assert supervised[0] == supervised[1] < supervised[2]
    assert (batch["slot_attributes"] == torch.tensor([0, 1])).all()


def test_votes_stay_as_they_are_and_come_before_a_std(collator):
    votes = [1, 2, 0, 4, 0]
    batch = collator([{"image": photo(0), "scores": {"aesthetics": 3.0}, "votes": votes, "std": 1.0}])
    assert batch["votes"][0, 0].tolist() == votes
    assert batch["votes"][0, 1].isnan().all()


def test_a_std_becomes_a_gaussian_over_the_levels(collator):
    batch = collator([{"image": photo(0), "scores": {"sharpness": 3.4}, "stds": {"sharpness": 0.9}}])
    weights = [math.exp(-0.5 * ((level - 3.4) / 0.9) ** 2) for level in (1, 2, 3, 4, 5)]
    expected = torch.tensor([weight / sum(weights) for weight in weights])
    torch.testing.assert_close(batch["votes"][0, 1], expected)
    assert batch["votes"][0, 0].isnan().all()


@pytest.mark.parametrize("row", [{"std": 0.3, "score": 3.4}, {"std": 0.9}, {"score": 3.4}])
def test_without_a_std_that_levels_can_show_the_model_makes_its_own_stand_in(collator, row):
    assert "votes" not in collator([{"image": photo(0), "comment": "calm"} | row])


def test_a_row_may_ask_its_own_question(collator):
    ids = [
        collator([{"image": photo(0), "score": 3.0} | more])["input_ids"] for more in ({}, {"question": "How good?"})
    ]
    tokenizer = collator.processor.tokenizer
    assert collator.processor.question in tokenizer.decode(ids[0][0])
    assert "How good?" in tokenizer.decode(ids[1][0])


def test_a_picture_that_cannot_be_read_is_named_by_its_row(collator, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"ratings.csv, line 7: the picture cannot be read"):
        collator([{"image": str(tmp_path / "broken.jpg"), "score": 3.0, "where": "ratings.csv, line 7"}])


def test_a_loss_follows_from_every_kind_of_row(collator):
    """Each kind alone in its batch: the parts that it has no target for are 0, and no part is NaN."""
    model, _ = shared_parts("llava", ATTRIBUTES)
    kinds = {
        "score": {"score": 2.5},
        "votes": {"votes": [0, 1, 2, 3, 4]},
        "std": {"score": 2.5, "std": 1.2},
        "comment": {"comment": "calm light"},
    }
    for kind, row in kinds.items():
        output = model(**collator([{"image": photo(0)} | row]))
        parts = [output.text_loss, output.smooth_l1_loss, output.ce_loss, output.emd_loss]
        assert output.loss.isfinite()
        assert all(part > 0 for part in (parts[:1] if kind == "comment" else parts)), kind
        assert kind != "comment" or parts[1:] == [0, 0, 0]


class TestPicturesAlone:
    """Scorers without a language model have an image processor and read no text."""

    @pytest.fixture
    def without_text(self) -> RatingCollator:
        model, images = eat_parts(attributes=ATTRIBUTES)
        return RatingCollator(images, model.config)

    def test_the_batch_holds_pictures_and_targets_and_no_text(self, without_text, collator):
        rows = [
            {"image": photo(0), "scores": {"aesthetics": 2.0}, "comment": "calm", "question": "How good?"},
            {"image": photo(1, 30, 90), "scores": {"sharpness": 3.4}, "stds": {"sharpness": 0.9}},
            {"image": photo(2).convert("L"), "votes": [1, 2, 0, 4, 0]},
        ]
        batch = without_text(rows)
        assert set(batch) == {"pixel_values", "scores", "votes"}
        assert batch["pixel_values"].shape == (3, 3, 48, 48)
        with_text = collator(rows)
        for name in ("scores", "votes"):
            torch.testing.assert_close(batch[name], with_text[name], equal_nan=True)
        assert without_text.length(rows[0]) == without_text.length(rows[1])

    def test_a_head_of_one_value_gets_scores_alone(self):
        model, images = eat_parts(num_levels=1)
        row = {"image": photo(0), "scores": {"aesthetics": 2.0}, "votes": {"aesthetics": [1, 2]}, "stds": 1.0}
        batch = RatingCollator(images, model.config)([row])
        assert set(batch) == {"pixel_values", "scores"}
        assert model.train()(**batch).loss > 0

    def test_votes_of_two_lengths_are_refused(self, without_text):
        with pytest.raises(ValueError, match=r"one length, got \[3, 5\]"):
            without_text([{"image": photo(0), "votes": [1, 2, 3]}, {"image": photo(1), "votes": [1, 2, 3, 4, 5]}])


def test_rows_of_pictures_alone_have_no_targets(collator):
    batch = collator([{"image": photo(0)}, {"image": photo(1), "question": "How good?"}])
    assert not {"labels", "scores", "votes"} & set(batch)
    assert {"input_ids", "slot_attributes"} <= set(batch)
