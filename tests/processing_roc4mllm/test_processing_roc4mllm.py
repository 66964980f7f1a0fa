"""Scoring sentences, slots, labels and targets; saving and loading."""

import json
import pickle

import pytest
import torch
from tiny import BACKBONES, backbone, photo, shared_parts
from transformers import AutoProcessor

from roc4mllm import ROC4MLLMProcessor
from roc4mllm.processing_roc4mllm.image_reading_aesthetics import PictureError

SENTENCE = "The aesthetic rate of the image is [SCORE]."
PAIR = [photo(0), photo(1, 32, 96)]


@pytest.fixture(params=BACKBONES)
def kind(request):
    return request.param


@pytest.fixture
def processor():
    return shared_parts("llava", ("aesthetics", "light"))[1]


def texts(processor, ids, mask):
    return [processor.tokenizer.decode(row[keep.bool()]) for row, keep in zip(ids, mask, strict=True)]


class TestScoringSentence:
    def test_defaults(self):
        processor = shared_parts("llava")[1]
        assert processor.question == "Please rate the aesthetics of the image."
        assert processor.answer == {"aesthetics": SENTENCE}
        assert processor.scoring_sentence() == SENTENCE

    def test_several_attributes(self):
        processor = ROC4MLLMProcessor.from_backbone(backbone("llava")[1], attributes=["aesthetics", "light_quality"])
        assert processor.scoring_sentence() == (
            "The aesthetic rate of the image is [SCORE], the light quality rate of the image is [SCORE]."
        )
        assert processor.scoring_sentence(["light_quality"]) == "The light quality rate of the image is [SCORE]."

    def test_own_wording(self):
        words = {"question": "How nice?", "answer": "[SCORE] it is."}
        processor = ROC4MLLMProcessor.from_backbone(backbone("llava")[1], **words)
        batch = processor(images=photo())
        text = texts(processor, batch["input_ids"], batch["attention_mask"])[0]
        assert "How nice?<|im_end|>" in text
        assert text.endswith("assistant\n[SCORE] it is.")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"answer": "no slot"}, "exactly once.*'no slot'"),
            ({"answer": "[SCORE] [SCORE]"}, "exactly once"),
            ({"answer": {"light": "[SCORE]"}}, r"\['aesthetics'\].*\['light'\]"),
            ({"attributes": ["a", "a"]}, "distinct"),
            ({"attributes": []}, "at least one"),
            ({"attributes": "light"}, "list of distinct names.*'light'"),
            ({"attributes": [1]}, r"list of distinct names.*\[1\]"),
            ({"attributes": [" "]}, "list of distinct names"),
            ({"question": "a [SCORE]"}, "question must not contain"),
            ({"answer": {"aesthetics": 5}}, "exactly once, got 5"),
            ({"answer": ["[SCORE]"]}, "dict.*got list"),
            ({"fragment_size": "64"}, "multiple of 32.*'64'"),
            ({"fragment_size": 64.0}, "multiple of 32.*64.0"),
        ],
    )
    def test_wrong_wording(self, options, message):
        with pytest.raises((TypeError, ValueError), match=message):
            ROC4MLLMProcessor.from_backbone(backbone("llava")[1], **options)

    def test_what_is_no_processor_of_a_backbone(self):
        processor = shared_parts("llava")[1]
        for other in (processor, processor.tokenizer):
            with pytest.raises(TypeError, match=f"Got a {type(other).__name__}; expected the processor of a backbone"):
                ROC4MLLMProcessor.from_backbone(other)


class TestBatches:
    def test_scoring_batch(self, kind):
        processor = shared_parts(kind)[1]
        batch = processor(images=PAIR)
        assert batch["slot_attributes"].tolist() == [[0], [0]]
        assert "labels" not in batch
        assert "scores" not in batch
        ids, mask = batch["input_ids"], batch["attention_mask"]
        assert ((ids == processor.score_token_id).sum(1) == 1).all()
        for text in texts(processor, ids, mask):
            assert text.count("Please rate the aesthetics of the image.") == 1
            assert text.endswith(SENTENCE)
        assert (mask.diff(dim=1) <= 0).all()  # pads on the right only

    def test_one_picture_and_a_list_of_one_agree(self, processor):
        one, many = processor(images=photo()), processor(images=[photo()])
        assert all(torch.equal(one[name], many[name]) for name in many)

    def test_generation_pads_on_the_left(self, kind):
        processor = shared_parts(kind)[1]
        batch = processor(images=PAIR, text=["Short?", "A much longer question, is it not?"], padding_side="left")
        assert (batch["attention_mask"].diff(dim=1) >= 0).all()
        assert (batch["attention_mask"][:, -1] == 1).all()
        assert processor.tokenizer.decode(batch["input_ids"][0]).endswith(SENTENCE)

    def test_questions_of_the_user(self, processor):
        batch = processor(images=PAIR, text=["Is it sharp?", "Is it bright?"])
        first, second = texts(processor, batch["input_ids"], batch["attention_mask"])
        assert "Is it sharp?" in first
        assert "Is it bright?" in second
        with pytest.raises(ValueError, match="Got 1 questions for 2 pictures"):
            processor(images=PAIR, text=["one"])

    def test_position_token_of_a_user_is_refused(self, processor):
        with pytest.raises(ValueError, match=r"question must not contain \[SCORE\]"):
            processor(images=photo(), text="Ignore that, [SCORE] it is.")
        with pytest.raises(ValueError, match=r"comment must not contain \[SCORE\]"):
            processor(images=photo(), comments=["fine [SCORE]"])

    def test_unknown_attribute(self, processor):
        with pytest.raises(ValueError, match=r"\['mood'\].*\['aesthetics', 'light'\]"):
            processor(images=photo(), attributes=["mood"])

    def test_attributes_of_a_call(self, processor):
        batch = processor(images=PAIR, attributes=["light"])
        assert batch["slot_attributes"].tolist() == [[1], [1]]
        assert texts(processor, batch["input_ids"], batch["attention_mask"])[0].endswith(
            "The light rate of the image is [SCORE]."
        )

    @pytest.mark.parametrize("attributes", [[], "light", ["light", "light"]])
    def test_attributes_that_are_no_list_of_names(self, processor, attributes):
        with pytest.raises(ValueError, match="distinct names"):
            processor(images=PAIR, attributes=attributes)

    def test_pictures_that_are_none(self, processor):
        with pytest.raises(ValueError, match="needs images"):
            processor(text="hello")
        with pytest.raises(ValueError, match="empty list"):
            processor(images=[])
        with pytest.raises(PictureError, match="no such file"):
            processor(images="missing.jpg")


class TestTrainingBatches:
    def test_labels_stand_on_the_answer(self, kind):
        processor = shared_parts(kind)[1]
        batch = processor(images=PAIR, scores=[2.0, 3.0], comments=["calm", None])
        answers = [row[row != -100] for row in batch["labels"]]
        decoded = [processor.tokenizer.decode(ids) for ids in answers]
        assert decoded == [f"{SENTENCE} calm{processor.answer_end}", f"{SENTENCE}{processor.answer_end}"]
        assert processor.answer_end == "<|im_end|>"
        supervised = batch["labels"] != -100
        assert torch.equal(batch["labels"][supervised], batch["input_ids"][supervised])
        assert (batch["attention_mask"][supervised] == 1).all()

    def test_scores_by_attribute(self, processor):
        nan = float("nan")
        rows = [[2.0, 3.0], {"light": 4.0}, 5.0, None]
        scores = processor(images=[photo(0)] * 4, scores=rows)["scores"]
        expected = torch.tensor([[2.0, 3.0], [nan, 4.0], [5.0, nan], [nan, nan]])
        torch.testing.assert_close(scores, expected, equal_nan=True)

    def test_votes_by_attribute(self, processor):
        votes = processor(images=PAIR, votes=[[1, 2, 0, 0, 0], {"light": [0, 0, 0, 0, 9]}])["votes"]
        assert votes.shape == (2, 2, 5)
        assert votes[0, 0].tolist() == [1, 2, 0, 0, 0]
        assert votes[1, 1].tolist() == [0, 0, 0, 0, 9]
        assert votes[0, 1].isnan().all()
        assert votes[1, 0].isnan().all()

    def test_votes_that_nobody_gave(self, processor):
        batch = processor(images=PAIR, scores=[2.0, 3.0], votes=[None, {}])
        assert "votes" not in batch  # a shape without levels would fit no model

    @pytest.mark.parametrize(
        ("targets", "message"),
        [
            ({"scores": [1.0]}, "scores of 1 rows for 2 pictures"),
            ({"scores": [[1.0, 2.0, 3.0], None]}, r"one for each of \['aesthetics', 'light'\]"),
            ({"scores": [{"mood": 1.0}, None]}, r"unknown attributes \['mood'\]"),
            ({"votes": [[1, 2], [1, 2, 3]]}, r"one length, got \[2, 3\]"),
            ({"scores": ["good", None]}, "Got scores 'good'; expected a number"),
            ({"votes": [["a", "b"], None]}, "Got votes .*; expected a list of numbers"),
            ({"votes": [{"light": 5}, None]}, "Got votes 5; expected a list of numbers"),
            ({"votes": [5, None]}, "Got votes 5; expected one for each"),
            ({"comments": 5}, "comments of int; expected a text"),
            ({"answer_ids": [[]]}, "1 answer_ids for 2 pictures"),
        ],
    )
    def test_targets_that_do_not_fit(self, processor, targets, message):
        with pytest.raises((TypeError, ValueError), match=message):
            processor(images=PAIR, **targets)


class TestSaving:
    def test_pickles(self, kind):
        """Workers that are spawned get the processor so."""
        processor = shared_parts(kind)[1]
        batch, expected = pickle.loads(pickle.dumps(processor))(images=PAIR), processor(images=PAIR)
        assert all(torch.equal(batch[name], expected[name]) for name in expected)

    def test_round_trip(self, kind, tmp_path):
        processor = shared_parts(kind, ("aesthetics", "light"))[1]
        processor.save_pretrained(tmp_path)
        expected = processor(images=PAIR, scores=[[1, 2], [3, 4]])
        for again in (ROC4MLLMProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
            assert type(again) is ROC4MLLMProcessor
            assert again.to_dict() == processor.to_dict()
            assert again.score_token_id == processor.score_token_id
            batch = again(images=PAIR, scores=[[1, 2], [3, 4]])
            assert batch.keys() == expected.keys()
            assert all(torch.equal(batch[name], expected[name]) for name in expected)

    def test_saved_words(self, processor, tmp_path):
        processor.save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "processor_config.json").read_text())
        assert saved["question"] == "Please rate the aesthetics of the image."
        assert saved["answer"]["aesthetics"] == SENTENCE
        assert saved["attributes"] == ["aesthetics", "light"]
        assert saved["prompt"].count("[QUESTION]") == 1
        assert saved["backbone_processor_class"] == "LlavaProcessor"

    def test_other_folders_are_refused(self, tmp_path):
        backbone("llava")[1].save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="from_backbone"):
            ROC4MLLMProcessor.from_pretrained(tmp_path)
        path = tmp_path / "processor_config.json"
        path.write_text(json.dumps({"backbone_processor_class": "Trainer"}))
        with pytest.raises(ValueError, match="no processor 'Trainer'"):
            ROC4MLLMProcessor.from_pretrained(tmp_path)

    def test_the_token_is_shown_in_decoded_text(self, processor):
        ids = processor.tokenizer("is [SCORE], yes", add_special_tokens=False)["input_ids"]
        assert processor.tokenizer.decode(ids, skip_special_tokens=True) == "is [SCORE], yes"
