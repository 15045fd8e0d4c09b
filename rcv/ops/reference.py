"""The operations in the plainest PyTorch, in the precision given: the truth for every backend.

Nothing here is fast or lean: keys are gathered and concatenated, probabilities are materialised, and
autograd differentiates.
"""

import torch


def frame_attention(q, pools, table, *, logit_bias=None, scale=None):
    """Attention of each query frame over the pool frames its row of `table` names.

    Shapes as in `rcv.ops.frame_attention`. One softmax over the keys of all named frames.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    frames = [(k[:, p], v[:, p]) for k, v in pools for p in range(k.shape[1])]
    outputs = []
    for i, row in enumerate(table.rows):
        logits, values = [], []
        for s, p in enumerate(row):
            if p < 0:
                continue
            k, v = frames[p]
            slot = torch.einsum("bnhd,bmhd->bhnm", q[:, i], k) * scale
            if logit_bias is not None:
                slot = slot + logit_bias[:, s].to(slot.dtype)[:, None, None]
            logits.append(slot)
            values.append(v)
        if logits:
            probabilities = torch.cat(logits, dim=-1).softmax(dim=-1)
            outputs.append(torch.einsum("bhnm,bmhd->bnhd", probabilities, torch.cat(values, dim=1)))
        else:
            outputs.append(torch.zeros_like(q[:, i]))
    return torch.stack(outputs, dim=1)


def temporal_attention(q, k, v, *, causal=False, scale=None):
    """Attention of each token over its own F frames; q, k, v [B, F, N, H, D]."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    logits = torch.einsum("binhd,bjnhd->bnhij", q, k) * scale
    if causal:
        future = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        logits = logits.masked_fill(future, float("-inf"))
    return torch.einsum("bnhij,bjnhd->binhd", logits.softmax(dim=-1), v)


def recurrent_scan(x, weight, h0=None, *, activation="tanh"):
    """h_i = f(W h_{i-1} + x_i); x [B, F, N, C], weight [C, C], h0 [B, N, C] or zero."""
    f = {"tanh": torch.tanh, "relu": torch.relu}[activation]
    h = torch.zeros_like(x[:, 0]) if h0 is None else h0.to(x.dtype)
    states = []
    for i in range(x.shape[1]):
        h = f(h @ weight.T + x[:, i])
        states.append(h)
    return torch.stack(states, dim=1)


def gated_scan(a, x, h0=None):
    """h_i = a_i h_{i-1} + x_i elementwise with a float32 state; a, x [B, F, N, C], h0 [B, N, C] or zero."""
    state_dtype = torch.promote_types(x.dtype, torch.float32)
    h = torch.zeros_like(x[:, 0], dtype=state_dtype) if h0 is None else h0.to(state_dtype)
    states = []
    for i in range(x.shape[1]):
        h = a[:, i].to(state_dtype) * h + x[:, i].to(state_dtype)
        states.append(h.to(x.dtype))
    return torch.stack(states, dim=1), h.clone()


def mingru_scan(gate, candidate, h0=None):
    """h_i = (1 - s(g_i)) h_{i-1} + s(g_i) c_i, s the sigmoid, all in float32; shapes as in `gated_scan`."""
    state_dtype = torch.promote_types(candidate.dtype, torch.float32)
    share = torch.sigmoid(gate.to(state_dtype))
    h, last = gated_scan(1 - share, share * candidate.to(state_dtype), h0)
    return h.to(candidate.dtype), last


def rglru_scan(forget, inlet, candidate, decay, h0=None):
    """h_i = a_i h_{i-1} + sqrt(max(1 - a_i^2, 1e-7)) s(inlet_i) c_i, a_i = exp(-8 softplus(decay) s(forget_i)).

    s is the sigmoid, all in float32; decay [C], other shapes as in `gated_scan`.
    """
    state_dtype = torch.promote_types(candidate.dtype, torch.float32)
    forget, inlet, c, decay = (t.to(state_dtype) for t in (forget, inlet, candidate, decay))
    a = torch.exp(-8 * torch.nn.functional.softplus(decay) * torch.sigmoid(forget))
    root = torch.sqrt(torch.clamp_min(1 - a**2, 1e-7))
    h, last = gated_scan(a, root * torch.sigmoid(inlet) * c, h0)
    return h.to(candidate.dtype), last


def attention(query, key, value, *, scale=None):
    """softmax(q k^T scale) v over [B, H, L, D]."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return (query @ key.transpose(-1, -2) * scale).softmax(dim=-1) @ value
