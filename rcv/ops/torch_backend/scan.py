"""recurrent_scan as a loop over frames; the backward is the reversed loop, which reads the saved states."""

import torch


def recurrent_forward(x, weight, h0, activation):
    """Return h [B, F, N, C], contiguous; each state is rounded to x's dtype before the next frame reads it."""
    h = torch.empty_like(x, memory_format=torch.contiguous_format)
    transposed = weight.mT.expand(x.shape[0], -1, -1)
    for i in range(x.shape[1]):
        former = h0 if i == 0 else h[:, i - 1]
        if former is None:
            h[:, i] = x[:, i]
        else:
            torch.baddbmm(x[:, i], former, transposed, out=h[:, i])
        _activate(h[:, i], activation)
    return h


def recurrent_backward(dh, weight, h, h0, activation):
    """Return dx, dweight, dh0 (None without h0). dweight is one matrix product over all frames."""
    dx = torch.empty_like(h)
    expanded = weight.expand(h.shape[0], -1, -1)
    for i in reversed(range(h.shape[1])):
        g = dh[:, i]
        if i + 1 < h.shape[1]:
            g = torch.baddbmm(g, dx[:, i + 1], expanded)
        dx[:, i] = _through_activation(g, h[:, i], activation)
    return dx, *weight_and_state_gradients(dx, weight, h, h0)


def weight_and_state_gradients(dx, weight, h, h0):
    """Return dweight and dh0 (None without h0) from dx [B, F, N, C] and the states h."""
    # A sum over videos of one product each: frames and tokens are one axis without a copy.
    dweight = (dx[:, 1:].flatten(1, 2).mT @ h[:, :-1].flatten(1, 2)).sum(0)
    dh0 = None
    if h0 is not None:
        dweight += (dx[:, 0].mT @ h0).sum(0)
        dh0 = dx[:, 0] @ weight
    return dweight, dh0


def _activate(h, activation):
    return h.tanh_() if activation == "tanh" else h.relu_()


def _through_activation(g, h, activation):
    """Gradient before the activation, from the state after it."""
    if activation == "tanh":
        return torch.ops.aten.tanh_backward(g, h)
    return torch.ops.aten.threshold_backward(g, h, 0)
