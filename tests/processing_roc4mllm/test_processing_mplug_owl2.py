"""
Pixels and ids of mPLUG-Owl2 as the authors' code made them, and its processor inside ROC4MLLM's.

The ids were recorded with the authors' tokenizer, the slow one of transformers 4.31.0 (sentencepiece 0.2.3), from the
model that `tokenizer_model` writes: each piece between two `<|image|>` by itself, without the BOS of later pieces.
"""

import json
import re

import numpy as np
import pytest
import torch
from checkpoint_files import PROMPT, SENTENCE, SYSTEM, pieces, tokenizer_model, write_tokenizer
from PIL import Image
from tiny import photo
from transformers import AutoImageProcessor, AutoProcessor
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from roc4mllm import ROC4MLLMProcessor
from roc4mllm.hub.original_tokenizer import original_processor
from roc4mllm.processing_roc4mllm import image_processing_mplug_owl2
from roc4mllm.processing_roc4mllm.image_processing_mplug_owl2 import MPLUGOwl2ImageProcessor
from roc4mllm.processing_roc4mllm.processing_mplug_owl2 import MPLUGOwl2Processor

IMAGE_TOKENS = 3  # per picture

# What the authors' tokenizer gives, a picture as one token; `legacy` says what follows an added or special token.
START = (
    "<s> ▁A ▁chat ▁between ▁a ▁curious ▁user ▁and ▁an ▁artificial ▁intelligence ▁assistant . ▁The ▁assistant ▁gives "
    "▁helpful , ▁detailed , ▁and ▁polite ▁answers ▁to ▁the ▁user ' s ▁questions . ▁USER :"
)
QUESTION = "▁ <|image|> ▁ <0x0A> Please ▁rate ▁the ▁aesthetics ▁of ▁the ▁image . ▁ASSISTANT :"
ANSWER = "▁The ▁aesthetic ▁rate ▁of ▁the ▁image ▁is [SCORE]"
RECORDED = {
    PROMPT: f"{START} {QUESTION}",
    "<|image|><|image|>\nPlease rate": "<s> <|image|> <|image|> ▁ <0x0A> Please ▁rate",
    "the <|image|> and <|image|> of": "<s> ▁the ▁ <|image|> ▁▁ a n d ▁ <|image|> ▁▁ o f",
    "<|image|>  and  the ": "<s> <|image|> ▁▁ ▁and ▁▁ t h e ▁",
    "<|image|> <|image|>": "<s> <|image|> ▁▁ <|image|>",
    "<|image|>": "<s> <|image|>",
    "": "<s>",
    " the": "<s> ▁▁ t h e",
    "▁the": "<s> ▁▁ t h e",
    "日the": "<s> ▁ <0xE6> <0x97> <0xA5> t h e",
    "\n\nthe\t日 é": "<s> ▁ <0x0A> <0x0A> t h e <0x09> <0xE6> <0x97> <0xA5> ▁ <0xC3> <0xA9>",
}
RECORDED_LEGACY = RECORDED | {
    f"{PROMPT} {SENTENCE}</s>": f"{START} {QUESTION} {ANSWER} ▁ . </s>",
    f"{SYSTEM} USER: the image ASSISTANT: the aesthetics</s>USER: <|image|>\nthe rate ASSISTANT:": (
        f"{START} ▁the ▁image ▁ASSISTANT : ▁the ▁aesthetics </s> ▁USER : ▁ <|image|> ▁ <0x0A> t h e ▁rate ▁ASSISTANT :"
    ),
    "the image is [SCORE] , the [SCORE]the": "<s> ▁the ▁image ▁is [SCORE] ▁ , ▁the [SCORE] ▁the",
    "<|image|>[SCORE] is": "<s> <|image|> [SCORE] ▁is",
}
RECORDED_NEW = RECORDED | {
    f"{PROMPT} {SENTENCE}</s>": f"{START} {QUESTION} {ANSWER} . </s>",
    f"{SYSTEM} USER: the image ASSISTANT: the aesthetics</s>USER: <|image|>\nthe rate ASSISTANT:": (
        f"{START} ▁the ▁image ▁ASSISTANT : ▁the ▁aesthetics </s> USER : ▁ <|image|> ▁ <0x0A> t h e ▁rate ▁ASSISTANT :"
    ),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("original"))


@pytest.fixture
def processor(original):
    return original_processor(original, num_image_tokens=IMAGE_TOKENS)


def tokens(processor, ids) -> str:
    """Tokens of a row with the image tokens of a picture as one."""
    text = " ".join(processor.tokenizer.convert_ids_to_tokens(ids))
    return text.replace(" ".join(["<|image|>"] * IMAGE_TOKENS), "<|image|>")


def pictures_of(text: str) -> list:
    return [photo(seed) for seed in range(text.count("<|image|>"))]


# Pixels -------------------------------------------------------------------------------------------------------------


def reference(image: Image.Image, side: int = 448, mean=None, std=None, resample=Image.Resampling.BICUBIC):
    """The authors' preparation, step by step."""
    mean = mean or (0.48145466, 0.4578275, 0.40821073)
    std = std or (0.26862954, 0.26130258, 0.27577711)
    longest = max(image.size)
    square = Image.new("RGB", (longest, longest), tuple(int(value * 255) for value in mean))
    square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    pixels = (np.asarray(square.resize((side, side), resample)) * (1 / 255)).astype(np.float32)  # (H, W, 3)
    return ((pixels - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.RandomState(width).randint(0, 256, (height, width, 3), dtype=np.uint8))


def prepared(image, **options) -> np.ndarray:
    return MPLUGOwl2ImageProcessor(**options)(image, return_tensors="np")["pixel_values"][0]


class TestPixels:
    def test_facts_of_the_authors(self, shared):
        facts = json.loads((shared / "fixtures/roc4mllm/prompt.json").read_text())["pixels"]
        options = MPLUGOwl2ImageProcessor().to_dict()
        assert options["size"] == {"height": facts["resize"], "width": facts["resize"]}
        assert (options["image_mean"], options["image_std"]) == (tuple(facts["mean"]), tuple(facts["std"]))
        assert options["rescale_factor"] == 1 / 255

    @pytest.mark.parametrize(
        ("width", "height"),
        [(640, 480), (301, 777), (448, 448), (448, 100), (31, 448), (50, 21), (1, 1), (1, 700), (1999, 1), (3, 1200)],
    )
    def test_equal_to_the_authors(self, monkeypatch, width, height):
        monkeypatch.setattr(image_processing_mplug_owl2, "STRIP_PIXELS", 5000)
        image = noise(width, height)
        assert np.array_equal(prepared(image), reference(image))

    def test_pictures_differ(self):
        assert np.abs(prepared(photo(0)) - prepared(photo(1))).max() > 0.1

    @pytest.mark.parametrize("resample", Image.Resampling)
    def test_every_filter(self, resample):
        image = noise(97, 60)
        assert np.array_equal(prepared(image, resample=resample), reference(image, resample=resample))

    def test_own_size_mean_and_std(self):
        image = noise(60, 97)
        mean, std = (0.1, 0.999, 0.5), (0.5, 0.25, 1.0)
        options = {"size": {"height": 28, "width": 28}, "image_mean": mean, "image_std": std}
        assert np.array_equal(prepared(image, **options), reference(image, 28, mean, std))

    def test_steps_left_out(self):
        image = noise(40, 20)
        assert prepared(image, do_resize=False).shape == (3, 40, 40)
        assert prepared(image, do_resize=False, do_pad=False).shape == (3, 20, 40)
        plain = {"do_rescale": False, "do_normalize": False}
        stretched = prepared(image, do_pad=False, **plain)
        assert np.array_equal(stretched.transpose(1, 2, 0), np.asarray(image.resize((448, 448), Image.BICUBIC)))
        square = prepared(image, do_resize=False, **plain)
        assert np.array_equal(square[:, 10:30].transpose(1, 2, 0), np.asarray(image))
        assert (square[:, :10] == np.array([122, 116, 104])[:, None, None]).all()  # int(255 * mean)

    def test_no_picture_larger_than_needed_is_made(self, monkeypatch):
        made, new = [], Image.new
        monkeypatch.setattr(Image, "new", lambda mode, size, *colour: made.append(size) or new(mode, size, *colour))
        monkeypatch.setattr(image_processing_mplug_owl2, "STRIP_PIXELS", 100_000)
        for image in (noise(20_000, 12), noise(12, 20_000)):
            prepared(image, size={"height": 28, "width": 28})
        assert max(width * height for width, height in made) < 600_000  # the square has 400 million pixels

    @pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LA", "RGBA", "YCbCr"])
    def test_every_mode(self, mode):
        image = noise(30, 20).convert(mode)
        assert np.array_equal(prepared(image), reference(image.convert("RGB")))

    def test_greys_of_more_than_eight_bits(self):
        grey = np.asarray(noise(30, 20).convert("L"))
        for image in (Image.fromarray(grey.astype(np.uint16) * 257), Image.fromarray(grey.astype(np.float32) / 255)):
            assert image.mode in ("I;16", "F")
            assert np.array_equal(prepared(image), reference(Image.fromarray(grey).convert("RGB")))

    def test_transparent_parts_are_white(self):
        image = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
        assert np.array_equal(prepared(image), reference(Image.new("RGB", (8, 8), "white")))

    def test_arrays_and_tensors(self):
        image = noise(30, 20)
        array, expected = np.asarray(image), prepared(image)
        for picture in (array, array.transpose(2, 0, 1), array / 255, torch.tensor(array).permute(2, 0, 1)):
            assert np.array_equal(prepared(picture), expected)

    def test_size_that_is_none(self):
        with pytest.raises(ValueError, match="size must hold a height and a width.*shortest_edge"):
            prepared(photo(), size={"shortest_edge": 28})

    def test_round_trip(self, tmp_path):
        images = MPLUGOwl2ImageProcessor(size={"height": 56, "width": 56}, image_mean=[0.1, 0.2, 0.3], do_pad=False)
        images.save_pretrained(tmp_path)
        again = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
        assert type(again) is MPLUGOwl2ImageProcessor
        assert again.to_dict() == images.to_dict()


# Text ---------------------------------------------------------------------------------------------------------------


class TestTokens:
    @pytest.mark.parametrize("text", RECORDED_LEGACY)
    def test_equal_to_the_authors(self, processor, text):
        ids = processor(images=pictures_of(text), text=text)["input_ids"][0]
        assert tokens(processor, ids) == RECORDED_LEGACY[text]

    def test_equal_to_the_authors_with_the_other_setting(self, tmp_path):
        processor = original_processor(write_tokenizer(tmp_path, legacy=False), IMAGE_TOKENS)
        for text, expected in RECORDED_NEW.items():
            assert tokens(processor, processor(images=pictures_of(text), text=text)["input_ids"][0]) == expected

    def test_ids(self, processor):
        count = len(pieces())
        assert processor.tokenizer.convert_tokens_to_ids("[SCORE]") == count
        assert processor.image_token_id == count + 1
        assert len(processor.tokenizer) == count + 2  # no level tokens
        assert processor.tokenizer.pad_token == "<unk>"
        assert processor(images=photo(), text="<|image|>")["input_ids"][0] == [1] + [count + 1] * IMAGE_TOKENS

    def test_image_token_of_a_tokenizer_that_has_it(self, original):
        tokenizer = original_processor(original).tokenizer
        length = len(tokenizer)
        assert MPLUGOwl2Processor(MPLUGOwl2ImageProcessor(), tokenizer).image_token_id == length - 1
        assert len(tokenizer) == length

    def test_no_special_tokens(self, processor):
        ids = processor(text="the", add_special_tokens=False)["input_ids"][0]
        assert tokens(processor, ids) == "▁the"

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_batches(self, processor, side):
        texts = ["the", "<|image|>\nrate <|image|>", "<|image|> the"]
        images = [[], [photo(0), photo(1)], [photo(2)]]
        batch = processor(images=images, text=texts, padding=True, padding_side=side, return_tensors="pt")
        assert batch["pixel_values"].shape == (3, 3, 28, 28)
        for row, mask, text, own in zip(batch["input_ids"], batch["attention_mask"], texts, images, strict=True):
            alone = processor(images=own, text=text, return_tensors="pt")["input_ids"][0]
            assert torch.equal(row[mask.bool()], alone)
            assert (mask.diff() >= 0).all() if side == "left" else (mask.diff() <= 0).all()
        flat = processor(images=[photo(0), photo(1), photo(2)], text=texts)["pixel_values"]
        assert torch.equal(batch["pixel_values"], torch.tensor(np.stack(flat)))

    def test_text_only(self, processor):
        batch = processor(text=["the image", "rate"], padding="max_length", max_length=8, return_tensors="pt")
        assert batch["input_ids"].shape == (2, 8)
        assert "pixel_values" not in batch
        assert processor(text="the", images=[])["input_ids"] == processor(text="the", images=[[]])["input_ids"]

    def test_pictures_only(self, processor):
        assert set(processor(images=[photo(0), photo(1)], return_tensors="pt")) == {"pixel_values"}

    @pytest.mark.parametrize(
        ("images", "text", "message"),
        [
            (None, "<|image|>", "Found 1 <|image|> tokens in the text but no images"),
            ([], "<|image|>", "Found 1 <|image|> tokens in the text but no images"),
            ([0], "the", "Found total 0 <|image|> tokens and 1 images"),
            ([0, 1], "<|image|>", "Found total 1 <|image|> tokens and 2 images"),
            ([[0, 1], []], ["<|image|>", "<|image|>"], "Got lists of [2, 0] pictures for texts with [1, 1] <|image|>"),
            ([[0, 1]], ["<|image|>", "<|image|>"], "Got lists of [2] pictures for texts with [1, 1] <|image|>"),
            (None, None, "at least one input"),
        ],
    )
    def test_pictures_and_markers_that_do_not_match(self, processor, images, text, message):
        shown = [[photo(n) for n in row] if isinstance(row, list) else photo(row) for row in images or []]
        with pytest.raises(ValueError, match=re.escape(message)):
            processor(images=None if images is None else shown, text=text)

    def test_options_that_pieces_cannot_have(self, processor):
        with pytest.raises(ValueError, match=r"\['return_offsets_mapping', 'truncation'\]"):
            processor(text="the", truncation=True, max_length=4, return_offsets_mapping=True)


class TestConversation:
    def test_facts_of_the_authors(self, processor, shared):
        facts = json.loads((shared / "fixtures/roc4mllm/prompt.json").read_text())["conversation"]
        assert facts["prompt"].replace("<system>", facts["system"]) == PROMPT
        turn = [{"type": "image"}, {"type": "text", "text": "Please rate the aesthetics of the image."}]
        messages = [{"role": "user", "content": turn}]
        assert processor.apply_chat_template(messages, add_generation_prompt=True) == PROMPT
        messages.append({"role": "assistant", "content": facts["training_answer"]})
        whole = f"{PROMPT} {facts['training_answer']}{facts['after_assistant']}"
        assert processor.apply_chat_template(messages) == whole

    def test_turns_and_an_own_system_prompt(self, processor):
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Which?"}]},
            {"role": "assistant", "content": "The first."},
            {"role": "user", "content": "Why?"},
        ]
        assert processor.apply_chat_template(messages, add_generation_prompt=True) == (
            "Be brief. USER: <|image|>\n<|image|>\nWhich? ASSISTANT: The first.</s>USER: Why? ASSISTANT:"
        )

    def test_role_that_does_not_exist(self, processor):
        with pytest.raises(Exception, match="Roles are user and assistant.*tool"):
            processor.apply_chat_template([{"role": "tool", "content": "x"}])

    def test_from_messages_to_a_batch(self, processor):
        turn = [
            {"type": "image", "image": photo()},
            {"type": "text", "text": "Please rate the aesthetics of the image."},
        ]
        batch = processor.apply_chat_template(
            [{"role": "user", "content": turn}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        assert tokens(processor, batch["input_ids"][0]) == RECORDED[PROMPT]
        assert batch["pixel_values"].shape == (1, 3, 28, 28)


# Files --------------------------------------------------------------------------------------------------------------


class TestSaving:
    def test_round_trip(self, processor, tmp_path):
        processor.save_pretrained(tmp_path)
        assert (tmp_path / "chat_template.jinja").read_text() == processor.chat_template
        for again in (MPLUGOwl2Processor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
            assert type(again) is MPLUGOwl2Processor
            assert again.to_dict() | {"auto_map": None} == processor.to_dict() | {"auto_map": None}
            assert again.image_token_id == processor.image_token_id
            for text, expected in RECORDED_LEGACY.items():
                batch = again(images=pictures_of(text), text=text)
                assert tokens(again, batch["input_ids"][0]) == expected

    def test_twice(self, processor, tmp_path):
        """transformers forgets the tokenizer's `legacy` when it saves."""
        for _ in range(2):
            processor.save_pretrained(tmp_path)
            processor = MPLUGOwl2Processor.from_pretrained(tmp_path)
        assert processor.tokenizer.legacy is True

    def test_own_template(self, processor, tmp_path):
        processor.chat_template = "{{ messages[0]['content'] }}"
        processor.save_pretrained(tmp_path)
        again = MPLUGOwl2Processor.from_pretrained(tmp_path)
        assert again.apply_chat_template([{"role": "user", "content": "hello"}]) == "hello"

    def test_slow_tokenizer_files(self, processor, original, tmp_path):
        """Those of other mPLUG-Owl2 checkpoints, without added tokens, beside our own files."""
        pytest.importorskip("sentencepiece", reason="transformers reads tokenizer.model with it")
        pytest.importorskip("google.protobuf", reason="transformers reads tokenizer.model with it")
        processor.save_pretrained(tmp_path)
        (tmp_path / "tokenizer.json").unlink()
        for name in ("tokenizer.model", "tokenizer_config.json"):
            (tmp_path / name).write_bytes((original / name).read_bytes())
        again = MPLUGOwl2Processor.from_pretrained(tmp_path)
        assert again.image_token_id == len(pieces())
        for text, expected in RECORDED.items():
            assert tokens(again, again(images=pictures_of(text), text=text)["input_ids"][0]) == expected

    def test_saved_code_is_whole(self, processor, tmp_path):
        processor.save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "processor_config.json").read_text())
        assert saved["auto_map"]["AutoProcessor"] == "processing_mplug_owl2.MPLUGOwl2Processor"
        reference = "image_processing_mplug_owl2.MPLUGOwl2ImageProcessor"
        assert saved["image_processor"]["auto_map"]["AutoImageProcessor"] == reference
        copied = get_class_from_dynamic_module(saved["auto_map"]["AutoProcessor"], str(tmp_path))
        assert copied is not MPLUGOwl2Processor
        again = copied.from_pretrained(tmp_path, trust_remote_code=True)
        assert tokens(again, again(images=photo(), text=PROMPT)["input_ids"][0]) == RECORDED[PROMPT]


# Inside ROC4MLLM's --------------------------------------------------------------------------------------------------


class TestScoring:
    @pytest.fixture
    def scoring(self, processor):
        return ROC4MLLMProcessor.from_backbone(processor)

    def test_prompt_is_the_authors(self, scoring):
        assert scoring.prompt == PROMPT.replace("Please rate the aesthetics of the image.", "[QUESTION]")
        assert scoring.scoring_sentence() == SENTENCE
        assert scoring.answer_end == "</s>"
        assert scoring.score_token_id == len(pieces())
        assert scoring.backbone_processor.image_token_id == len(pieces()) + 1

    def test_ids_are_the_authors(self, scoring):
        """In training they put one space before the answer; the word mark before "The" is that space."""
        batch = scoring(images=[photo(0), photo(1)])
        assert batch["pixel_values"].shape == (2, 3, 28, 28)
        expected = RECORDED_LEGACY[f"{PROMPT} {SENTENCE}</s>"].removesuffix(" </s>")
        assert [tokens(scoring, row) for row in batch["input_ids"]] == [expected] * 2
        training = scoring(images=photo(), scores=[5.0])
        assert tokens(scoring, training["input_ids"][0]) == f"{expected} </s>"
        assert tokens(scoring, training["labels"][training["labels"] != -100]) == f"{ANSWER} ▁ . </s>"

    def test_score_is_read_at_the_word_before_it(self, scoring):
        row = scoring(images=photo())["input_ids"][0].tolist()
        before = row[row.index(scoring.score_token_id) - 1]
        assert scoring.tokenizer.convert_ids_to_tokens(before) == "▁is"

    def test_pads(self, scoring):
        for side, sign in (("right", -1), ("left", 1)):
            batch = scoring(images=[photo(0)] * 2, text=["the?", "Please rate the image."], padding_side=side)
            assert (sign * batch["attention_mask"].diff(dim=1) >= 0).all()

    def test_marker_of_a_user_is_refused(self, scoring):
        with pytest.raises(ValueError, match=re.escape("'<|image|>', which stands for a picture")):
            scoring.check_words("the <|image|>", None)
        with pytest.raises(ValueError, match=re.escape("Found total 2 <|image|> tokens")):
            scoring(images=[photo()] * 1, text=["the <|image|>"])

    def test_fragments_are_a_second_picture(self, processor):
        scoring = ROC4MLLMProcessor.from_backbone(processor, fragment_size=32)
        assert scoring.prompt.count("<|image|>\n") == 2
        batch = scoring(images=[photo(0), photo(1)])
        assert batch["pixel_values"].shape == (4, 3, 28, 28)
        assert ((batch["input_ids"] == processor.image_token_id).sum(1) == 2 * IMAGE_TOKENS).all()

    def test_score_token_that_is_there_is_left_alone(self, processor):
        before = processor.tokenizer.added_tokens_decoder[len(pieces())]
        scoring = ROC4MLLMProcessor.from_backbone(processor)
        after = scoring.tokenizer.added_tokens_decoder[scoring.score_token_id]
        assert (
            (after.lstrip, after.rstrip, str(after))
            == (before.lstrip, before.rstrip, "[SCORE]")
            == (True, True, "[SCORE]")
        )

    def test_new_score_token_comes_after_the_image_token(self, tmp_path):
        (tmp_path / "tokenizer.model").write_bytes(tokenizer_model())
        scoring = ROC4MLLMProcessor.from_backbone(original_processor(tmp_path))
        assert scoring.score_token_id == scoring.backbone_processor.image_token_id + 1

    def test_round_trip(self, scoring, tmp_path):
        scoring.save_pretrained(tmp_path)
        expected = scoring(images=[photo(0), photo(1)], scores=[1.0, 2.0])
        for again in (ROC4MLLMProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
            assert type(again.backbone_processor) is MPLUGOwl2Processor
            assert again.to_dict() == scoring.to_dict()
            batch = again(images=[photo(0), photo(1)], scores=[1.0, 2.0])
            assert batch.keys() == expected.keys()
            assert all(torch.equal(batch[name], expected[name]) for name in expected)
