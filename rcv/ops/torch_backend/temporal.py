"""temporal_attention by batched matrix products over chunks of tokens; the backward keeps the inputs alone.

A token's sequence is short (F frames), so its whole softmax is recomputed in the backward: neither output nor
log-sum-exp is kept. PyTorch's flash kernel for the CPU is slower on such short sequences, its bfloat16 backward by an
order of magnitude.
"""

import torch

# Elements of the largest tensor of a chunk: what stays in a core's cache, and 256 MiB of float32 elsewhere.
CHUNK_ELEMENTS = {"cpu": 1 << 18}
CHUNK_ELEMENTS_ELSEWHERE = 1 << 26


def forward(q, k, v, causal, scale):
    """Return o [B, F, N, H, D], contiguous."""
    o = torch.empty_like(q, memory_format=torch.contiguous_format)
    for tokens in _chunks(q):
        q_c, k_c, v_c = (_sequences(t, tokens) for t in (q, k, v))
        _write(o, tokens, _probabilities(q_c, k_c, causal, scale) @ v_c)
    return o


def backward(do, q, k, v, causal, scale):
    """Return dq, dk, dv, contiguous."""
    gradients = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v)]
    for tokens in _chunks(q):
        do_c, q_c, k_c, v_c = (_sequences(t, tokens) for t in (do, q, k, v))
        p = _probabilities(q_c, k_c, causal, scale)
        dp = do_c @ v_c.mT
        ds = torch.ops.aten._softmax_backward_data(dp, p, -1, p.dtype).mul_(scale)
        for gradient, chunk in zip(gradients, (ds @ k_c, ds.mT @ q_c, p.mT @ do_c), strict=True):
            _write(gradient, tokens, chunk)
    return gradients


def _probabilities(q, k, causal, scale):
    logits = torch.baddbmm(q.new_empty(()), q, k.mT, beta=0, alpha=scale)
    if causal:
        future = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        logits.masked_fill_(future, float("-inf"))
    return logits.softmax(-1)


def _chunks(q):
    videos, frames, tokens, heads, width = q.shape
    limit = CHUNK_ELEMENTS.get(q.device.type, CHUNK_ELEMENTS_ELSEWHERE)
    size = max(1, limit // max(1, videos * heads * frames * max(frames, width)))
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)] if q.numel() else []


def _sequences(t, tokens):
    """[B, F, N, H, D] to one sequence [F, D] per video, token and head."""
    t = t[:, :, tokens].permute(0, 2, 3, 1, 4)
    return t.reshape(-1, *t.shape[-2:])


def _write(t, tokens, chunk):
    view = t[:, :, tokens].permute(0, 2, 3, 1, 4)
    view.copy_(chunk.view(view.shape))
