"""
mPLUG-Owl2 and ROC4MLLM on it against numbers of the authors' own code, run on tiny random weights (see the README of
../shared/fixtures). Tolerances are those stated there.
"""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import DynamicCache

from roc4mllm.hub.convert_original import load_original
from roc4mllm.hub.mplug_owl2_keys import original_name
from roc4mllm.modeling_roc4mllm.loss_aesthetics import earth_movers_distance, smooth_l1

SHARED = Path(os.environ.get("ROC4MLLM_SHARED", Path(__file__).resolve().parents[3] / "shared"))
FOLDER = SHARED / "fixtures" / "roc4mllm"
CASES = sorted(path.name.split(".")[0] for path in FOLDER.glob("*.weights.safetensors")) or ["a"]
LOGITS, VISION, LOSS, SCORE, GRADIENT = 2e-4, 5e-5, 2e-5, 1e-4, 1e-4
IMAGE = -200  # what the originals write in the place of a picture
FORWARD = ["batch", "multi", "list", "twoscore", "textonly", "notarget"]
SCORED = ["batch", "multi", "list", "twoscore", "notarget"]


class Case:
    """One set of tiny weights, what went in, and what the originals made of it."""

    def __init__(self, name: str):
        self.facts = json.loads((FOLDER / f"{name}.json").read_text())
        self.config = self.facts["config"]
        self.inputs, self.outputs = (
            load_file(FOLDER / f"{name}.{part}.safetensors") for part in ("inputs", "outputs")
        )
        self.model = load_original("roc4mllm", load_file(FOLDER / f"{name}.weights.safetensors"), self.config)
        self.backbone = self.model.backbone
        self.columns = self.config["vocab_size"] - self.config["num_tokens"]  # of text and [SCORE]
        self.pad, self.eos = self.config["pad_token_id"], self.config["eos_token_id"]

    def logits(self, name: str) -> torch.Tensor:
        """Their logits `(..., V)` without the columns of levels, which ours never had."""
        return self.outputs[name][..., : self.columns]

    def expand(self, ids: torch.Tensor, values: torch.Tensor, fill: int, pictures: list[int] | None = None) -> list:
        """
        Rows of `values`, one per id, with each placeholder's value replaced by `fill`, once for each image token.
        `pictures`: how many each placeholder of a row stands for; one by default.
        """
        each = self.backbone.config.num_image_tokens
        rows = []
        for row, (row_ids, row_values) in enumerate(zip(ids.tolist(), values.tolist(), strict=True)):
            count = each * (1 if pictures is None else pictures[row])
            parts = [[fill] * count if i == IMAGE else [v] for i, v in zip(row_ids, row_values, strict=True)]
            rows.append(torch.tensor(sum(parts, [])))
        return rows

    def batch(self, scenario: str, side: str = "right") -> dict:
        """Inputs of our model: image tokens in the ids, and pictures in their order."""
        ids = self.inputs[f"{scenario}.input_ids"]
        mask = self.inputs.get(f"{scenario}.attention_mask", torch.ones_like(ids))
        images, pictures = self.pictures(scenario, ids)
        parts = {
            "input_ids": (self.expand(ids, ids, self.backbone.config.image_token_id, pictures), self.pad),
            "attention_mask": (self.expand(ids, mask, 1, pictures), 0),
        }
        if (labels := self.inputs.get(f"{scenario}.labels")) is not None:
            parts["labels"] = (self.expand(ids, labels, -100, pictures), -100)
        return {"pixel_values": images} | {name: pad(rows, fill, side) for name, (rows, fill) in parts.items()}

    def pictures(self, scenario: str, ids: torch.Tensor) -> tuple[torch.Tensor, list[int] | None]:
        """Pictures `(I, 3, H, W)`, and how many each placeholder of a row stands for."""
        if f"{scenario}.images.0" in self.inputs:
            listed = [self.inputs[f"{scenario}.images.{row}"] for row in range(len(ids))]
            return torch.cat(listed), [len(images) for images in listed]
        images = self.inputs.get(f"{scenario}.images", self.inputs["gen.images"])
        # a row without placeholder takes a picture too, and nobody sees it
        seen = [image for row in ids for image in ([True] * int((row == IMAGE).sum()) or [False])]
        return images[: len(seen)][torch.tensor(seen)], None


def pad(rows: list[torch.Tensor], value: int, side: str) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value, padding_side=side)


@pytest.fixture(scope="module", params=CASES)
def case(request, shared):
    return Case(request.param)


@torch.no_grad()
def run(module, **inputs):
    return module(**inputs)


def inputs_of(batch: dict) -> dict:
    return {name: value for name, value in batch.items() if name != "labels"}


def close(found, expected, atol: float):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


# ---- one pass -------------------------------------------------------------------------------------------------------


def test_the_pictures_of_the_fixture_matter(case):
    """Without this, every equality below could hold for a model that is blind."""
    batch = inputs_of(case.batch("batch"))
    turned = batch | {"pixel_values": batch["pixel_values"].flip(0)}
    last = batch["attention_mask"].sum(1) - 1
    rows = torch.arange(len(last))
    logits, others = (run(case.backbone, **inputs).logits[rows, last] for inputs in (batch, turned))
    assert (logits - others)[0].abs().max() > 1e-2


@pytest.mark.parametrize("scenario", FORWARD)
def test_image_tokens(case, scenario):
    images, _ = case.pictures(scenario, case.inputs[f"{scenario}.input_ids"])
    features = case.backbone.get_image_features(images)
    vision, tokens = (case.outputs[f"{scenario}.{name}"] for name in ("vision_last_hidden_state", "abstractor_output"))
    skipped = len(vision) - len(images)  # pictures that nobody sees come first
    close(features.last_hidden_state, vision[skipped:], VISION)
    close(features.pooler_output, tokens[skipped:], VISION)


@pytest.mark.parametrize("scenario", FORWARD)
def test_layout_logits_and_states(case, scenario):
    batch = case.batch(scenario)
    valid = case.outputs[f"{scenario}.merged_attention_mask"].bool()
    is_image = batch["input_ids"] == case.backbone.config.image_token_id
    assert torch.equal(batch["attention_mask"].bool(), valid)
    assert torch.equal(is_image, case.outputs[f"{scenario}.modality_indicators"].bool())
    assert torch.equal(batch["labels"], case.outputs[f"{scenario}.merged_labels"])
    output = run(case.backbone.model, **inputs_of(batch), output_hidden_states=True)
    close(output.hidden_states[0][valid], case.outputs[f"{scenario}.inputs_embeds"][valid], VISION)
    close(output.last_hidden_state[valid], case.outputs[f"{scenario}.last_hidden_state"][valid], LOGITS)
    close(run(case.backbone, **inputs_of(batch)).logits[valid], case.logits(f"{scenario}.logits")[valid], LOGITS)


def test_without_mask(case):
    """Pads behind the text are seen by themselves only."""
    batch = case.batch("batch")
    found = run(case.backbone, input_ids=batch["input_ids"], pixel_values=batch["pixel_values"]).logits
    close(found, case.logits("batch_nomask.logits"), LOGITS)


def test_rows_alone(case):
    batch = case.batch("batch")
    for row, (ids, mask, image) in enumerate(
        zip(batch["input_ids"], batch["attention_mask"].bool(), batch["pixel_values"], strict=True)
    ):
        found = run(case.backbone, input_ids=ids[mask].unsqueeze(0), pixel_values=image.unsqueeze(0)).logits
        close(found, case.logits(f"batch.alone{row}.logits"), LOGITS)


# ---- scores and losses ----------------------------------------------------------------------------------------------


def scorer(case, slots: int):
    """The model with as many attributes as a row has slots."""
    model = copy.copy(case.model)
    model.config = copy.deepcopy(case.model.config)
    model.config.attributes = [f"attribute {number}" for number in range(slots)]
    return model


def rated(case, scenario: str) -> tuple[torch.nn.Module, dict, dict]:
    """Model, inputs and targets of a scenario with scores."""
    scores = case.inputs[f"{scenario}.gt_score"]  # (B, A)
    targets = {"scores": scores}
    if (votes := case.inputs.get(f"{scenario}.target")) is not None:
        targets["votes"] = votes.unflatten(1, (scores.shape[1], -1))  # (B, A, N)
    return scorer(case, scores.shape[1]), case.batch(scenario), targets


@pytest.mark.parametrize("scenario", SCORED)
def test_predicted_scores(case, scenario):
    model, batch, _ = rated(case, scenario)
    output = run(model, **batch)
    expected = case.outputs[f"{scenario}.pred_score"]  # (B, A)
    assert expected.std() > 1e-3
    close(output.scores, expected, SCORE)
    close(output.logits.flatten(0, 1), case.outputs[f"{scenario}.score_logits"], LOGITS)
    close(output.distribution.flatten(0, 1), case.outputs[f"{scenario}.level_probs"], SCORE)


@pytest.mark.parametrize("scenario", SCORED)
def test_score_losses(case, scenario):
    """Their EMD has one root over the whole batch; without a target they add the smooth-L1 term only."""
    model, batch, targets = rated(case, scenario)
    output = run(model, **batch, **targets)
    expected = {name: case.outputs.get(f"{scenario}.{name}_loss") for name in ("l1", "ce", "emd")}
    torch.testing.assert_close(output.smooth_l1_loss, expected["l1"][0], rtol=LOSS, atol=0)
    if "votes" in targets:
        torch.testing.assert_close(output.ce_loss, expected["ce"][0], rtol=LOSS, atol=0)
        emd = earth_movers_distance(
            output.distribution.flatten(0, 1), targets["votes"].flatten(0, 1), reduction="batch_root"
        )
        torch.testing.assert_close(emd, expected["emd"][0], rtol=LOSS, atol=0)
        assert abs(output.emd_loss - emd) > 1e-4  # ours, the mean of roots, is another number


@pytest.mark.parametrize("scenario", FORWARD)
def test_text_loss(case, scenario):
    """
    The originals keep the levels' rows in the softmax over text. Ours equals what their logits give without those
    columns, and is smaller than theirs.
    """
    batch = case.batch(scenario)
    slots = int((batch["input_ids"][-1] == case.config["score_id"]).sum())
    model = scorer(case, max(slots, 1))
    none = torch.full((len(batch["labels"]), 0), -1)
    found = run(model, **batch, slot_attributes=none if slots == 0 else None).text_loss
    labels = batch["labels"][:, 1:].flatten()
    theirs, without = (
        functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels)
        for logits in (case.outputs[f"{scenario}.logits"], case.logits(f"{scenario}.logits"))
    )
    torch.testing.assert_close(theirs, case.outputs[f"{scenario}.loss_text"].squeeze(), rtol=LOSS, atol=0)
    torch.testing.assert_close(found, without, rtol=LOSS, atol=0)
    torch.testing.assert_close(run(case.backbone, **batch).loss, without, rtol=LOSS, atol=0)
    assert found < theirs - 1e-5


def test_gradients(case):
    """Of their total loss, for which the levels' columns are put back behind those of text."""
    model = copy.deepcopy(case.model).train()
    batch, weights = case.batch("batch"), case.facts["batch"]["weights"]
    states = model.backbone.model(**inputs_of(batch)).last_hidden_state
    levels = model.score_head(states)  # (B, T, N)
    logits = torch.cat([model.backbone.lm_head(states), levels], dim=-1)  # (B, T, V)
    labels = batch["labels"][:, 1:]
    slots = levels[:, :-1][labels == case.config["score_id"]]  # (S, N)
    target, scores = case.inputs["batch.target"], case.inputs["batch.gt_score"].flatten()
    predicted = (slots.softmax(-1) * model.levels(slots)).sum(-1)
    loss = (
        functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten())
        + weights["l1_weight"] * smooth_l1(predicted, scores)
        + weights["ce_weight"] * functional.cross_entropy(slots, target)
        + weights["emd_weight"] * earth_movers_distance(slots.softmax(-1), target, reduction="batch_root")
    )
    torch.testing.assert_close(loss, case.outputs["batch.loss_total"][0], rtol=LOSS, atol=0)
    loss.backward()
    found = {original_name(name): value.grad for name, value in model.backbone.named_parameters()}
    found["lm_head.weight"] = torch.cat([found["lm_head.weight"], model.score_head.weight.grad])
    compared = 0
    for name, expected in case.outputs.items():
        if name.startswith("batch.grad."):
            close(found[name.removeprefix("batch.grad.")], expected, GRADIENT * expected.abs().max().item())
            compared += 1
    assert compared > 3
    norms = {name: norm for name, norm in case.facts["batch"]["grad_norm"].items() if norm is not None}
    assert set(norms) == set(found)
    for name, norm in norms.items():
        # the gradient of a key's bias is zero in theory: softmax does not see it
        assert found[name].norm().item() == pytest.approx(norm, rel=GRADIENT, abs=1e-5), name


# ---- generation -----------------------------------------------------------------------------------------------------


def generate(case, batch: dict, steps: int):
    return case.backbone.generate(
        **batch, max_new_tokens=steps, do_sample=False, return_dict_in_generate=True, output_logits=True
    )


def first_scores(case, batch: dict, written: torch.Tensor) -> torch.Tensor:
    """Score `(B,)` at the first `[SCORE]` that each row wrote, read in one pass; NaN where there is none."""
    ids = torch.cat([batch["input_ids"], written], dim=1)
    mask = torch.cat([batch["attention_mask"], torch.ones_like(written)], dim=1)
    counts = (ids == case.config["score_id"]).sum(1)
    slots = torch.full((len(ids), int(counts.max())), -1)
    slots[counts > 0, 0] = 0
    return run(
        case.model,
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        pixel_values=batch["pixel_values"],
        slot_attributes=slots,
    ).scores[:, 0]


def test_generation(case):
    batch, steps = case.batch("gen"), case.facts["gen"]["max_new_tokens"]
    found = generate(case, batch, steps)
    written = found.sequences[:, batch["input_ids"].shape[1] :]
    prompt = case.inputs["gen.input_ids"].shape[1]
    assert torch.equal(written, case.outputs["gen.sequences"][:, prompt:])
    assert len({tuple(row) for row in written.tolist()}) > 1  # the pictures differ, the prompt does not
    # a finished row is filled up with pads, and its logits mean nothing
    over = (written == case.eos).cumsum(1).roll(1, 1).bool()
    over[:, 0] = False
    close(torch.stack(found.logits, 1)[~over], case.logits("gen.step_logits")[~over], LOGITS)


def test_generation_alone(case):
    batch, facts = case.batch("gen"), case.facts["gen"]
    for row, (expected, score) in enumerate(zip(facts["alone_new_tokens"], facts["alone_pred_score"], strict=True)):
        alone = {name: value[row : row + 1] for name, value in batch.items()}
        written = generate(case, alone, facts["max_new_tokens"]).sequences[:, alone["input_ids"].shape[1] :]
        assert written[0].tolist() == expected
        if score != -1:
            assert first_scores(case, alone, written).item() == pytest.approx(score, abs=SCORE)


def test_generated_scores(case):
    """Where no [SCORE] was written, theirs is −1, a number like any other; ours is none."""
    batch = case.batch("gen")
    written = case.outputs["gen.sequences"][:, case.inputs["gen.input_ids"].shape[1] :]
    expected = case.outputs["gen.pred_score"]
    found = first_scores(case, batch, written)
    assert torch.equal(found.isnan(), expected == -1)
    close(found[expected != -1], expected[expected != -1], SCORE)


@pytest.mark.parametrize("scenario", ["gen_pad_right", "gen_pad_left"])
def test_padded_generation(case, scenario):
    """
    Theirs goes on from a pad, hides real tokens, and shows pads to later steps. Ours writes for each padded prompt
    what it writes for the prompt alone; for prompts without pads both agree.
    """
    steps = case.facts[scenario]["max_new_tokens"]
    rows = unpadded(case, scenario)
    batch = {name: pad(list(values), fill, "left") for name, values, fill in rows}
    images = case.inputs["gen.images"]
    found = generate(case, batch | {"pixel_values": images}, steps)
    written = found.sequences[:, batch["input_ids"].shape[1] :]
    theirs = case.outputs[f"{scenario}.sequences"][:, case.inputs[f"{scenario}.input_ids"].shape[1] :]
    full = case.inputs[f"{scenario}.attention_mask"].bool().all(1)
    for row, ids in enumerate(rows[0][1]):
        alone = {"input_ids": ids.unsqueeze(0), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        single = generate(case, alone | {"pixel_values": images[row : row + 1]}, steps)
        expected = single.sequences[0, len(ids) :]
        assert torch.equal(written[row, : len(expected)], expected)
        close(found.logits[0][row], single.logits[0][0], LOGITS)
        difference = (single.logits[0][0] - case.logits(f"{scenario}.step_logits")[row, 0]).abs().max()
        assert (difference > 1e-2) == (not full[row])
    assert torch.equal(written[full], theirs[full])
    assert not full.all()
    scores = first_scores(case, batch | {"pixel_values": images}, written)
    close(scores[full], case.outputs[f"{scenario}.pred_score"][full], SCORE)


@pytest.mark.parametrize("scenario", ["gen_pad_right", "gen_pad_left"])
def test_padding_is_all_that_differs(case, scenario):
    """Given the masks that theirs ends up with, and positions that count pads, ours gives their numbers."""
    mask = their_mask(case, scenario)
    theirs = case.logits(f"{scenario}.step_logits")
    logits = run(case.backbone, **case.batch(scenario) | {"attention_mask": mask}).logits[:, -1]
    close(logits, theirs[:, 0], LOGITS)
    close(cached_steps(case, scenario, mask, all_seen_later=True), theirs, LOGITS)


@pytest.mark.parametrize("scenario", ["gen_pad_right", "gen_pad_left"])
def test_masks_of_cached_steps(case, scenario):
    """
    The one thing that is deliberately another: theirs shows all keys to every step but the first, hidden ones too.
    Ours keeps the mask, and gives what one pass without cache gives, whichever mask that is.
    """
    batch, written = case.batch(scenario), their_words(case, scenario)
    for mask in (batch["attention_mask"], their_mask(case, scenario)):
        kept = cached_steps(case, scenario, mask)
        whole = run(
            case.backbone,
            input_ids=torch.cat([batch["input_ids"], written], dim=1),
            attention_mask=torch.cat([mask, torch.ones_like(written)], dim=1),
            pixel_values=batch["pixel_values"],
        ).logits
        close(kept, whole[:, mask.shape[1] - 1 : -1], LOGITS)
        difference = (kept - cached_steps(case, scenario, mask, all_seen_later=True)).abs().amax(-1)  # (B, steps)
        hides = ~mask.bool().all(1)
        assert hides.any()
        assert (difference[hides, 1:].amax(1) > 1e-3).all()
        assert (difference[~hides] < LOGITS).all()
        assert (difference[:, 0] == 0).all()


def their_words(case, scenario: str) -> torch.Tensor:
    """What the originals wrote, `(B, steps)`."""
    return case.outputs[f"{scenario}.sequences"][:, case.inputs[f"{scenario}.input_ids"].shape[1] :]


def their_mask(case, scenario: str) -> torch.Tensor:
    """The mask of their first step: the given one, behind as many ones as there are tokens of pictures."""
    given = case.inputs[f"{scenario}.attention_mask"]
    inserted = case.batch(scenario)["input_ids"].shape[1] - given.shape[1]
    return torch.cat([torch.ones(len(given), inserted, dtype=torch.long), given], dim=1)


def cached_steps(case, scenario: str, mask: torch.Tensor, all_seen_later: bool = False) -> torch.Tensor:
    """
    Logits `(B, steps, V)` of cached steps over what theirs wrote. `mask` `(B, T)` is that of the prompt; later steps
    keep it, or see all keys.
    """
    batch, written, cache = case.batch(scenario), their_words(case, scenario), DynamicCache()
    ids, images, found = batch["input_ids"], batch["pixel_values"], []
    for step in written.split(1, dim=1):
        output = run(
            case.backbone,
            input_ids=ids,
            attention_mask=mask,
            pixel_values=images,
            past_key_values=cache,
            use_cache=True,
        )
        found.append(output.logits[:, -1])
        ids, images = step, None
        mask = torch.cat([torch.ones_like(mask) if all_seen_later else mask, torch.ones_like(step)], dim=1)
    return torch.stack(found, 1)


def unpadded(case, scenario: str) -> list[tuple[str, list[torch.Tensor], int]]:
    """Ids and mask of each prompt without its pads."""
    batch = case.batch(scenario)
    keep = batch["attention_mask"].bool()
    return [
        (name, [row[kept] for row, kept in zip(batch[name], keep, strict=True)], fill)
        for name, fill in (("input_ids", case.pad), ("attention_mask", 0))
    ]


# ---- what the originals cannot do -----------------------------------------------------------------------------------


def test_score_in_some_rows_only(case):
    """The originals raise, or pair scores with the wrong rows."""
    assert "RuntimeError" in case.facts["checked_by_running"]["one of three samples has no [SCORE] label"]
    batch = case.batch("batch")
    expected = case.outputs["batch.pred_score"]
    is_score = batch["input_ids"][1] == case.config["score_id"]
    batch["input_ids"][1][is_score] = batch["input_ids"][1][is_score] - 1
    batch["labels"][1][is_score] = batch["input_ids"][1][is_score]
    slots = torch.tensor([[0], [-1], [0]])
    output = run(case.model, **batch, slot_attributes=slots, scores=case.inputs["batch.gt_score"])
    assert output.score_mask.flatten().tolist() == [True, False, True]
    assert output.scores[1].isnan()
    close(output.scores[[0, 2]], expected[[0, 2]], SCORE)
    rows = smooth_l1(expected[[0, 2]], case.inputs["batch.gt_score"][[0, 2]])
    close(output.smooth_l1_loss, rows, SCORE)


def test_too_many_pictures_are_an_error(case):
    """The originals ignore them."""
    assert case.facts["checked_by_running"]["too many images for the placeholders"] == "works"
    batch = inputs_of(case.batch("batch"))
    batch["pixel_values"] = torch.cat([batch["pixel_values"], batch["pixel_values"][:1]])
    with pytest.raises(ValueError, match="input_ids hold"):
        case.backbone(**batch)


def test_range_and_levels(case):
    config = case.model.config
    assert config.score_range == [float(case.config["min_score"]), float(case.config["max_score"])]
    assert config.num_levels == case.config["num_tokens"]
    assert config.score_token_id == case.config["score_id"]
    assert config.score_head_trained
    assert config.mllm_config.text_config.vocab_size == case.columns
