"""
Score slots: where `[SCORE]` stands in a batch, and which attribute each one is.

Names of axes: B rows, T tokens, A attributes, S score slots, M supervised tokens.
"""

import torch


class Slots:
    """
    Where the `[SCORE]` tokens stand that have an attribute: `rows`, `positions` and `attributes`, each `(S,)`.
    """

    def __init__(self, rows: torch.Tensor, positions: torch.Tensor, attributes: torch.Tensor):
        self.rows, self.positions, self.attributes = rows, positions, attributes

    def lay_out(self, values: torch.Tensor, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Values `(S, X)` of all slots by row and attribute, `(B, A, X)`, NaN elsewhere; and where there are any."""
        index = (self.rows.to(values.device), self.attributes.to(values.device))
        mask = torch.zeros(shape, dtype=torch.bool, device=values.device)  # (B, A)
        filled = values.new_full((*shape, values.shape[-1]), torch.nan).index_put(index, values)
        return filled, mask.index_put(index, torch.ones_like(index[0], dtype=torch.bool))


def find_slots(
    input_ids: torch.Tensor, slot_attributes: torch.Tensor | None, score_token_id: int, num_attributes: int
) -> Slots:
    """
    Slots in reading order.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch_size, length)`): Ids.
        slot_attributes (`torch.LongTensor` of shape `(batch_size, num_slots)`, *optional*): Attribute of each slot.
        score_token_id (`int`): Id of `[SCORE]`.
        num_attributes (`int`): Number of attributes of the model.

    Raises:
        ValueError: If a row has more or fewer slots than attributes stated, names an attribute twice or one that does
            not exist, or begins with `[SCORE]`.
    """
    is_slot = input_ids == score_token_id  # (B, T)
    counts = is_slot.sum(1)  # (B,)
    rows, positions = is_slot.nonzero(as_tuple=True)  # (S,), (S,)
    if slot_attributes is None:
        if not (counts == num_attributes).all():
            raise ValueError(
                f"Each row must hold {num_attributes} [SCORE] tokens (one per attribute), got {counts.tolist()}. "
                "Pass `slot_attributes` for rows with other slots."
            )
        slot_attributes = torch.arange(num_attributes, device=input_ids.device).expand(len(input_ids), -1)  # (B, A)
    check_slot_attributes(slot_attributes, counts, num_attributes)
    if (positions == 0).any():
        raise ValueError("A row begins with [SCORE]; there is no position before it to read the score from.")
    order = is_slot.long().cumsum(1)[rows, positions] - 1  # (S,) number of the slot within its row
    attributes = slot_attributes.to(rows.device)[rows, order]  # (S,)
    used = attributes >= 0
    return Slots(rows[used], positions[used], attributes[used])


def check_slot_attributes(slot_attributes: torch.Tensor, counts: torch.Tensor, num_attributes: int) -> None:
    """Refuse attributes that do not fit the slots, or that stand twice in a row."""
    slot_attributes = slot_attributes.to(counts.device)
    if slot_attributes.ndim != 2 or len(slot_attributes) != len(counts):
        raise ValueError(
            f"slot_attributes must have shape ({len(counts)}, slots), got {tuple(slot_attributes.shape)}."
        )
    width = torch.arange(slot_attributes.shape[1], device=counts.device)
    beyond = (slot_attributes >= 0) & (width >= counts.unsqueeze(1))  # (B, slots)
    if (counts > slot_attributes.shape[1]).any() or beyond.any():
        stated = (slot_attributes >= 0).sum(1).tolist()
        raise ValueError(f"Rows hold {counts.tolist()} [SCORE] tokens, slot_attributes names {stated} slots.")
    if (slot_attributes >= num_attributes).any():
        raise ValueError(f"slot_attributes must be below {num_attributes}, got {slot_attributes.tolist()}.")
    for attribute in range(num_attributes):
        if ((slot_attributes == attribute).sum(1) > 1).any():
            raise ValueError(f"Attribute {attribute} stands twice in a row of slot_attributes.")


def supervised_positions(input_ids: torch.Tensor, labels: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Rows and positions `(M,)` whose NEXT token is supervised (label not −100); none without labels.
    """
    if labels is None:
        none = input_ids.new_zeros(0)
        return none, none
    if labels.shape != input_ids.shape:
        raise ValueError(
            f"labels must have the shape of input_ids {tuple(input_ids.shape)}, got {tuple(labels.shape)}."
        )
    rows, positions = (labels[:, 1:] != -100).nonzero(as_tuple=True)
    return rows, positions


__all__ = ["Slots", "find_slots", "supervised_positions"]
