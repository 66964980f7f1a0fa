"""Tokenizer and image processor read from the authors' files; that ids are theirs: test_processing_mplug_owl2.py."""

import json

import pytest
from checkpoint_files import pieces, tokenizer_model, write_tokenizer

from roc4mllm.hub.original_tokenizer import original_processor


class TestPixels:
    def test_of_its_own(self, tmp_path):
        images = original_processor(write_tokenizer(tmp_path)).image_processor
        assert (images.size.height, images.size.width) == (28, 28)
        assert (tuple(images.image_mean), images.resample) == ((0.5, 0.4, 0.3), 3)
        assert images.do_pad
        assert not images.do_center_crop

    @pytest.mark.parametrize("size", [56, {"shortest_edge": 56}, {"height": 56, "width": 56}])
    def test_forms_of_the_size(self, tmp_path, size):
        write_tokenizer(tmp_path)
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": size}))
        assert original_processor(tmp_path).image_processor.size.height == 56

    def test_size_that_is_none(self, tmp_path):
        write_tokenizer(tmp_path)
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"longest_edge": 56}}))
        with pytest.raises(ValueError, match=r"preprocessor_config\.json has the size \{'longest_edge': 56\}"):
            original_processor(tmp_path)


class TestTokenizer:
    def test_without_added_tokens(self, tmp_path):
        (tmp_path / "tokenizer.model").write_bytes(tokenizer_model())
        processor = original_processor(tmp_path)
        assert processor.image_token_id == len(pieces())
        assert processor.tokenizer.legacy is True  # what transformers 4.31 took where the config says nothing
        assert processor.image_processor.size.height == 448
        assert processor.num_image_tokens == 65

    @pytest.mark.parametrize(("legacy", "expected"), [(None, True), (True, True), (False, False)])
    def test_legacy(self, tmp_path, legacy, expected):
        assert original_processor(write_tokenizer(tmp_path, legacy=legacy)).tokenizer.legacy is expected

    def test_level_tokens_are_left_out(self, tmp_path):
        tokenizer = original_processor(write_tokenizer(tmp_path)).tokenizer
        assert tokenizer.get_added_vocab().keys() == {"<unk>", "<s>", "</s>", "[SCORE]", "<|image|>"}

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (b"version https://git-lfs.github.com/spec/v1", "is no whole sentencepiece model"),
            (tokenizer_model()[:3000], "is no whole sentencepiece model: .* bytes are missing"),
            (tokenizer_model(kind=1), r"kind BPE \(2\).*got \[1\]"),
            (b"", r"kind BPE \(2\).*got \[\]"),
        ],
    )
    def test_files_that_are_no_such_model(self, tmp_path, model, message):
        with pytest.raises(ValueError, match=message):
            original_processor(write_tokenizer(tmp_path, model=model))

    def test_missing_model(self, tmp_path):
        with pytest.raises(ValueError, match=r"No tokenizer\.model"):
            original_processor(tmp_path)

    def test_gap_before_an_added_token(self, tmp_path):
        write_tokenizer(tmp_path)
        (tmp_path / "added_tokens.json").write_text(json.dumps({"[SCORE]": len(pieces()) + 5}))
        with pytest.raises(ValueError, match=r"'\[SCORE\]' the id"):
            original_processor(tmp_path)

    def test_json_that_is_cut_short(self, tmp_path):
        write_tokenizer(tmp_path)
        (tmp_path / "added_tokens.json").write_text('{"[SCORE]"')
        with pytest.raises(ValueError, match=r"added_tokens\.json of the checkpoint is no JSON"):
            original_processor(tmp_path)
