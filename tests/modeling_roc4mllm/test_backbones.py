"""ROC4MLLM on ten architectures of transformers, through their own processors."""

import copy

import pytest
import torch
from common_tests import PICTURES, ImageAestheticsModelTests, run
from tiny import BACKBONES, backbone, photo, scorer_parts, shared_parts
from transformers import LogitsProcessor

from roc4mllm.modeling_roc4mllm.backbone_roc4mllm import output_embedding_of

FIVE = ("aesthetics", "composition", "colour", "light", "focus")


@pytest.fixture(params=BACKBONES)
def kind(request):
    return request.param


class TestCommon(ImageAestheticsModelTests):
    """The promises of every family, for every backbone."""

    @pytest.fixture
    def parts(self, kind):
        model, processor = shared_parts(kind)

        def prepare(pictures, scores=None):
            return processor(images=pictures, scores=scores)

        return model, prepare


class ForceIds(LogitsProcessor):
    """Makes `generate` write given ids, whatever the model thinks."""

    def __init__(self, ids: list[int]):
        self.ids = iter(ids)

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, float("-inf"))
        forced[:, next(self.ids)] = 0
        return forced


def stepped_scores(model, processor, picture) -> torch.Tensor:
    """Scores `(A,)` of a real cached decode of the scoring sentence, one token at a time."""
    prompt = processor(images=picture, prompt_only=True, padding_side="left")
    answer = processor.tokenizer(processor.scoring_sentence(), add_special_tokens=False)["input_ids"]
    states = []
    hook = output_embedding_of(model).register_forward_pre_hook(lambda _, args: states.append(args[0][:, -1]))
    model.generate(**prompt, max_new_tokens=len(answer), do_sample=False, logits_processor=[ForceIds(answer)])
    hook.remove()
    assert len(states) == len(answer)
    read = torch.cat([state for state, token in zip(states, answer, strict=True) if token == processor.score_token_id])
    return (model.score_head(read).softmax(-1) * torch.linspace(1, 5, 5)).sum(-1)  # (A,)


class TestOnePass:
    """Five attributes in one sentence, read in one pass."""

    def test_equals_cached_stepping(self, kind):
        model, processor = shared_parts(kind, FIVE)
        together = run(model, processor(images=PICTURES)).scores  # (3, 5)
        for picture, scores in zip(PICTURES, together, strict=True):
            torch.testing.assert_close(stepped_scores(model, processor, picture), scores, atol=1e-4, rtol=0)
        assert (together[0] - together[1]).abs().min() > 1e-3
        assert together.std(1).min() > 1e-3  # the attributes are told apart

    def test_answer_is_causal(self, kind):
        """Other tokens behind a slot leave its score, in training too."""
        model, processor = shared_parts(kind, FIVE)
        batch = processor(images=PICTURES, scores=[2.0] * 3, comments=["a bright picture"] * 3)
        expected = run(model, batch).scores
        filler = processor.tokenizer(" a", add_special_tokens=False)["input_ids"][0]
        for slot in range(len(FIVE)):
            changed = {name: value.clone() for name, value in batch.items()}
            for row, ids in enumerate(changed["input_ids"]):
                position = (ids == processor.score_token_id).nonzero()[slot].item()
                ids[position + 1 : int(batch["attention_mask"][row].sum())] = filler
            changed["slot_attributes"][:, slot + 1 :] = -1
            scores = run(model, changed).scores
            torch.testing.assert_close(scores[:, slot], expected[:, slot], atol=1e-6, rtol=0)

    def test_subset_of_attributes(self, kind):
        model, processor = shared_parts(kind, FIVE)
        output = run(model, processor(images=PICTURES, attributes=["light", "composition"]))
        assert output.score_mask.tolist() == [[False, True, False, True, False]] * 3
        assert output.scores.isfinite().tolist() == output.score_mask.tolist()
        assert output.distribution.isnan().any(-1).tolist() == (~output.score_mask).tolist()

    def test_generate_continues_the_sentence(self, kind):
        model, processor = shared_parts(kind)
        batch = processor(images=PICTURES, padding_side="left")
        ids = model.generate(**batch, max_new_tokens=4, do_sample=False)
        assert ids.shape[0] == 3
        assert ids.shape[1] > batch["input_ids"].shape[1]
        assert torch.equal(ids[:, : batch["input_ids"].shape[1]], batch["input_ids"])
        again = model.backbone.generate(
            **{name: value for name, value in batch.items() if name != "slot_attributes"},
            max_new_tokens=4,
            do_sample=False,
        )
        assert torch.equal(ids, again)


class TestTraining:
    def batch(self, processor):
        return processor(images=PICTURES, scores=[2.0, 4.0, 3.5], comments=["calm", "too dark", None])

    def test_text_loss_is_the_backbones_own(self, kind):
        model, processor = shared_parts(kind)
        batch = self.batch(processor)
        ours = run(model, batch).text_loss
        inputs = {name: value for name, value in batch.items() if name not in ("slot_attributes", "scores")}
        theirs = run(model.backbone, inputs).loss
        assert theirs > 1
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)

    def test_gradient_reaches_every_parameter(self, kind):
        """Every parameter that the backbone's own loss reaches, and the score head."""
        model, processor = scorer_parts(kind)
        inputs = self.batch(processor)
        model.train()
        model(**inputs).loss.backward()
        reached = reached_parameters(model)
        model.zero_grad(set_to_none=True)
        for name in ("slot_attributes", "scores"):
            inputs.pop(name)
        model.backbone(**inputs).loss.backward()
        assert reached == reached_parameters(model) | {"score_head.weight"}
        assert len(reached) > 20

    def test_score_loss_alone_reaches_the_vision_tower(self, kind):
        model, processor = scorer_parts(kind)
        model.train()
        model(**self.batch(processor), loss_weights={"text": 0.0}).loss.backward()
        reached = reached_parameters(model)
        assert "score_head.weight" in reached
        assert any("vis" in name for name in reached)

    def test_only_supervised_positions_get_logits(self, kind):
        model, processor = shared_parts(kind)
        batch = self.batch(processor)
        sizes = []
        head = output_embedding_of(model)
        hook = head.register_forward_hook(lambda _, args, output: sizes.append(tuple(output.shape[:2])))
        run(model, batch)
        run(model, processor(images=PICTURES))
        hook.remove()
        assert sizes == [(1, int((batch["labels"] != -100).sum())), (1, 0)]


def reached_parameters(model) -> set[str]:
    """Names of the parameters that hold a gradient which is not zero."""
    return {name for name, value in model.named_parameters() if value.grad is not None and value.grad.abs().max() > 0}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "gemma3"])
def test_tied_and_untied_embeddings(kind, tied, tmp_path):
    plain, _ = backbone(kind, tied=tied)
    rows = plain.get_input_embeddings().weight.shape[0]
    model, processor = scorer_parts(kind, tied=tied)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (embedding is head) == tied
    assert embedding.shape[0] == head.shape[0] == rows + 1 == processor.score_token_id + 1
    torch.testing.assert_close(embedding[-1], embedding[:-1].mean(0))
    torch.testing.assert_close(head[-1], head[:-1].mean(0))
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert (again.get_input_embeddings().weight is again.get_output_embeddings().weight) == tied
    batch = processor(images=photo(3))
    torch.testing.assert_close(run(again, batch).scores, run(model, batch).scores, atol=5e-6, rtol=0)


def test_the_backbone_keeps_its_attention_implementation(kind):
    """A config made around a loaded backbone's config once wiped it, which silently ended causal masking."""
    model, _ = shared_parts(kind)
    assert model.backbone.config._attn_implementation == "sdpa"
    assert model.backbone.config.get_text_config()._attn_implementation == "sdpa"


def test_eager_attention_agrees(kind):
    model, processor = shared_parts(kind)
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    assert eager.config.get_text_config()._attn_implementation == "eager"
    batch = processor(images=PICTURES)
    torch.testing.assert_close(run(eager, batch).scores, run(model, batch).scores, atol=1e-4, rtol=0)
