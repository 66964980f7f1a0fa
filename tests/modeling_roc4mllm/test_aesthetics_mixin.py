"""Training against the long tail within `forward`, of a family with a language model and of one without."""

import copy
import itertools

import pytest
import torch
from common_tests import PICTURES, run
from tiny import scorer_parts
from tiny_training import eat_parts

from roc4mllm.modeling_roc4mllm.loss_aesthetics import smooth_l1

NAN = float("nan")
SCORES = torch.tensor([[1.0, NAN], [4.5, 2.0], [5.0, 3.0]])  # two attributes from 1 to 5
ONE_PAIR = {"pairs": 1, "tau_1": 0.5, "tau_2": 5.0}


def tiny_model(**options):
    return eat_parts(**options)[0]


def prepare(pictures):
    return dict(eat_parts()[1](pictures, return_tensors="pt"))


def roc4mllm():
    """Model and a training batch."""
    model, processor = scorer_parts("llava", ("aesthetics", "light"))
    batch = dict(processor(images=PICTURES, comments=["calm", None, "soft light"]))
    return model.train(), batch | {"scores": SCORES}


def eat():
    model = tiny_model(attributes=("aesthetics", "light"))
    return model.train(), prepare(PICTURES) | {"scores": SCORES}


def one_value():
    """A head without levels."""
    model = tiny_model(attributes=("aesthetics", "light"), num_levels=1)
    return model.train(), prepare(PICTURES) | {"scores": SCORES}


@pytest.fixture(params=[roc4mllm, eat, one_value], ids=lambda made: made.__name__)
def parts(request):
    return request.param()


def seeded(model, batch, seed: int = 0, **options):
    torch.manual_seed(seed)
    return model(**batch, **options)


def head_reads(model):
    """Features that the score head reads, call by call."""
    read = []
    model.score_head.register_forward_hook(lambda module, args, output: read.append(args[0].detach()))
    return read


def distance_to_lines(row, states) -> float:
    """How far a row lies from the nearest line between two states."""
    found = []
    for a, b in itertools.combinations(states, 2):
        share = ((row - b) @ (a - b) / (a - b).square().sum()).clamp(0, 1)
        found.append((row - share * a - (1 - share) * b).norm().item())
    return min(found)


class TestMixing:
    def test_mixed_rows_are_read_by_the_head_and_count_in_the_losses(self, parts):
        model, batch = parts
        read = head_reads(model)
        plain = seeded(model, batch)
        mixed = seeded(model, batch, tail_mixup={"pairs": 2, "tau_1": 0.5, "tau_2": 5.0})
        assert [len(features) for features in read[1:]] == [len(read[0]), 4]  # two of each attribute
        assert torch.equal(read[0], read[1])
        states, rows = read[1], read[2].to(read[1].dtype)
        assert all(distance_to_lines(row, states) < 1e-4 * states.norm(dim=-1).max() for row in rows)
        assert torch.equal(plain.scores, mixed.scores)
        assert plain.logits.shape == mixed.logits.shape
        assert (plain.smooth_l1_loss - mixed.smooth_l1_loss).abs() > 1e-3
        assert (plain.text_loss is None) == (mixed.text_loss is None)
        assert plain.text_loss is None or torch.equal(plain.text_loss, mixed.text_loss)

    def test_the_loss_is_the_mean_over_rated_and_mixed_rows(self):
        """By hand, of one attribute and a draw that is known: equal scores but one share."""
        model = tiny_model().train()
        batch = prepare(PICTURES[:2]) | {"scores": torch.tensor([[2.0], [2.0]])}
        read = head_reads(model)
        output = seeded(model, batch, tail_mixup=ONE_PAIR, loss_weights={"smooth_l1": 1.0, "emd": 0.0})
        torch.testing.assert_close(read[1][0], read[0].mean(0))  # equal scores: λ = 0.5
        logits = model.score_head(read[1])  # (1, 5)
        score = (logits.softmax(-1) * torch.arange(1.0, 6)).sum(-1)
        predicted = torch.cat([output.scores[:, 0], score])
        assert (predicted[0] - predicted[1]).abs() > 1e-3
        torch.testing.assert_close(output.loss, smooth_l1(predicted, torch.full((3,), 2.0)))

    def test_global_counts_divide_the_sums(self, parts):
        model, batch = parts
        own = seeded(model, batch, tail_mixup=ONE_PAIR)  # five scores and two mixed rows
        counted = seeded(model, batch, tail_mixup=ONE_PAIR, loss_counts={"scores": 14, "text": 1})
        torch.testing.assert_close(counted.smooth_l1_loss * 2, own.smooth_l1_loss)

    def test_evaluation_mixes_nothing(self, parts):
        model, batch = parts
        model.eval()
        plain = run(model, batch)
        state = torch.get_rng_state()
        asked = run(model, batch, tail_mixup=ONE_PAIR, loss_weights={"similarity": 3.0})
        assert torch.equal(plain.loss, asked.loss)
        assert asked.similarity_loss is None
        assert torch.equal(state, torch.get_rng_state())

    def test_the_same_seed_mixes_alike(self, parts):
        model, batch = parts
        losses = [seeded(model, batch, seed, tail_mixup=ONE_PAIR | {"tau_2": 0.0}).loss for seed in (0, 0, 1, 2, 3)]
        assert losses[0] == losses[1]
        assert any(loss != losses[0] for loss in losses[2:])

    def test_an_attribute_with_one_rating_has_no_pairs(self, parts):
        model, batch = parts
        scores = torch.tensor([[1.0, NAN], [4.0, NAN], [NAN, 2.0]])
        read = head_reads(model)
        seeded(model, batch | {"scores": scores}, tail_mixup=ONE_PAIR)
        assert [len(features) for features in read[1:]] == [1]
        loss = seeded(model, batch | {"scores": torch.full_like(scores, NAN)}, tail_mixup=ONE_PAIR).smooth_l1_loss
        assert loss == 0

    def test_gradients_reach_the_features_through_mixed_rows(self, parts):
        model, batch = parts
        gradients = []
        for options in ({}, {"tail_mixup": ONE_PAIR, "loss_counts": {"scores": 5, "text": 1}}):
            model.zero_grad()
            seeded(model, batch, **options, loss_weights={"text": 0.0}).loss.backward()
            name, value = next((n, p) for n, p in model.named_parameters() if p.grad is not None and p.ndim > 1)
            gradients.append(value.grad.clone())
            assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None), name
        assert (gradients[0] - gradients[1]).abs().max() > 1e-6

    def test_votes_are_mixed_as_scores_are(self):
        model = tiny_model().train()
        votes = torch.tensor([[0, 1.0, 0, 0, 0], [0, 0, 0, 1.0, 0]])[:, None]
        batch = prepare(PICTURES[:2]) | {"votes": votes}
        found = seeded(model, batch, tail_mixup=ONE_PAIR, loss_weights={"ce": 1.0})
        shares = torch.cat([votes[:, 0], torch.tensor([[0, 0.5, 0, 0.5, 0]])])  # both as far from the mean
        read = head_reads(model)
        seeded(model, batch, tail_mixup=ONE_PAIR)
        logits = model.score_head(torch.cat(read))
        expected = -(shares * logits.log_softmax(-1)).sum(-1).mean()
        torch.testing.assert_close(found.ce_loss, expected)

    def test_scores_of_other_ranges_are_drawn_alike(self):
        """Temperatures are for 1 to 10."""
        drawn = []
        for low, high in ((1.0, 5.0), (0.0, 400.0)):
            model = tiny_model(score_range=(low, high)).train()
            scores = low + (high - low) * torch.tensor([[0.1], [0.15], [0.9]])
            read = head_reads(model)
            seeded(model, prepare(PICTURES) | {"scores": scores}, tail_mixup=ONE_PAIR)
            drawn.append(read[1])
        torch.testing.assert_close(drawn[0], drawn[1], atol=1e-4, rtol=0)

    def test_unknown_options_are_refused(self, parts):
        model, batch = parts
        with pytest.raises(ValueError, match=r"\['tau'\]; known are"):
            model(**batch, tail_mixup={"tau": 1.0})

    def test_bfloat16(self, parts):
        model, batch = parts
        model = copy.deepcopy(model).to(torch.bfloat16)
        inputs = batch | {"pixel_values": batch["pixel_values"].to(torch.bfloat16)}
        output = seeded(model, inputs, tail_mixup=ONE_PAIR, loss_weights={"similarity": 1.0})
        output.loss.backward()
        assert output.loss.isfinite()


class TestSimilarity:
    def test_it_is_weighed_and_pulls_features_of_like_ratings_together(self, parts):
        model, batch = parts
        plain = seeded(model, batch)
        output = seeded(model, batch, loss_weights={"similarity": 2.0})
        assert output.similarity_loss > 1e-4
        torch.testing.assert_close(output.loss, plain.loss + 2 * output.similarity_loss)
        weights = {"similarity": 1.0} | dict.fromkeys(("text", "smooth_l1", "emd"), 0.0)
        model.zero_grad()
        seeded(model, batch, loss_weights=weights).loss.backward()
        assert any(value.grad.abs().max() > 0 for value in model.parameters() if value.grad is not None)

    def test_attributes_are_compared_apart(self, parts):
        model, batch = parts
        both = seeded(model, batch, loss_weights={"similarity": 1.0}).similarity_loss
        single = []
        for attribute in (0, 1):
            scores = torch.full_like(SCORES, NAN)
            scores[:, attribute] = SCORES[:, attribute]
            single.append(seeded(model, batch | {"scores": scores}, loss_weights={"similarity": 1.0}).similarity_loss)
        torch.testing.assert_close(both, (3 * single[0] + 2 * single[1]) / 5)


def test_a_loss_that_the_head_does_not_have_is_refused():
    model, batch = one_value()
    with pytest.raises(ValueError, match="weight for emd, and a head of one value has no such.*smooth_l1 alone"):
        model(**batch, loss_weights={"emd": 1.0})
