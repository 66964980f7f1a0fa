"""A scorer that names a level in a word, read as ROC4MLLM: the numbers are those of the softmax over the words."""

import pytest
import torch
from checkpoint_files import pieces, roc4mllm_checkpoint, tokenizer_model, write_checkpoint
from originals import LEVELS
from PIL import Image
from tiny import photo

from roc4mllm import load_scorer
from roc4mllm.hub.convert_folder import convert_folder
from roc4mllm.hub.level_words import WORDS, LevelWordsConversion

TEXT = (
    "USER: How would you rate the quality aesthetics of this image?\n<|image|>\nASSISTANT: The quality aesthetics of "
    "the image is excellent good fair poor bad."
)
PICTURES = [photo(0), Image.new("RGB", (30, 70), "white")]


def write_level_words(folder, padding: int = 0):
    """A checkpoint with Llama's own vocabulary, in two shards, and so many rows of embeddings more."""
    count = len(pieces(TEXT)) + padding
    config, weights = roc4mllm_checkpoint(count)
    of_roc4mllm = ("score_id", "min_score", "max_score", "num_tokens", "img_token_num", "output_first_id")
    config = {name: value for name, value in config.items() if name not in of_roc4mllm} | {"vocab_size": count}
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        weights[name] = weights[name][: -LEVELS - 1].clone()
    weights["lm_head.weight"] *= 10  # else the words hardly react to the picture
    write_checkpoint(folder, config, weights, shards=2)
    (folder / "added_tokens.json").unlink()
    (folder / "tokenizer.model").write_bytes(tokenizer_model(text=TEXT))
    return config, weights


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    return folder, *write_level_words(folder)


@pytest.fixture(scope="module", params=["aesthetics", "quality"])
def native(original, request, tmp_path_factory):
    """A scorer, and the attribute it was converted for."""
    folder = tmp_path_factory.mktemp("native")
    convert_folder("level-words", original[0], folder, attribute=request.param)
    return load_scorer(folder), request.param


def test_text_is_that_of_the_authors(native):
    scorer, attribute = native
    row = scorer.processor(images=photo())["input_ids"][0]
    tokens = scorer.processor.tokenizer.convert_ids_to_tokens(row)
    assert " ".join(token for token in tokens if token != "<|image|>") == (
        f"<s> ▁USER : ▁How ▁would ▁you ▁rate ▁the ▁{attribute} ▁of ▁this ▁image ? <0x0A> "
        f"▁ <0x0A> A S S I S T A N T : ▁The ▁{attribute} ▁of ▁the ▁image ▁is [SCORE] ▁ ."
    )


def test_scores_are_the_means_by_the_words_logits(native, original):
    scorer, attribute = native
    records = scorer(PICTURES)
    assert abs(records[0]["score"] - records[1]["score"]) > 1e-3
    batch = scorer.processor(images=PICTURES)
    end = batch["input_ids"][0].tolist().index(scorer.processor.score_token_id)
    with torch.no_grad():
        logits = scorer.model.backbone(
            input_ids=batch["input_ids"][:, :end], pixel_values=batch["pixel_values"]
        ).logits[:, -1]  # (2, V), of the word behind "is"
    ids = [scorer.processor.tokenizer.convert_tokens_to_ids(f"▁{word}") for word in WORDS]
    shares = logits[:, ids].softmax(-1)  # (2, 5)
    for record, row in zip(records, shares, strict=True):
        assert record["score"] == pytest.approx((row @ torch.arange(1.0, 6.0)).item(), abs=5e-5)
        assert record["distribution"] == pytest.approx(row.tolist(), abs=1e-5)  # float32, of logits up to 30
        assert (record["score_range"], list(record["attributes"])) == ([1.0, 5.0], [attribute])


def test_weights_are_the_original_ones(native, original):
    model, weights = native[0].model, original[2]
    ids = [native[0].processor.tokenizer.convert_tokens_to_ids(f"▁{word}") for word in WORDS]
    assert torch.equal(model.score_head.weight, weights["lm_head.weight"][ids])
    for found, name in (
        (model.get_output_embeddings(), "lm_head.weight"),
        (model.get_input_embeddings(), "model.embed_tokens.weight"),
    ):
        assert torch.equal(found.weight[:-1], weights[name])
        torch.testing.assert_close(found.weight[-1], weights[name].mean(0))


def test_rows_that_pad_the_vocabulary_are_left_out(original, tmp_path):
    """As of embeddings padded to a multiple of 64. They are no tokens, and the image token has its id among them."""
    config, weights = write_level_words(tmp_path / "padded", padding=7)
    tokens = len(pieces(TEXT))
    assert len(weights["lm_head.weight"]) == config["vocab_size"] == tokens + 7
    convert_folder("level-words", tmp_path / "padded", tmp_path / "native")
    scorer = load_scorer(tmp_path / "native")
    assert scorer.model.config.score_token_id == scorer.processor.score_token_id == tokens
    for found, name in (
        (scorer.model.get_output_embeddings(), "lm_head.weight"),
        (scorer.model.get_input_embeddings(), "model.embed_tokens.weight"),
    ):
        assert torch.equal(found.weight[:-1], weights[name][:tokens])
        torch.testing.assert_close(found.weight[-1], weights[name][:tokens].mean(0))
    records = scorer(PICTURES)
    assert abs(records[0]["score"] - records[1]["score"]) > 1e-3


def test_comment_holds_the_score(native):
    scorer, attribute = native
    record = scorer(photo(), text=True, max_new_tokens=4)
    assert record["text"].startswith(f"The {attribute} of the image is {record['score']:.2f}.")


def test_card(original, tmp_path):
    convert_folder("level-words", original[0], tmp_path / "native")
    card = (tmp_path / "native" / "README.md").read_text()
    assert "scores aesthetics from **1 to 5, higher is better**" in card


class TestBadInput:
    def test_attribute(self, original, tmp_path):
        with pytest.raises(ValueError, match=r"\['aesthetics', 'quality'\], got 'beauty'"):
            convert_folder("level-words", original[0], tmp_path / "native", attribute="beauty")

    def test_words_that_begin_alike(self, tmp_path):
        write_level_words(tmp_path)
        (tmp_path / "tokenizer.model").write_bytes(tokenizer_model(text=TEXT.replace("excellent good fair", "")))
        with pytest.raises(ValueError, match="does not tell .* by their first tokens"):
            convert_folder("level-words", tmp_path, tmp_path / "native")

    def test_a_checkpoint_of_roc4mllm(self, tmp_path):
        write_checkpoint(tmp_path, *roc4mllm_checkpoint())
        with pytest.raises(ValueError, match="is a ROC4MLLM checkpoint.*its family is roc4mllm"):
            convert_folder("level-words", tmp_path, tmp_path / "native")

    def test_embedding_of_another_length(self, original):
        conversion = LevelWordsConversion(original[1], original[1]["vocab_size"], [3, 4, 5, 6, 7], "aesthetics")
        with pytest.raises(ValueError, match=r"An embedding has 5 rows; the config describes \d+"):
            conversion.convert("lm_head.weight", torch.zeros(5, 32))

    def test_fewer_rows_than_tokens(self, tmp_path):
        write_level_words(tmp_path, padding=-3)
        with pytest.raises(ValueError, match=r"tokenizer has \d+ tokens; config\.json describes only \d+"):
            convert_folder("level-words", tmp_path, tmp_path / "native")
        assert not (tmp_path / "native").exists()

    def test_config(self, original):
        with pytest.raises(ValueError, match="lacks vocab_size"):
            LevelWordsConversion({n: v for n, v in original[1].items() if n != "vocab_size"}, 9, [1, 2], "quality")

    def test_it_is_not_taken_for_roc4mllm(self, original, tmp_path):
        with pytest.raises(ValueError, match="lacks num_tokens, score_id"):
            convert_folder("roc4mllm", original[0], tmp_path / "native")
