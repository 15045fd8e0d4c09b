"""The reference's outputs and gradients in pieces, so that the largest cases fit where their softmax would not."""

import torch

from rcv.ops import FrameTable, reference

from .cases import call

PIECE_ELEMENTS = 1 << 26  # logits that exist at one time: 512 MiB of float64, of which autograd keeps several


def reference_results(case, inputs, gradients_of_outputs):
    """Return (outputs, gradients of every input) of `rcv.ops.reference`, in the dtype of `inputs`.

    Frames of frame_attention and tokens of temporal_attention are independent: each piece is differentiated on its own
    and the gradients of what pieces share are added in the inputs' dtype, as autograd adds them over the whole.
    """
    inputs = [t.detach().requires_grad_() for t in inputs]
    if case.operation == "frame_attention":
        return _frame_attention(case, inputs, *gradients_of_outputs)
    if case.operation == "temporal_attention":
        return _temporal_attention(case, inputs, *gradients_of_outputs)
    outputs = call(case, getattr(reference, case.operation), inputs)
    return [o.detach() for o in outputs], list(torch.autograd.grad(outputs, inputs, gradients_of_outputs))


def in_float64(tensors):
    """Return detached copies in float64."""
    return [t.detach().double() for t in tensors]


def _frame_attention(case, inputs, do):
    q, *flat = inputs
    table = case.frame_table()
    sums = [torch.zeros_like(t) for t in inputs]
    output = torch.zeros_like(q, requires_grad=False)
    for i, row in enumerate(table.rows):
        names = sorted({p for p in row if p >= 0})
        if not names:
            continue
        places = [_place(table, p) for p in names]
        named = [flat[2 * pool + kv][:, local : local + 1] for pool, local in places for kv in (0, 1)]
        renamed = _OneRow([names.index(p) if p >= 0 else -1 for p in row])
        keys_of_row = case.keys * sum(p >= 0 for p in row)
        size = max(1, PIECE_ELEMENTS // (case.videos * case.heads * keys_of_row))
        of_frame = [torch.zeros_like(t, dtype=torch.promote_types(t.dtype, torch.float32)) for t in named]
        for start in range(0, case.tokens, size):
            piece = (slice(None), slice(i, i + 1), slice(start, start + size))
            leaves = [t.detach().requires_grad_() for t in (q[piece], *named)]
            # Every named frame stands alone in its own pool here: the reference takes any number of them.
            pools = list(zip(leaves[1::2], leaves[2::2], strict=True))
            o = reference.frame_attention(leaves[0], pools, renamed)
            output[piece] = o.detach()
            sums[0][piece], *rest = torch.autograd.grad(o, leaves, do[piece])
            for total, gradient in zip(of_frame, rest, strict=True):
                total += gradient
        for (pool, local), dk, dv in zip(places, of_frame[::2], of_frame[1::2], strict=True):
            sums[1 + 2 * pool][:, local : local + 1] += dk
            sums[2 + 2 * pool][:, local : local + 1] += dv
    return [output], sums


class _OneRow:
    """What the reference reads of a FrameTable."""

    def __init__(self, row):
        self.rows = (tuple(row),)


def _place(table: FrameTable, p):
    first = table.frames_per_pool[0]
    return (0, p) if p < first else (1, p - first)


def _temporal_attention(case, inputs, do):
    per_token = case.videos * case.heads * case.frames**2
    size = max(1, PIECE_ELEMENTS // per_token)
    output = torch.empty_like(do)
    gradients = [torch.empty_like(do) for _ in inputs]
    for start in range(0, case.tokens, size):
        tokens = slice(start, start + size)
        leaves = [t.detach()[:, :, tokens].requires_grad_() for t in inputs]
        o = reference.temporal_attention(*leaves)
        output[:, :, tokens] = o.detach()
        parts = torch.autograd.grad(o, leaves, do[:, :, tokens])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient[:, :, tokens] = part
    return [output], gradients
