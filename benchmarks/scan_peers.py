"""Rivals of the scans: the loop in a CUDA graph, cuDNN's RNN, and a scan in log2 F passes.

h_i = A_i sum_j x_j / A_j with A the cumulative product of gates (`cumsum` form) is no rival: A underflows float32 after
some twenty frames of gates around 0.01, and the division then gives infinities.
"""

import warnings

import torch

from rcv.ops import reference

from .cases import inputs_of
from .peers import Candidate, Limits


def by_nn_rnn(x, weight, h0=None, *, activation="tanh"):
    """recurrent_scan by `nn.RNN`'s function, its input weight the identity."""
    videos, frames, tokens, width = x.shape
    h0 = x.new_zeros(1, videos * tokens, width) if h0 is None else h0.flatten(0, 1)[None]
    rnn = getattr(torch._VF, f"rnn_{activation}")
    identity = torch.eye(width, dtype=x.dtype, device=x.device)
    sequences = x.transpose(0, 1).reshape(frames, videos * tokens, width)
    with warnings.catch_warnings():
        # cuDNN copies the two weights into one buffer on each call: 2 C^2 elements beside the B F N C of x.
        warnings.filterwarnings("ignore", message=".*single contiguous chunk.*")
        h, _ = rnn(sequences, h0.contiguous(), [identity, weight], False, 1, 0.0, True, False, False)
    return h.unflatten(1, (videos, tokens)).transpose(0, 1)


def in_log_passes(a, x, h0=None):
    """gated_scan by doubling steps (Hillis and Steele): pass s joins each frame with the one 2^s before it, in float32.

    Sound for any gates: products of gates are never divided by.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    gates, states = a.to(wide), x.to(wide)
    step = 1
    while step < x.shape[1]:
        joined = torch.addcmul(states[:, step:], gates[:, step:], states[:, :-step])
        states = torch.cat([states[:, :step], joined], 1)
        gates = torch.cat([gates[:, :step], gates[:, step:] * gates[:, :-step]], 1)
        step *= 2
    if h0 is not None:
        states = torch.addcmul(states, gates, h0.to(wide)[:, None])
    return states.to(x.dtype), states[:, -1].clone()


def _graphed(operation):
    """Return the Candidate that captures the eager loop, forward and backward, in CUDA graphs."""

    def prepare(case):
        # Samples of its own: replays overwrite them with each call's inputs.
        samples = inputs_of(case, "cuda")
        options = {"activation": case.activation} if case.activation else {}
        function = getattr(reference, operation)
        graphed = torch.cuda.make_graphed_callables(lambda *tensors: function(*tensors, **options), samples)
        return lambda *tensors, **_: graphed(*tensors)

    return Candidate(
        "cuda-graph(reference)",
        operation,
        prepare,
        Limits(capability=(7, 0), cpu="CUDA graphs need a CUDA device"),
        "copies its inputs into the graph's buffers, which is counted",
        compiles=True,
    )


RECURRENT = [
    _graphed("recurrent_scan"),
    Candidate(
        "nn.RNN",
        "recurrent_scan",
        lambda case: by_nn_rnn,
        Limits(devices=("cuda", "cpu"), dtypes=("float16", "bfloat16", "float32", "float64")),
        "multiplies x by an identity input weight: one product over all frames more than asked",
    ),
]
GATED = [
    _graphed("gated_scan"),
    Candidate(
        "log-passes",
        "gated_scan",
        lambda case: in_log_passes,
        differs="log2 F passes over all frames in float32 memory",
    ),
]
MINGRU = [_graphed("mingru_scan")]
RGLRU = [_graphed("rglru_scan")]
