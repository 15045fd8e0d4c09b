"""frame_attention: every query frame attends to the pool frames that its row of a table names, in one softmax."""

import torch

from rcv.ops import checks, registry
from rcv.ops.library import autocast_enabled, define
from rcv.ops.table import FrameTable


def frame_attention(q, pools, table, *, logit_bias=None, scale=None):
    """Attention over the frames of one or two pools that a table names; nothing is concatenated or expanded.

    ``o_i = softmax_over_all_keys(scale q_i K^T + bias) V`` where K and V are the tokens of all pool frames in row i of
    `table`. A frame that is named twice counts twice; a row without a frame gives 0 and no gradient.

    Parameters
    ----------
    q : Tensor [B, F, N, H, D]
        Queries of F frames of N tokens, H heads of D channels. Any strides.
    pools : sequence of one or two (k, v)
        Each k and v is [B, P_j, M_j, H, D], P_j frames of M_j tokens, with strides of its own.
    table : FrameTable
        F rows; its pools hold P_j frames.
    logit_bias : Tensor [H, S], optional
        Float32 and finite (float64 for float64 queries), added after the scale to every key of slot S. Differentiable.
    scale : float, optional
        ``D ** -0.5`` by default.

    Returns
    -------
    Tensor [B, F, N, H, D]
        Contiguous, in q's dtype.

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit; the message names the argument.
    BackendError
        If the backend that was asked for cannot run on these inputs.

    Notes
    -----
    Kept for the backward: q, the pools, the output and its log-sum-exp [B, F, N, H]. Results are bitwise
    reproducible. No second derivative.
    """
    op = "frame_attention"
    checks.shaped(op, "q", q, "BFNHD")
    videos, frames, _, heads, width = q.shape
    if not isinstance(table, FrameTable):
        raise ValueError(f"{op}: table is {type(table).__name__}, expected an rcv.ops.FrameTable")
    if table.frames != frames:
        raise ValueError(
            f"{op}: table has {table.frames} rows and q has {frames} frames, expected one row a frame"
        )
    if len(pools) != len(table.frames_per_pool):
        raise ValueError(
            f"{op}: pools holds {len(pools)} (k, v) pairs, the table expects {len(table.frames_per_pool)}"
        )
    for j, (k, v) in enumerate(pools):
        held = table.frames_per_pool[j]
        checks.shaped(op, f"pools[{j}][0] (keys)", k, "BPMHD", B=videos, P=held, H=heads, D=width)
        checks.shaped(
            op, f"pools[{j}][1] (values)", v, "BPMHD", B=videos, P=held, M=k.shape[2], H=heads, D=width
        )
        if held and k.shape[2] == 0:
            raise ValueError(
                f"{op}: pools[{j}][0] (keys) has shape {list(k.shape)}, expected one token or more"
            )
        _same_dtype(op, q, k, f"pools[{j}][0] (keys)")
        _same_dtype(op, q, v, f"pools[{j}][1] (values)")
    if logit_bias is not None:
        checks.shaped(op, "logit_bias", logit_bias, "HS", H=heads, S=table.slots)
        checks.on_device(op, "logit_bias", logit_bias, "q", q)
    scale = width**-0.5 if scale is None else float(scale)
    k2, v2 = pools[1] if len(pools) == 2 else (None, None)
    k, v = pools[0]
    return _forward(q, k, v, k2, v2, table.key, logit_bias, scale, registry.requested())[0]


def attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """Attention with the signature and the layout of `torch.nn.functional.scaled_dot_product_attention`.

    Parameters
    ----------
    query : Tensor [B, H, L, D]
    key, value : Tensor [B, H, S, D]
    scale : float, optional
        ``D ** -0.5`` by default.

    Returns
    -------
    Tensor [B, H, L, D]
        A transposed view of [B, L, H, D].

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit, or if `attn_mask`, `dropout_p`, `is_causal` or `enable_gqa` is asked
        for: this operation has none of them.
    """
    refused = {
        "attn_mask": attn_mask is not None,
        "dropout_p": dropout_p != 0.0,
        "is_causal": is_causal,
        "enable_gqa": enable_gqa,
    }
    for name, asked in refused.items():
        if asked:
            raise ValueError(
                f"attention: {name} is not supported; use torch.nn.functional.scaled_dot_product_attention for it"
            )
    checks.shaped("attention", "query", query, "BHLD")
    sizes = dict(zip("BHD", (query.shape[0], query.shape[1], query.shape[3]), strict=True))
    checks.shaped("attention", "key", key, "BHSD", **sizes)
    checks.shaped("attention", "value", value, "BHSD", S=key.shape[2], **sizes)
    q, k, v = (t.transpose(1, 2).unsqueeze(1) for t in (query, key, value))
    return frame_attention(q, [(k, v)], _ONE, scale=scale).squeeze(1).transpose(1, 2)


_ONE = FrameTable.first(1)


def _same_dtype(op, q, t, name):
    if autocast_enabled(q):
        checks.on_device(op, name, t, "q", q)
    else:
        checks.like(op, name, t, "q", q)


def _pools(k, v, k2, v2):
    return [(k, v)] if k2 is None else [(k, v), (k2, v2)]


def _kernel(q, k, v, k2, v2, table, logit_bias, scale, backend):
    program = registry.program("frame_attention", registry.Inputs.of(q), backend)
    return program.forward(q, _pools(k, v, k2, v2), table, logit_bias, scale)


def _fake(q, k, v, k2, v2, table, logit_bias, scale, backend):
    wide = torch.promote_types(q.dtype, torch.float32)
    return q.new_empty(q.shape), q.new_empty(q.shape[:-1], dtype=wide)


def _setup_context(ctx, inputs, output):
    q, k, v, k2, v2, ctx.table, logit_bias, ctx.scale, ctx.backend = inputs
    ctx.save_for_backward(q, k, v, k2, v2, logit_bias, *output)
    ctx.mark_non_differentiable(output[1])


def _autograd(ctx, do, _):
    q, k, v, k2, v2, logit_bias, o, lse = ctx.saved_tensors
    needed = logit_bias is not None and ctx.needs_input_grad[6]
    gradients = _backward(do, q, k, v, k2, v2, logit_bias, o, lse, ctx.table, ctx.scale, needed, ctx.backend)
    dq, dk, dv, *rest = gradients
    dk2, dv2 = (None, None) if k2 is None else rest[:2]
    return dq, dk, dv, dk2, dv2, None, rest[-1] if needed else None, None, None


def _autocast(dtype, q, k, v, k2, v2, *rest):
    cast = [t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in (q, k, v, k2, v2)]
    return *cast, *rest


def _backward_kernel(do, q, k, v, k2, v2, logit_bias, o, lse, table, scale, bias_gradient, backend):
    program = registry.program("frame_attention", registry.Inputs.of(q), backend)
    pools = _pools(k, v, k2, v2)
    dq, of_pools, dbias = program.backward(do, q, pools, o, lse, table, logit_bias, scale, bias_gradient)
    return [dq, *(g for pair in of_pools for g in pair), *([dbias] if bias_gradient else [])]


def _backward_fake(do, q, k, v, k2, v2, logit_bias, o, lse, table, scale, bias_gradient, backend):
    like = [q, k, v, *([] if k2 is None else [k2, v2]), *([logit_bias] if bias_gradient else [])]
    return [t.new_empty(t.shape) for t in like]


_backward = define(
    "frame_attention_backward(Tensor do, Tensor q, Tensor k, Tensor v, Tensor? k2, Tensor? v2, Tensor? logit_bias, "
    "Tensor o, Tensor lse, str table, float scale, bool bias_gradient, str backend) -> Tensor[]",
    _backward_kernel,
    _backward_fake,
)
_forward = define(
    "frame_attention(Tensor q, Tensor k, Tensor v, Tensor? k2, Tensor? v2, str table, Tensor? logit_bias, float scale, "
    "str backend) -> (Tensor, Tensor)",
    _kernel,
    _fake,
    setup_context=_setup_context,
    backward=_autograd,
    autocast=_autocast,
)
