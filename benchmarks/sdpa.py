"""One set of keys by each of PyTorch's attention backends and by xformers; layout [b, n, H, D] throughout."""

import functools

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from .peers import HALF, Limits

LIMITS = {
    "math": Limits(devices=("cuda", "cpu")),
    "flash": Limits(devices=("cuda", "cpu"), capability=(8, 0), most_width=256),
    "cudnn": Limits(capability=(8, 0), dtypes=HALF, most_width=256),
    "efficient": Limits(capability=(5, 0), dtypes=(*HALF, "float32")),
}
XFORMERS = Limits(capability=(7, 0), dtypes=(*HALF, "float32"), module="xformers")
# How PyTorch says that the one backend it was left cannot run something.
NO_KERNEL = ("No available kernel", "No viable backend")
BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def reasons_of(name):
    """Return the function ``reasons(case, device)`` of an SDPA backend."""
    limits = LIMITS[name]

    def reasons(case, device):
        found = limits(case, device)
        if name == "flash" and device.type == "cuda" and case.dtype not in HALF:
            found.append(f"dtype is {case.dtype}, it takes {' or '.join(HALF)} on CUDA")
        return found

    return reasons


def attend_by(name):
    """Return ``attend(q, k, v, scale)`` by one SDPA backend, which raises where that backend cannot run."""
    return functools.partial(_attend, BACKENDS[name])


def _attend(backend, q, k, v, scale):
    with sdpa_kernel(backend):
        heads_first = (t.transpose(1, 2) for t in (q, k, v))
        return scaled_dot_product_attention(*heads_first, scale=scale).transpose(1, 2)


def attend_by_xformers(q, k, v, scale):
    """Attention by `xformers.ops.memory_efficient_attention`."""
    from xformers.ops import memory_efficient_attention

    return memory_efficient_attention(q, k, v, scale=scale)
