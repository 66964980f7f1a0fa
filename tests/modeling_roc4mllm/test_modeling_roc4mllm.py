"""What is particular to ROC4MLLM: building on a backbone, its head, slots and losses."""

import copy
import logging
import threading

import pytest
import torch
from common_tests import PICTURES, run
from huggingface_hub.errors import StrictDataclassError
from tiny import backbone, photo, random_model, scorer_parts, shared_parts
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.quantizers.base import HfQuantizer

from roc4mllm import ROC4MLLMForImageAesthetics, ROC4MLLMProcessor
from roc4mllm.modeling_roc4mllm.backbone_roc4mllm import HeadInput, output_embedding_of, reading_head_input

NAN = float("nan")


class TestFromBackbone:
    def test_by_folder(self, tmp_path):
        """The ten lines of the README, with a folder in the place of a Hub name."""
        model, processor = backbone("qwen2_vl")
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        processor = ROC4MLLMProcessor.from_backbone(tmp_path, attributes=["aesthetics"])
        scorer = ROC4MLLMForImageAesthetics.from_backbone(
            tmp_path, processor=processor, num_levels=10, score_range=(1, 10), dtype=torch.bfloat16
        )
        assert scorer.dtype == torch.bfloat16
        assert scorer.score_head.weight.shape == (10, 32)
        assert scorer.config.score_token_id == processor.score_token_id
        assert scorer.config.backbone_name_or_path is None  # a folder of this machine
        output = run(scorer, processor(images=PICTURES))
        assert ((output.scores > 1) & (output.scores < 10)).all()

    def test_without_processor_the_id_is_the_number_of_rows(self):
        model, _ = backbone("llava")
        rows = model.get_input_embeddings().weight.shape[0]
        scorer = ROC4MLLMForImageAesthetics.from_backbone(model)
        assert scorer.config.score_token_id == rows
        assert scorer.get_input_embeddings().weight.shape[0] == rows + 1
        assert scorer.config.mllm_config is scorer.backbone.config

    @pytest.mark.parametrize("kind", ["llava", "gemma3"])
    def test_padded_vocabulary(self, kind):
        """Rows beyond the tokenizer exist: one of them is overwritten, and nothing shrinks."""
        model, processor = backbone(kind)
        used = len(processor.tokenizer)
        model.resize_token_embeddings(used + 60, mean_resizing=False)
        processor = ROC4MLLMProcessor.from_backbone(processor)
        scorer = ROC4MLLMForImageAesthetics.from_backbone(model, processor=processor)
        embedding = scorer.get_input_embeddings().weight
        assert processor.score_token_id == used
        assert embedding.shape[0] == used + 60
        torch.testing.assert_close(embedding[used], embedding[:used].mean(0))

    def test_paligemma_adds_tokens_before_ours(self):
        _, processor = backbone("paligemma")
        size = len(processor.tokenizer)
        assert size > 1400  # locations and segments that its processor adds by itself
        assert ROC4MLLMProcessor.from_backbone(processor).score_token_id == size

    def test_special_id_is_refused(self):
        model, processor = backbone("llava")
        processor = ROC4MLLMProcessor.from_backbone(processor)
        processor.score_token_id = model.config.image_token_index
        with pytest.raises(StrictDataclassError, match="already image_token"):
            ROC4MLLMForImageAesthetics.from_backbone(model, processor=processor)

    def test_fresh_head(self):
        """Rows around the mean output row, a tenth of its spread apart; marked as untrained."""
        torch.manual_seed(0)
        model, _ = backbone("llava")
        scorer = ROC4MLLMForImageAesthetics.from_backbone(model, num_levels=400)
        rows = output_embedding_of(model).weight
        head = scorer.score_head.weight
        torch.testing.assert_close(head.mean(0), rows.mean(0), atol=0.01, rtol=0)
        torch.testing.assert_close(head.std(0) / rows.std(0), torch.full((32,), 0.1), atol=0.02, rtol=0)
        assert scorer.config.score_head_trained is False
        assert not scorer.training

    def test_untrained_head_warns_once(self, caplog):
        model, processor = scorer_parts("llava")
        run(model, processor(images=PICTURES))
        assert "never trained" not in caplog.text
        model.config.score_head_trained = False
        logging.getLogger("transformers").warning_once.cache_clear()  # `warning_once` counts for the whole process
        for _ in range(2):
            run(model, processor(images=PICTURES))
        assert caplog.text.count("never trained") == 1

    @pytest.mark.parametrize(
        ("build", "error", "message"),
        [
            (lambda: {"backbone": torch.nn.Linear(2, 2)}, TypeError, "Got Linear.*folder"),
            (lambda: {"backbone": backbone("llava")[0], "dtype": torch.bfloat16}, TypeError, r"\['dtype'\]"),
            (
                lambda: dict(zip(("backbone", "processor"), backbone("llava"), strict=True)),
                ValueError,
                r"LlavaProcessor.*ROC4MLLMProcessor.from_backbone",
            ),
            (lambda: {"backbone": shared_parts("llava")[0]}, ValueError, "from_pretrained"),
            (lambda: {"backbone": backbone("llava")[0], "attributes": "light"}, StrictDataclassError, "'light'"),
            (lambda: {"backbone": backbone("llava")[0], "attributes": [" "]}, StrictDataclassError, "distinct"),
        ],
    )
    def test_wrong_arguments(self, build, error, message):
        with pytest.raises(error, match=message):
            ROC4MLLMForImageAesthetics.from_backbone(**build())

    def test_offloaded_embedding_is_refused(self, tmp_path):
        backbone("llava")[0].save_pretrained(tmp_path)
        device_map = {"model": "cpu", "lm_head": "disk"}
        with pytest.raises(ValueError, match="offloaded.*device_map"):
            ROC4MLLMForImageAesthetics.from_backbone(tmp_path, device_map=device_map, offload_folder=tmp_path / "disk")

    def test_placement_of_a_dispatched_backbone_is_adopted(self, tmp_path):
        """Pipelines and Trainer ask the outer model, and move one without a map to a single device."""
        plain, processor = backbone("llava")
        plain.save_pretrained(tmp_path)
        processor = ROC4MLLMProcessor.from_backbone(processor)
        parts = ("model.multi_modal_projector", "model.language_model", "lm_head")
        device_map = {"model.vision_tower": "disk"} | dict.fromkeys(parts, "cpu")
        scorer = ROC4MLLMForImageAesthetics.from_backbone(
            tmp_path, processor=processor, device_map=device_map, offload_folder=tmp_path / "disk"
        )
        assert scorer.hf_device_map["backbone.model.vision_tower"] == "disk"
        assert scorer.hf_device_map["score_head"] == torch.device("cpu")
        assert run(scorer, processor(images=PICTURES)).scores.isfinite().all()


class TestHeadPrecision:
    def test_cast_models_keep_a_float32_head(self):
        model, _ = scorer_parts("llava")
        before = model.score_head.weight.detach().clone()
        for dtype in (torch.bfloat16, torch.float16):
            cast = copy.deepcopy(model).to(dtype)
            assert cast.backbone.dtype == dtype
            assert torch.equal(cast.score_head.weight, before)
            assert cast.score_head.weight.requires_grad
        assert copy.deepcopy(model).double().score_head.weight.dtype == torch.float64

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_loaded_models_keep_a_float32_head(self, dtype, tmp_path):
        model, _ = shared_parts("llava")
        model.save_pretrained(tmp_path)
        loaded = ROC4MLLMForImageAesthetics.from_pretrained(tmp_path, dtype=dtype)
        assert loaded.backbone.dtype == dtype
        assert torch.equal(loaded.score_head.weight, model.score_head.weight)
        loaded.save_pretrained(tmp_path / "again")
        again = ROC4MLLMForImageAesthetics.from_pretrained(tmp_path / "again")
        assert again.backbone.dtype == dtype  # the checkpoint's
        assert torch.equal(again.score_head.weight, model.score_head.weight)

    def test_autocast_does_not_round_the_readout(self):
        model, _ = shared_parts("llava")
        hidden = torch.randn(4, 32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded, kept = torch.nn.functional.linear(hidden, model.score_head.weight), model.score_head(hidden)
        assert rounded.dtype == torch.bfloat16
        assert kept.dtype == torch.float32

    def test_quantisers_leave_the_heads_alone(self):
        model, _ = shared_parts("llava")
        kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
        assert "score_head" in kept
        assert "backbone.lm_head" in kept


class TestQuantisation:
    """
    4-bit weights through bitsandbytes, whose kernels run on the CPU too. Gradients stay on: without them its CPU
    kernel refuses layers as narrow as these (0.50), in a bare backbone as well.
    """

    CONFIG = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)

    def test_checkpoint_loaded_in_4_bit(self, tmp_path):
        model, processor = shared_parts("llava")
        model.save_pretrained(tmp_path)
        loaded = ROC4MLLMForImageAesthetics.from_pretrained(tmp_path, quantization_config=self.CONFIG)
        assert four_bit_layers(loaded) == four_bit_layers(loaded.backbone) > 10
        assert type(loaded.score_head) is type(model.score_head)
        assert torch.equal(loaded.score_head.weight, model.score_head.weight)
        batch = processor(images=PICTURES)
        scores = loaded(**batch).scores
        assert ((scores > 1) & (scores < 5)).all()
        assert not torch.equal(scores, model(**batch).scores)  # the backbone is really rounded

    def test_backbone_in_4_bit(self, tmp_path):
        plain, processor = backbone("llava")
        plain.save_pretrained(tmp_path / "backbone")
        processor = ROC4MLLMProcessor.from_backbone(processor)
        scorer = ROC4MLLMForImageAesthetics.from_backbone(
            tmp_path / "backbone", processor=processor, quantization_config=self.CONFIG
        )
        torch.nn.init.normal_(scorer.score_head.weight, std=0.5)
        scorer.save_pretrained(tmp_path / "scorer")
        again = ROC4MLLMForImageAesthetics.from_pretrained(tmp_path / "scorer")
        assert four_bit_layers(again) == four_bit_layers(scorer) > 10
        scores = scorer(**processor(images=PICTURES)).scores
        torch.testing.assert_close(again(**processor(images=PICTURES)).scores, scores, atol=5e-6, rtol=0)
        assert (scores[0] - scores[1]).abs() > 1e-3


def four_bit_layers(model) -> int:
    return sum(type(module).__name__ == "Linear4bit" for module in model.modules())


class TestLoading:
    def test_attention_implementation_is_passed_on(self, tmp_path):
        model, processor = shared_parts("llava")
        model.save_pretrained(tmp_path)
        eager = ROC4MLLMForImageAesthetics.from_pretrained(tmp_path, attn_implementation="eager")
        assert eager.backbone.config.text_config._attn_implementation == "eager"
        torch.testing.assert_close(
            run(eager, processor(images=PICTURES)).scores, run(model, processor(images=PICTURES)).scores
        )
        with pytest.raises(ImportError, match="[Ff]lash"):  # it arrives, and flash-attn is not installed here
            ROC4MLLMForImageAesthetics.from_pretrained(tmp_path, attn_implementation="flash_attention_2")

    def test_folder_of_a_bare_backbone_is_refused(self, tmp_path):
        """Not by building a default LLaVA of seven billion parameters first."""
        backbone("llava")[0].save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="no score_token_id.*from_backbone"):
            ROC4MLLMForImageAesthetics.from_pretrained(tmp_path)

    def test_device_map_with_offload_to_disk(self, tmp_path):
        model, processor = shared_parts("llava")
        model.save_pretrained(tmp_path / "model")
        device_map = {"backbone.model": "cpu", "backbone.lm_head": "disk", "score_head": "disk"}
        loaded = ROC4MLLMForImageAesthetics.from_pretrained(
            tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
        )
        assert loaded.score_head.weight.is_meta
        expected = run(model, processor(images=PICTURES)).scores
        torch.testing.assert_close(run(loaded, processor(images=PICTURES)).scores, expected, atol=5e-6, rtol=0)

    def test_resizing_keeps_the_scores(self):
        model, processor = scorer_parts("llava")
        expected = run(model, processor(images=PICTURES)).scores
        model.resize_token_embeddings(len(processor.tokenizer) + 40, mean_resizing=False)
        assert torch.equal(run(model, processor(images=PICTURES)).scores, expected)


class TestReading:
    def test_hook_is_gone_after_an_error(self):
        model, processor = shared_parts("llava")
        batch = processor(images=PICTURES)
        batch["pixel_values"] = batch["pixel_values"][:, :, :10]
        with pytest.raises(ValueError, match="size"):
            run(model, batch)
        assert not output_embedding_of(model)._forward_pre_hooks

    def test_two_threads_score_with_one_model(self):
        model, processor = shared_parts("llava")
        batches = [processor(images=PICTURES), processor(images=[photo(7), photo(8, 90, 30)])]
        expected = [run(model, batch).scores for batch in batches]
        found: dict[tuple[int, int], torch.Tensor] = {}

        def work(index):
            for turn in range(20):
                found[index, turn] = run(model, batches[index]).scores

        threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 40
        for (index, _), scores in found.items():
            torch.testing.assert_close(scores, expected[index], atol=1e-5, rtol=0)

    def test_image_states_in_front_of_the_text(self):
        """A head that reads more positions than there are ids: the text stands at the end."""
        head = torch.nn.Linear(4, 6, bias=False)
        hidden = torch.randn(2, 9, 4)  # 5 ids behind 4 image states
        rows, positions = torch.tensor([0, 1]), torch.tensor([2, 4])
        head_input = HeadInput((rows, positions), length=5)
        with reading_head_input(head, head_input):
            logits = head(hidden)
        torch.testing.assert_close(logits[0], head(hidden[rows, positions + 4]))
        torch.testing.assert_close(head_input.at(rows, positions), hidden[rows, positions + 4])

    def test_fewer_positions_than_ids_is_an_error(self):
        head = torch.nn.Linear(4, 6)
        head_input = HeadInput((torch.tensor([0]), torch.tensor([0])), length=5)
        with reading_head_input(head, head_input), pytest.raises(ValueError, match="4 positions for 5 input ids"):
            head(torch.randn(1, 4, 4))

    def test_a_head_that_is_never_called_is_an_error(self):
        with pytest.raises(ValueError, match="never called"):
            HeadInput((torch.tensor([0]), torch.tensor([0])), length=5).at(torch.tensor([0]), torch.tensor([0]))


class TestTargets:
    """Two attributes, five levels from 1 to 5."""

    @pytest.fixture
    def parts(self):
        return shared_parts("llava", ("aesthetics", "light"))

    def losses(self, parts, **targets):
        model, processor = parts
        batch = processor(images=PICTURES[:2])
        output = run(model, batch)
        weights = {"smooth_l1": 1.0, "ce": 1.0, "emd": 1.0}
        return output, run(model, batch, loss_weights=weights, **targets)

    def test_missing_scores_do_not_count(self, parts):
        output, trained = self.losses(parts, scores=torch.tensor([[2.0, NAN], [NAN, NAN]]))
        difference = abs(output.scores[0, 0].item() - 2)
        expected = 0.5 * difference**2 if difference < 1 else difference - 0.5
        assert trained.smooth_l1_loss.item() == pytest.approx(expected, rel=1e-5)
        assert trained.text_loss is None
        expected_ce = -output.distribution[0, 0, 1].log()  # level 2 is the second
        torch.testing.assert_close(trained.ce_loss, expected_ce)

    def test_counts_of_a_larger_batch_divide_the_sums(self, parts):
        model, processor = parts
        batch = processor(images=PICTURES[:2], scores=[[2.0, 3.0], [4.0, NAN]], comments=["calm", None])
        own = run(model, batch)
        tokens = (batch["labels"] != -100).sum()
        larger = run(model, batch, loss_counts={"text": 2 * tokens, "scores": torch.tensor(12)})
        torch.testing.assert_close(larger.text_loss, own.text_loss / 2)
        torch.testing.assert_close(larger.smooth_l1_loss, own.smooth_l1_loss * 3 / 12)
        torch.testing.assert_close(larger.loss, larger.text_loss + larger.smooth_l1_loss)

    def test_votes_give_distribution_and_mean(self, parts):
        votes = torch.full((2, 2, 5), NAN)
        votes[1, 1] = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0])  # mean 3.5
        output, trained = self.losses(parts, votes=votes)
        difference = abs(output.scores[1, 1].item() - 3.5)
        expected = 0.5 * difference**2 if difference < 1 else difference - 0.5
        assert trained.smooth_l1_loss.item() == pytest.approx(expected, rel=1e-5)
        p = output.distribution[1, 1]
        torch.testing.assert_close(trained.ce_loss, -(0.25 * p[1].log() + 0.75 * p[3].log()))
        q = torch.tensor([0, 0.25, 0.25, 1, 1])
        torch.testing.assert_close(trained.emd_loss, (p.cumsum(0) - q).square().mean().sqrt())

    def test_a_score_wins_over_the_mean_of_votes(self, parts):
        votes = torch.full((2, 2, 5), NAN)
        votes[0, 0] = torch.tensor([1.0, 0, 0, 0, 0])
        scores = torch.tensor([[4.0, NAN], [NAN, NAN]])
        _, with_score = self.losses(parts, votes=votes, scores=scores)
        _, alone = self.losses(parts, scores=scores)
        assert with_score.smooth_l1_loss == alone.smooth_l1_loss
        assert with_score.ce_loss != alone.ce_loss

    def test_no_target_at_all_is_zero_with_a_graph(self, parts):
        model, processor = parts
        batch = processor(images=PICTURES[:2])
        loss = model(**batch, scores=torch.full((2, 2), NAN)).loss
        assert loss == 0
        loss.backward()
        assert torch.equal(model.score_head.weight.grad, torch.zeros_like(model.score_head.weight))
        model.zero_grad(set_to_none=True)

    def test_unknown_loss_weight(self, parts):
        model, processor = parts
        batch = processor(images=PICTURES, scores=[1.0, 2.0, 3.0])
        with pytest.raises(ValueError, match=r"\['l1'\].*smooth_l1"):
            model(**batch, loss_weights={"l1": 1.0})

    def test_score_outside_the_range(self, parts):
        model, processor = parts
        batch = processor(images=PICTURES, scores=[1.0, 99.0, 3.0])
        with pytest.raises(ValueError, match=r"score of 99; the score range is 1 to 5"):
            model(**batch)

    def test_an_end_of_the_range_that_float32_rounds(self):
        model, processor = scorer_parts("llava", score_range=(0.1, 0.3))
        batch = processor(images=PICTURES, scores=[0.1, 0.3, 0.2])
        batch["pixel_values"] = batch["pixel_values"].double()
        assert model.double()(**batch).loss.isfinite()

    def test_rows_with_and_without_slots(self, parts):
        """A row of text only has no scores, and its neighbours keep theirs."""
        model, processor = parts
        batch = processor(images=PICTURES[:2])
        expected = run(model, batch).scores
        batch["input_ids"][1][batch["input_ids"][1] == processor.score_token_id] = 7
        batch["slot_attributes"][1] = -1
        output = run(model, batch)
        assert torch.equal(output.scores[0], expected[0])
        assert output.scores[1].isnan().all()
        assert output.score_mask.tolist() == [[True, True], [False, False]]

    def test_ranges_per_attribute(self):
        model, processor = backbone("llava")
        processor = ROC4MLLMProcessor.from_backbone(processor, attributes=["aesthetics", "light"])
        scorer = ROC4MLLMForImageAesthetics.from_backbone(
            model, processor=processor, num_levels=5, score_range=[[1, 5], [0, 100]]
        )
        scores = run(scorer, processor(images=PICTURES)).scores
        assert (scores[:, 0] <= 5).all()
        assert (scores[:, 1] > 20).all()


def test_text_only_model_is_refused():
    config = AutoConfig.for_model(
        "llama", vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(ValueError, match="picture"):
        ROC4MLLMForImageAesthetics.from_backbone(AutoModelForCausalLM.from_config(config))


def test_builder_of_the_tests_is_not_blind():
    model, processor = backbone("llava")
    other = random_model(copy.deepcopy(model.config))
    assert model.model.vision_tower.encoder.layers[0].mlp.fc1.weight.std() > 0.1
    assert other.config.text_config.vocab_size == len(processor.tokenizer)
