"""The elementwise scans: what is known of all frames at once by whole tensors, then one call a frame.

Chunks of tokens, so that what lies between the calls stays in a core's cache and is never as large as the inputs.
"""

import torch
import torch.nn.functional as F

from rcv.ops.gated import DECAY_SHARPNESS, INLET_FLOOR

# Elements of one tensor of a chunk. On the CPU a handful of 4 MiB stay in the last cache, and the call for one of 16
# frames is still worth two threads: a quarter of that took 1.0 to 1.5 times as long, whole tensors 0.9 to 3.5 times.
CHUNK_ELEMENTS = {"cpu": 1 << 20}
CHUNK_ELEMENTS_ELSEWHERE = 1 << 26


def gated_forward(a, x, h0):
    """Return h [B, F, N, C] in x's dtype and the last state [B, N, C] in float32 or wider."""
    h, last = _outputs(x)
    for tokens in _chunks(x):
        states = _states(h, tokens)
        _scan(_wide(a, tokens), _wide(x, tokens), _initial(h0, h, tokens), states)
        _keep(states, h, last, tokens)
    return h, last


def gated_backward(dh, dh_last, a, h, h0):
    """Return da, dx, dh0 (None without h0); reads the states as saved, rounded to h's dtype."""
    da, dx, dh0 = torch.empty_like(h), torch.empty_like(h), _empty_like(h0)
    for tokens in _chunks(h):
        a_c = _wide(a, tokens)
        g = _adjoint(dh[:, :, tokens], dh_last[:, tokens], a_c)
        torch.mul(g[:, 1:], h[:, :-1, tokens], out=da[:, 1:, tokens])
        torch.mul(g[:, 0], _initial(h0, h, tokens), out=da[:, 0, tokens])
        dx[:, :, tokens] = g
        if dh0 is not None:
            torch.mul(g[:, 0], a_c[:, 0], out=dh0[:, tokens])
    return da, dx, dh0


def mingru_forward(gate, candidate, h0):
    """Return h [B, F, N, C] in the candidate's dtype and the last state [B, N, C] in float32 or wider."""
    h, last = _outputs(candidate)
    for tokens in _chunks(candidate):
        share, c = _wide(gate, tokens).sigmoid(), _wide(candidate, tokens)
        states, state = _states(h, tokens), _initial(h0, h, tokens)
        for i in range(h.shape[1]):
            state = torch.lerp(state, c[:, i], share[:, i], out=states[:, i])
        _keep(states, h, last, tokens)
    return h, last


def mingru_backward(dh, dh_last, gate, candidate, h, h0):
    """Return dgate, dcandidate, dh0 (None without h0); reads the states as saved, rounded to h's dtype."""
    dgate, dcandidate, dh0 = torch.empty_like(h), torch.empty_like(h), _empty_like(h0)
    for tokens in _chunks(h):
        share = _wide(gate, tokens).sigmoid()
        kept = 1 - share
        g = _adjoint(dh[:, :, tokens], dh_last[:, tokens], kept)
        torch.mul(g, share, out=dcandidate[:, :, tokens])
        if dh0 is not None:
            torch.mul(g[:, 0], kept[:, 0], out=dh0[:, tokens])
        by_gate = _minus_former(_wide(candidate, tokens), h, h0, tokens, out=torch.empty_like(g))
        torch.mul(by_gate.mul_(g).mul_(share), kept, out=dgate[:, :, tokens])
    return dgate, dcandidate, dh0


def rglru_forward(forget, inlet, candidate, decay, h0):
    """Return h [B, F, N, C] in the candidate's dtype and the last state [B, N, C] in float32 or wider."""
    h, last = _outputs(candidate)
    rate = _rate(decay, last.dtype)
    for tokens in _chunks(candidate):
        log_a = _wide(forget, tokens).sigmoid().mul_(rate)
        x = _wide(inlet, tokens).sigmoid().mul_(candidate[:, :, tokens])
        a = log_a.exp()
        x.mul_(_free(log_a).clamp_min_(INLET_FLOOR).sqrt_())
        states = _states(h, tokens)
        _scan(a, x, _initial(h0, h, tokens), states)
        _keep(states, h, last, tokens)
    return h, last


def rglru_backward(dh, dh_last, forget, inlet, candidate, decay, h, h0):
    """Return dforget, dinlet, dcandidate, ddecay, dh0 (None without h0); reads the states as saved."""
    dforget, dinlet, dcandidate = (torch.empty_like(h) for _ in range(3))
    dh0 = _empty_like(h0)
    wide = dh_last.dtype
    rate = _rate(decay, wide)
    minus_drate = torch.zeros_like(rate)
    for tokens in _chunks(h):
        opening = _wide(forget, tokens).sigmoid()
        log_a = opening * rate
        a = log_a.exp()
        free = _free(log_a)
        root = free.clamp_min(INLET_FLOOR).sqrt_()
        share, c = _wide(inlet, tokens).sigmoid(), _wide(candidate, tokens)
        g = _adjoint(dh[:, :, tokens], dh_last[:, tokens], a)
        if dh0 is not None:
            torch.mul(g[:, 0], a[:, 0], out=dh0[:, tokens])
        into = g * root
        torch.mul(into, share, out=dcandidate[:, :, tokens])
        torch.mul(into.mul_(c).mul_(share), 1 - share, out=dinlet[:, :, tokens])
        # d h / d log a = a (h' - s c a / sqrt(1 - a^2)), h' the former state; the root has no slope on the floor.
        slope = torch.div(a, root, out=root).masked_fill_(free < INLET_FLOOR, 0)
        inlet_part = slope.mul_(share).mul_(c)
        by_opening = _minus_former(inlet_part, h, h0, tokens, out=inlet_part).mul_(g).mul_(a).mul_(opening)
        minus_drate += by_opening.sum((0, 1, 2))
        torch.mul(by_opening.mul_(-rate), 1 - opening, out=dforget[:, :, tokens])
    ddecay = minus_drate.mul_(DECAY_SHARPNESS).mul_(decay.to(wide).sigmoid()).to(decay.dtype)
    return dforget, dinlet, dcandidate, ddecay, dh0


def _rate(decay, wide):
    return F.softplus(decay.to(wide)).mul_(-DECAY_SHARPNESS)


def _free(log_a):
    """1 - a^2 from log a, which it overwrites: without the cancellation where a is near 1."""
    return log_a.mul_(2).expm1_().neg_()


def _scan(a, x, state, states):
    for i in range(states.shape[1]):
        state = torch.addcmul(x[:, i], a[:, i], state, out=states[:, i])


def _adjoint(dh, dh_last, a):
    """Gradient of every state [B, F, n, C]: g_i = dh_i + a_{i+1} g_{i+1}, from the last."""
    g = torch.empty_like(a)
    torch.add(dh[:, -1], dh_last, out=g[:, -1])
    for i in reversed(range(a.shape[1] - 1)):
        torch.addcmul(dh[:, i], a[:, i + 1], g[:, i + 1], out=g[:, i])
    return g


def _minus_former(t, h, h0, tokens, out):
    """t minus the state before every frame, [B, F, n, C]."""
    torch.sub(t[:, 0], _initial(h0, h, tokens), out=out[:, 0])
    torch.sub(t[:, 1:], h[:, :-1, tokens], out=out[:, 1:])
    return out


def _initial(h0, h, tokens):
    wide = torch.promote_types(h.dtype, torch.float32)
    return h.new_zeros(h[:, 0, tokens].shape, dtype=wide) if h0 is None else h0[:, tokens].to(wide)


def _outputs(x):
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty(x.shape), x.new_empty((x.shape[0], *x.shape[2:]), dtype=wide)


def _states(h, tokens):
    """Where the states of a chunk are computed: in h itself if that is wide enough."""
    if h.dtype in (torch.float32, torch.float64):
        return h[:, :, tokens]
    return h.new_empty(h[:, :, tokens].shape, dtype=torch.float32)


def _keep(states, h, last, tokens):
    last[:, tokens] = states[:, -1]
    if states.dtype != h.dtype:
        h[:, :, tokens] = states


def _wide(t, tokens):
    return t[:, :, tokens].to(torch.promote_types(t.dtype, torch.float32))


def _empty_like(h0):
    return None if h0 is None else h0.new_empty(h0.shape)


def _chunks(x):
    videos, frames, tokens, width = x.shape
    limit = CHUNK_ELEMENTS.get(x.device.type, CHUNK_ELEMENTS_ELSEWHERE)
    size = max(1, limit // max(1, videos * frames * width))
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]
