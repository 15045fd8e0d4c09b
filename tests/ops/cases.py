"""Inputs of the operations, and the error bound that every backend is held to."""

import torch

from rcv.ops import FrameTable

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def normal(*shape, seed=0, dtype=torch.float64):
    """Return a leaf that requires gradients, the same for the same seed in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def attention_inputs(table, videos=2, tokens=5, keys=(4, 6), heads=2, width=8, dtype=torch.float64):
    """Return q and the pools of a table, the second pool's frames of another size than the first's."""
    q = normal(videos, table.frames, tokens, heads, width, seed=1, dtype=dtype)
    pools = [
        tuple(normal(videos, held, keys[j], heads, width, seed=10 + 2 * j + i, dtype=dtype) for i in (0, 1))
        for j, held in enumerate(table.frames_per_pool)
    ]
    return q, pools


def leaves(*items):
    """Return the tensors that require gradients, however nested."""
    found = []
    for item in items:
        if isinstance(item, torch.Tensor):
            found += [item] if item.requires_grad else []
        elif isinstance(item, (list, tuple)):
            found += leaves(*item)
    return found


def results(function, *inputs):
    """Return [outputs], [gradients of every leaf] for a fixed random gradient of the outputs."""
    outputs = function(*inputs)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    d = [normal(*o.shape, seed=50 + i).detach().to(o.dtype) for i, o in enumerate(outputs)]
    if not outputs[0].requires_grad:  # the reference of a table that names nothing: a constant
        return outputs, [torch.zeros_like(t) for t in leaves(*inputs)]
    gradients = torch.autograd.grad(outputs, leaves(*inputs), d, allow_unused=True, materialize_grads=True)
    return [o.detach() for o in outputs], gradients


def assert_close_to_reference(function, reference, *inputs):
    """Compare with the reference in float64, relative to the errors of the reference in the inputs' dtype.

    At most 2x its error in outputs and 3x in gradients, plus the rounding floor of the exact result: so that a
    reference that happens to be exact does not ask for exactness.
    """
    exact = results(reference, *_in_float64(inputs))
    same = results(reference, *inputs)
    ours = results(function, *inputs)
    dtype = leaves(*inputs)[0].dtype
    for kind, factor, sides in zip(
        ("output", "gradient"), (2, 3), zip(exact, same, ours, strict=True), strict=True
    ):
        for i, (truth, theirs, mine) in enumerate(zip(*sides, strict=True)):
            assert mine.shape == truth.shape
            floor = 2 * torch.finfo(dtype).eps * truth.abs().max()
            bound = factor * (theirs.double() - truth).abs().max() + floor
            error = (mine.double() - truth).abs().max()
            assert error <= bound, f"{kind} {i}: error {error:.3g}, bound {bound:.3g}"


def _in_float64(items):
    if isinstance(items, torch.Tensor):
        return items.detach().double().requires_grad_(items.requires_grad)
    if isinstance(items, (list, tuple)):
        return type(items)(_in_float64(item) for item in items)
    return items


TABLES = {
    "first": FrameTable.first(3),
    "text of one frame": FrameTable.first(1),
    "first_former": FrameTable.first_former(4),
    "first_memory": FrameTable.first_memory(3),
    "first_memory carried": FrameTable.first_memory(3, carried=True),
    "first_memory of one frame": FrameTable.first_memory(1),
    "causal": FrameTable.causal(3),
    "window": FrameTable.window(4, 2),
    "repeated names": FrameTable([[0, 0, 1], [1, 1, 1]], (1, 2)),
    "rows of -1": FrameTable([[-1, -1], [1, 0], [-1, -1], [-1, 2]], (2, 2)),
    "nothing": FrameTable([[-1], [-1]], (1,)),
    "across pools": FrameTable([[0], [1], [2], [3]], (2, 2)),
    "backwards": FrameTable([[3], [2], [1], [0]], (4,)),
}
