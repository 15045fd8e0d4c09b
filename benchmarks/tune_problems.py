"""What `tune` runs a kernel on: inputs of a row's size, what the kernel makes of them, and what it should."""

from dataclasses import dataclass

import torch

from rcv.kernels import attention, attention_dkv, attention_dq, gated, scan, temporal
from rcv.ops import FrameTable, registry
from rcv.ops.torch_backend import attention as torch_attention
from rcv.ops.torch_backend import gated as torch_gated
from rcv.ops.torch_backend import scan as torch_scan
from rcv.ops.torch_backend import temporal as torch_temporal

FRAMES = 16
LONGEST_SEQUENCE = 128  # frames, for the kernels that sequences beyond one tile take
# (tokens, heads) that stand for a head dim: the UNet levels of Stable Diffusion that have it.
LEVELS = {40: (4096, 8), 64: (1024, 10), 80: (1024, 8), 128: (1024, 8), 160: (256, 8)}
OTHER_LEVEL = (256, 8)
MOST_TOKENS = 8192
WIDTH = 640  # channels of a scan by frames; by tokens it has `scan.WALK_CHANNELS`


@dataclass(frozen=True)
class Problem:
    """One kernel on one set of inputs.

    Attributes
    ----------
    run : callable
        Runs the kernel, and what else its direction needs; returns a list of tensors.
    truths : list of Tensor
        What the tensors should be.
    """

    run: object
    truths: list

    def relative_error(self):
        """Return the largest relative error of the results, root mean square."""
        return max(
            ((got.double() - truth.double()).square().mean() / truth.double().square().mean()).sqrt().item()
            for got, truth in zip(self.run(), self.truths, strict=True)
        )


def operation_of(kernel):
    """Return the operation that a kernel is of."""
    return next(op for op in registry.OPERATIONS if kernel.startswith(f"{op}_"))


def problem_of(kernel, shape, device, small=False):
    """Return the Problem of a kernel for a row of the table of tiles.

    Parameters
    ----------
    kernel : str
    shape : dict
        The row's.
    device : torch.device
    small : bool
        A few frames and tokens of few channels, which Triton's interpreter runs in a second.
    """
    operation = operation_of(kernel)
    part = kernel.removeprefix(f"{operation}_").removesuffix("_kernel")
    dtype = torch.float32 if shape.get("bytes") == 4 else torch.float16
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size):
        return torch.randn(size, generator=generator, device=device, dtype=dtype)

    return _PROBLEMS[operation](part, shape, normal, small)


def _frame_attention(part, shape, normal, small):
    width, frames = shape["D"], 3 if small else FRAMES
    tokens, heads = (17, 1) if small else LEVELS.get(width, OTHER_LEVEL)
    tokens = min(tokens, shape.get("N", tokens))
    keys = min(tokens, shape.get("M", tokens))
    # Fewer keys than queries are those of a text.
    table = FrameTable.first_memory(frames) if keys == tokens else FrameTable.first(frames)
    q, do = (normal(1, frames, tokens, heads, width) for _ in "qd")
    pools = [tuple(normal(1, held, keys, heads, width) for _ in "kv") for held in table.frames_per_pool]
    named = table.key, None, width**-0.5
    o, lse = torch_attention.forward(q, pools, *named)
    if part == "fwd":
        return Problem(lambda: [attention.forward(q, pools, *named)[0]], [o])
    saved = do, q, pools, o, lse, *named, False
    dq, of_pools, _ = torch_attention.backward(*saved)
    if part == "bwd_dq":
        return Problem(lambda: [attention_dq.query_gradients(*saved)[0]], [dq])
    statistics = attention_dq.query_gradients(*saved)[1]

    def run():
        pairs = attention_dkv.key_value_gradients(do, q, pools, statistics, *named)
        return [t for pair in pairs for t in pair]

    return Problem(run, [t for pair in of_pools for t in pair])


def _temporal_attention(part, shape, normal, small):
    width = shape.get("D", 160)
    # One program takes all of a short sequence in the backward, two kernels share a long one.
    is_long = part in ("bwd_dq", "bwd_dkv")
    frames = (66 if small else LONGEST_SEQUENCE) if is_long else FRAMES
    tokens, heads = (1, 1) if small else LEVELS.get(width, OTHER_LEVEL)
    q, k, v, do = (normal(1, frames, tokens, heads, width) for _ in range(4))
    options = False, width**-0.5
    if part == "fwd":
        truth = torch_temporal.forward(q, k, v, *options)
        return Problem(lambda: [temporal.forward(q, k, v, *options)], [truth])
    results = {"bwd": slice(0, 3), "bwd_dq": slice(0, 1), "bwd_dkv": slice(1, 3)}[part]
    truths = torch_temporal.backward(do, q, k, v, *options)[results]
    return Problem(lambda: list(temporal.backward(do, q, k, v, *options)[results]), list(truths))


def _recurrent_scan(part, shape, normal, small):
    by_frames = part.startswith("frame_")
    channels = WIDTH if by_frames else scan.WALK_CHANNELS
    tokens, frames = min(MOST_TOKENS, shape.get("tokens", MOST_TOKENS)), FRAMES
    if small:
        channels, tokens, frames = 16, 20 if by_frames else min(scan.WALK_TOKENS.values()), 2
    x, dh = (normal(1, frames, tokens, channels) for _ in "xd")
    weight = normal(channels, channels) * (0.7 * channels**-0.5)
    h = torch_scan.recurrent_forward(x, weight, None, "tanh")
    if part.endswith("fwd"):
        return Problem(lambda: [scan.recurrent_forward(x, weight, None, "tanh")], [h])
    saved = dh, weight, h, None, "tanh"
    truth = torch_scan.recurrent_backward(*saved)[0]
    return Problem(lambda: [scan.recurrent_backward(*saved)[0]], [truth])


def _elementwise_scan(name, gates):
    def problem(part, shape, normal, small):
        frames, channels = (3, 20) if small else (2 * FRAMES, scan.WALK_CHANNELS)
        tokens = 5 if small else shape["elements"] // channels
        inputs = [normal(1, frames, tokens, channels) for _ in range(gates)]
        if name == "gated":  # its gates come as they are
            inputs[0] = inputs[0].sigmoid()
        elif name == "rglru":
            inputs.append(normal(channels) - 4)
        h, last = getattr(torch_gated, f"{name}_forward")(*inputs, None)
        if part == "fwd":
            forward = getattr(gated, f"{name}_forward")
            return Problem(lambda: list(forward(*inputs, None)), [h, last])
        read = inputs[:1] if name == "gated" else inputs
        saved = normal(*h.shape), normal(*last.shape).float(), *read, h, None
        backward, truth = (getattr(module, f"{name}_backward") for module in (gated, torch_gated))
        # The last is the gradient of an initial state, which there is none of.
        return Problem(lambda: list(backward(*saved)[:-1]), list(truth(*saved)[:-1]))

    return problem


_PROBLEMS = {
    "frame_attention": _frame_attention,
    "temporal_attention": _temporal_attention,
    "recurrent_scan": _recurrent_scan,
    "gated_scan": _elementwise_scan("gated", 2),
    "mingru_scan": _elementwise_scan("mingru", 2),
    "rglru_scan": _elementwise_scan("rglru", 3),
}
