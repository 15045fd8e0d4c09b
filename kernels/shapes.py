"""What is compiled offline: the operations' calls at Stable Diffusion's shapes, on meta tensors."""

import contextlib
import importlib
import itertools
from dataclasses import dataclass

import torch

from rcv.kernels.launch import recording
from rcv.ops import FrameTable, registry

PRODUCTS = ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))
ELEMENTWISE = ((7, 0), (7, 5), *PRODUCTS)
CAPABILITIES = {
    "frame_attention": PRODUCTS,
    "temporal_attention": PRODUCTS,
    "recurrent_scan": PRODUCTS,
    "gated_scan": ELEMENTWISE,
    "mingru_scan": ELEMENTWISE,
    "rglru_scan": ELEMENTWISE,
}
# "tf32": float32 tensors while `torch.backends.cuda.matmul.allow_tf32` is set.
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "tf32": torch.float32,
}
# (tokens, heads, head dim) of the UNet's levels: of 512x512 and of 320x512 pixels.
LEVELS = (
    (4096, 8, 40),
    (2560, 8, 40),
    (1024, 8, 80),
    (640, 8, 80),
    (256, 8, 160),
    (160, 8, 160),
    (64, 8, 160),
    (40, 8, 160),
    (4096, 5, 64),
    (1024, 10, 64),
    (256, 20, 64),
    (64, 20, 64),
)
# The scans' launches do not depend on the number of frames.
FRAMES = {"frame_attention": (8, 32, 128), "temporal_attention": (8, 32, 128)}
FEWEST_FRAMES = (8,)
VIDEOS = (1, 2)
# What stands for all shapes where a dtype or variant is not the first: the narrowest and the widest heads, whole blocks
# and masked ones, states of many tokens and of few. Frame attention, whose tiles differ most, at every head dim.
TELLING_LEVELS = ((4096, 8, 40), (40, 8, 160))
TELLING_ATTENTION = (*TELLING_LEVELS, (640, 8, 80), (256, 20, 64))
# Where registers are scarcest, all variants of frame attention.
SCARCE_DTYPES, SCARCE_LEVELS = ("float32", "tf32"), ((640, 8, 80), (40, 8, 160))
TELLING_FRAMES = {"temporal_attention": (8, 128)}  # sequences within one tile and beyond
VARIANTS = {
    "frame_attention": ("first_memory", "first_memory bias", "first_former", "text", "text bias"),
    "temporal_attention": ("", "causal"),
    "recurrent_scan": ("tanh", "relu", "tanh h0"),
    "gated_scan": ("", "h0"),
    "mingru_scan": ("", "h0"),
    "rglru_scan": ("", "h0"),
}
TEXT_TOKENS = 77
SELECTIONS = ("all", "sd", "core", "quick")


@dataclass(frozen=True)
class Case:
    """One operation, forward and backward, on one shape in one dtype.

    Attributes
    ----------
    operation : str
    variant : str
        One of the operation's `VARIANTS`.
    dtype : str
        A name in `DTYPES`.
    videos, frames, tokens, heads, head_dim : int
        B, F, N, H and D; the scans see H D channels.
    """

    operation: str
    variant: str
    dtype: str
    videos: int
    frames: int
    tokens: int
    heads: int
    head_dim: int

    @property
    def capabilities(self):
        """The compute capabilities that the operation runs on."""
        return CAPABILITIES[self.operation]

    @property
    def shape(self):
        """The shape and the variant in words."""
        sizes = f"B{self.videos} F{self.frames} N{self.tokens} H{self.heads} D{self.head_dim}"
        return f"{sizes} {self.variant}".strip()

    def launches(self, capability):
        """Return the Launches of this case on a device of this capability, forward and backward."""
        program = importlib.import_module(registry.BACKENDS["triton"].programs[self.operation])
        with allowing_tf32(self.dtype == "tf32"), recording(capability) as recorder:
            _CALLS[self.operation](self, program)
        return recorder.launches

    def _meta(self, *shape, dtype=None):
        return torch.empty(shape, device="meta", dtype=dtype or DTYPES[self.dtype])


def cases(selection="sd"):
    """Return Cases of all operations that have kernels.

    Parameters
    ----------
    selection : str
        "core" for all shapes of the first variant in float16; "sd" for these and, at the telling shapes, the other
        dtypes of the first variant and the other variants in float16, of frame attention at the widest heads in exact
        float32 and TF32 too; "all" for all variants in all dtypes at all shapes; "quick" for a few shapes of "core".
    """
    found = []
    for op in CAPABILITIES:
        if op not in registry.BACKENDS["triton"].programs:
            continue
        every = [(variant, dtype) for variant in VARIANTS[op] for dtype in DTYPES]
        first, dtype = every[0]
        frames = FRAMES.get(op, FEWEST_FRAMES)
        if selection == "quick":
            found += _product(op, every[:1], LEVELS[::4], (32,), (1,))
            continue
        found += _product(op, every if selection == "all" else every[:1], LEVELS, frames, VIDEOS)
        if selection == "sd":
            others = [kind for kind in every[1:] if kind[0] == first or kind[1] == dtype]
            levels = TELLING_ATTENTION if op == "frame_attention" else TELLING_LEVELS
            found += _product(op, others, levels, TELLING_FRAMES.get(op, FEWEST_FRAMES), VIDEOS[-1:])
            if op == "frame_attention":
                scarce = [kind for kind in every if kind[1] in SCARCE_DTYPES]
                found += _product(op, scarce, SCARCE_LEVELS, FEWEST_FRAMES, VIDEOS[-1:])
    return found


def _product(op, kinds, levels, frames, videos):
    return [
        Case(op, *kind, b, f, *level)
        for kind, level, f, b in itertools.product(kinds, levels, frames, videos)
    ]


@contextlib.contextmanager
def allowing_tf32(allowed):
    """Within a `with` block, float32 products are computed in TF32 or exactly."""
    former = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = former


def _frame_attention(case, program):
    name, *rest = case.variant.split()
    if name == "text":
        table, keys = FrameTable.first(case.frames), TEXT_TOKENS
    else:
        table, keys = getattr(FrameTable, name)(case.frames), case.tokens
    width = (case.heads, case.head_dim)
    q = case._meta(case.videos, case.frames, case.tokens, *width)
    pools = [
        tuple(case._meta(case.videos, held, keys, *width) for _ in "kv") for held in table.frames_per_pool
    ]
    bias = case._meta(case.heads, table.slots, dtype=torch.float32) if rest else None
    scale = case.head_dim**-0.5
    o, lse = program.forward(q, pools, table.key, bias, scale)
    program.backward(o, q, pools, o, lse, table.key, bias, scale, bias is not None)


def _temporal_attention(case, program):
    q, k, v = (case._meta(case.videos, case.frames, case.tokens, case.heads, case.head_dim) for _ in "qkv")
    causal, scale = case.variant == "causal", case.head_dim**-0.5
    o = program.forward(q, k, v, causal, scale)
    program.backward(o, q, k, v, causal, scale)


def _recurrent_scan(case, program):
    activation, *state = case.variant.split()
    channels = case.heads * case.head_dim
    x = case._meta(case.videos, case.frames, case.tokens, channels)
    weight = case._meta(channels, channels)
    h0 = case._meta(case.videos, case.tokens, channels) if state else None
    h = program.recurrent_forward(x, weight, h0, activation)
    program.recurrent_backward(h, weight, h, h0, activation)


def _gated_scan(case, program):
    a, x, h0 = _gates_and_state(case, 2)
    h, h_last = program.gated_forward(a, x, h0)
    program.gated_backward(h, h_last, a, h, h0)


def _mingru_scan(case, program):
    gate, candidate, h0 = _gates_and_state(case, 2)
    h, h_last = program.mingru_forward(gate, candidate, h0)
    program.mingru_backward(h, h_last, gate, candidate, h, h0)


def _rglru_scan(case, program):
    *gates, h0 = _gates_and_state(case, 3)
    decay = case._meta(case.heads * case.head_dim, dtype=torch.float32)
    h, h_last = program.rglru_forward(*gates, decay, h0)
    program.rglru_backward(h, h_last, *gates, decay, h, h0)


def _gates_and_state(case, count):
    channels = case.heads * case.head_dim
    gates = [case._meta(case.videos, case.frames, case.tokens, channels) for _ in range(count)]
    return *gates, case._meta(case.videos, case.tokens, channels) if case.variant == "h0" else None


_CALLS = {
    "frame_attention": _frame_attention,
    "temporal_attention": _temporal_attention,
    "recurrent_scan": _recurrent_scan,
    "gated_scan": _gated_scan,
    "mingru_scan": _mingru_scan,
    "rglru_scan": _rglru_scan,
}
