"""Shapes that Stable Diffusion 1.x and 2.x bring to the operations, as data, and inputs for them."""

import functools
import itertools
import math
from dataclasses import dataclass, replace

import torch

from rcv.ops import FrameTable

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
ELEMENTWISE = ("gated_scan", "mingru_scan", "rglru_scan")
TABLES = ("first_memory", "first_former", "first", "text", "causal", "window")
TEXT_TOKENS = 77  # CLIP's context length
FRAMES = (8, 16, 32, 64, 128)

# (tokens, heads, head dim) of the UNet's levels: 512x512 pixels are 64x64 latents, 320x512 are 40x64.
SD1_LEVELS = (
    (4096, 8, 40),
    (2560, 8, 40),
    (1024, 8, 80),
    (640, 8, 80),
    (256, 8, 160),
    (160, 8, 160),
    (64, 8, 160),
    (40, 8, 160),
)
SD2_LEVELS = ((4096, 5, 64), (1024, 10, 64), (256, 20, 64), (64, 20, 64))
# The most telling first: the suite starts from the left and stops where its time ends.
FRAMES_BY_IMPORTANCE = (32, 128, 8, 16, 64)


@dataclass(frozen=True)
class Case:
    """One operation on one shape in one dtype.

    Attributes
    ----------
    operation : str
        "frame_attention", "temporal_attention", "recurrent_scan", "gated_scan", "mingru_scan" or "rglru_scan".
    frames, tokens, heads, head_dim, videos : int
        F, N, H, D and B. The scans see C = H D channels.
    dtype : str
        A name in `DTYPES`.
    table : str
        A name in `TABLES`; of frame_attention alone.
    activation : str
        "tanh" or "relu"; of recurrent_scan alone.
    """

    operation: str
    frames: int
    tokens: int
    heads: int
    head_dim: int
    dtype: str = "float16"
    videos: int = 1
    table: str = ""
    activation: str = ""

    @property
    def channels(self):
        """C, all heads together."""
        return self.heads * self.head_dim

    @property
    def keys(self):
        """Tokens of one pool frame."""
        return TEXT_TOKENS if self.table == "text" else self.tokens

    @property
    def torch_dtype(self):
        """The dtype itself."""
        return DTYPES[self.dtype]

    @property
    def label(self):
        """The case as one readable word."""
        kind = self.table or self.activation
        shape = f"B{self.videos}-F{self.frames}-N{self.tokens}-H{self.heads}-D{self.head_dim}"
        return "-".join(filter(None, (self.operation, kind, shape, self.dtype)))

    def frame_table(self):
        """Return the FrameTable of a frame_attention case."""
        return _table(self.table, self.frames)


@functools.cache
def _table(name, frames):
    if name == "text":
        return FrameTable.first(frames)
    if name == "window":
        return FrameTable.window(frames, 3)
    return getattr(FrameTable, name)(frames)


def inputs_of(case, device, seed=0):
    """Return the operation's tensors as leaves that require gradients, equal for equal seeds on one device.

    frame_attention: q, k, v and, with a second pool, k2, v2. temporal_attention: q, k, v. recurrent_scan: x, weight.
    gated_scan: a, x. mingru_scan: gate, candidate. rglru_scan: forget, inlet, candidate, decay.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, device=device, dtype=torch.float32)

    b, f, n, h, d, c = case.videos, case.frames, case.tokens, case.heads, case.head_dim, case.channels
    if case.operation == "frame_attention":
        pools = case.frame_table().frames_per_pool
        tensors = [normal(b, f, n, h, d)]
        tensors += [normal(b, held, case.keys, h, d) for held in pools for _ in "kv"]
    elif case.operation == "temporal_attention":
        tensors = [normal(b, f, n, h, d) for _ in "qkv"]
    elif case.operation == "recurrent_scan":
        # Spectral radius below 1: states neither die nor saturate over 128 frames.
        tensors = [normal(b, f, n, c), normal(c, c) * (0.7 / math.sqrt(c))]
    elif case.operation == "gated_scan":
        tensors = [normal(b, f, n, c).sigmoid(), normal(b, f, n, c)]
    elif case.operation == "mingru_scan":
        tensors = [normal(b, f, n, c) for _ in ("gate", "candidate")]
    else:
        tensors = [*(normal(b, f, n, c) for _ in ("forget", "inlet", "candidate")), normal(c) - 4]
    return tuple(t.to(case.torch_dtype).requires_grad_() for t in tensors)


def call(case, function, tensors):
    """Call `function`, which has the operation's signature, on what `inputs_of` returned; return a tuple of outputs."""
    if case.operation == "frame_attention":
        q, *flat = tensors
        pools = list(zip(flat[::2], flat[1::2], strict=True))
        outputs = function(q, pools, case.frame_table())
    elif case.operation == "recurrent_scan":
        outputs = function(*tensors, activation=case.activation)
    else:
        outputs = function(*tensors)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def output_gradients(outputs, seed=1):
    """Return a random gradient of every output, equal for equal seeds."""
    return tuple(
        torch.randn(o.shape, generator=torch.Generator(o.device).manual_seed(seed + i), device=o.device).to(
            o.dtype
        )
        for i, o in enumerate(outputs)
    )


def rotating_inputs(case, device, cache_bytes, most=16):
    """Return sets of inputs that together exceed twice the last-level cache, `most` at most.

    Calls that take them in turn find none of their inputs in the cache.
    """
    first = inputs_of(case, device)
    size = sum(t.nbytes for t in first)
    count = min(most, max(1, math.ceil(2 * cache_bytes / size)))
    return [first, *(inputs_of(case, device, seed) for seed in range(1, count))]


def quick(dtype="float32"):
    """Return a few small cases: seconds on a CPU."""
    level = {"tokens": 64, "heads": 8, "head_dim": 40, "dtype": dtype}
    return [
        Case("frame_attention", 8, table="first_memory", **level),
        Case("frame_attention", 8, table="text", **level),
        Case("temporal_attention", 16, **level),
        Case("recurrent_scan", 8, activation="tanh", **level),
        Case("gated_scan", 16, **level),
        Case("mingru_scan", 16, **level),
        Case("rglru_scan", 16, **level),
        Case("frame_attention", 4, 256, 2, 80, dtype, table="first_memory"),
        Case("temporal_attention", 8, 40, 8, 160, dtype),
        Case("recurrent_scan", 8, 40, 4, 160, dtype, activation="relu"),
    ]


def full(dtypes=("float16", "bfloat16")):
    """Return the Stable Diffusion shapes, the most telling first."""
    cases = []
    for dtype in dtypes:
        for frames in FRAMES_BY_IMPORTANCE:
            for level in (*SD1_LEVELS, *SD2_LEVELS):
                shape = (frames, *level, dtype)
                cases.append(Case("frame_attention", *shape, table="first_memory"))
                cases.append(Case("temporal_attention", *shape))
                cases.append(Case("recurrent_scan", *shape, activation="tanh"))
                cases += [Case(operation, *shape) for operation in ELEMENTWISE]
        # The other tables at one frame count: their kernels are the same, their tables are not.
        for table, level in itertools.product(("first_former", "text"), SD1_LEVELS):
            cases.append(Case("frame_attention", 32, *level, dtype, table=table))
    return cases


def odd(dtypes=("float32", "float16", "bfloat16")):
    """Return tiny shapes that no tile divides, over every table: for correctness alone."""
    cases = []
    for dtype, width in itertools.product(dtypes, (40, 80, 160, 64)):
        shape = {"frames": 3, "tokens": 37, "heads": 2, "head_dim": width, "dtype": dtype, "videos": 2}
        tables = TABLES if width == 40 else ("first_memory",)
        cases += [Case("frame_attention", table=table, **shape) for table in tables]
        cases.append(Case("temporal_attention", **shape))
        cases += [Case("recurrent_scan", activation=f, **shape) for f in ("tanh", "relu")]
        cases += [Case(operation, **shape) for operation in ELEMENTWISE]
        # One frame and one token: every loop at its shortest.
        cases.append(replace(cases[-1], frames=1, tokens=1))
    return cases


def all_frames(dtypes=("float16", "bfloat16", "float32")):
    """Return recurrent_scan with so many tokens that a program of the Triton backend keeps its own for all frames.

    There a thread reads what another has written the frame before, behind a barrier that no interpreter tests.
    """
    # More tokens than the largest chip asks for, and no tile divides them.
    shape = {"frames": 5, "tokens": 4099, "heads": 8, "head_dim": 40, "videos": 2}
    activations = ("tanh", "relu")
    return [
        Case("recurrent_scan", dtype=dtype, activation=f, **shape) for dtype in dtypes for f in activations
    ]
