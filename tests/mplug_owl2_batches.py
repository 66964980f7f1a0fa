"""Tiny mPLUG-Owl2 models, batches of any layout for them, and what its test files ask of them."""

import copy

import torch

PAD = 0


def inputs(model, *layouts: str, side: str = "right") -> dict:
    """
    A batch with a row for each layout, such as `"3i5ii"`: 3 words, a picture, 5 words, two pictures; random and the
    same at each call.
    """
    generator = torch.Generator().manual_seed(0)
    size, each = model.config.vision_config.image_size, model.config.num_image_tokens
    rows = []
    for layout in layouts:
        parts = [[model.config.image_token_id] * each if c == "i" else random_words(int(c), generator) for c in layout]
        rows.append(torch.tensor(sum(parts, [])))
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD, padding_side=side)
    ones = [torch.ones(len(row), dtype=torch.long) for row in rows]
    mask = torch.nn.utils.rnn.pad_sequence(ones, batch_first=True, padding_side=side)
    batch = {"input_ids": ids, "attention_mask": mask}
    if count := "".join(layouts).count("i"):
        batch["pixel_values"] = torch.randn(count, 3, size, size, generator=generator)
    return batch


def random_words(count: int, generator: torch.Generator) -> list[int]:
    return torch.randint(10, 200, (count,), generator=generator).tolist()


@torch.no_grad()
def logits(model, batch: dict, **kwargs) -> torch.Tensor:
    """Logits `(B, T, V)`, zero on padding."""
    return model(**batch, **kwargs).logits * batch["attention_mask"].unsqueeze(-1)


def close(found, expected, atol: float = 1e-5):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def generated(model, batch: dict, **kwargs) -> torch.Tensor:
    """New ids `(B, new)`."""
    return model.generate(**batch, do_sample=False, **kwargs)[:, batch["input_ids"].shape[1] :]


def logits_and_gradients(model, batch: dict) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Logits and all gradients by name, and how many tokens both copies of a projection saw."""
    model = copy.deepcopy(model).train()
    seen = {}
    for name in ("k_proj", "image_k_proj"):
        layer = getattr(model.model.language_model.layers[1].self_attn, name)
        layer.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0][..., 0].numel()}))
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    output = model(**batch, labels=labels)
    output.loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return {"logits": output.logits.detach() * batch["attention_mask"].unsqueeze(-1)} | gradients, seen
