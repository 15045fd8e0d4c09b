"""Check an installed wheel from outside the checkout: `python installed.py`, no pytest needed.

Everything imports, shipped settings load, the compiled kernels are there for both chips and as both PTX versions, and
every operation gives the reference's result on the CPU.
"""

import importlib
import json
import pkgutil
import re
import sys
from pathlib import Path

import torch

import rcv
from rcv import ops
from rcv.ops import FrameTable, reference, registry

TARGETS = ("sm_70", "sm_75", "compute_70", "compute_75")
# What a program runs, what pytest collects, and the offline compiler of the Triton kernels: it needs Triton 3.6.
NOT_IMPORTED = re.compile(r"__main__$|conftest$|\.benchmarks\.test_|\.kernels\.compil")


def check_imports():
    """Import every module of the package; return how many there are."""
    names = [module.name for module in pkgutil.walk_packages(rcv.__path__, "rcv.")]
    names = [name for name in names if not NOT_IMPORTED.search(name)]
    for name in names:
        importlib.import_module(name)
    return len(names)


def check_kernels():
    """Every kernel of the manifest is described for both chips, every source there for all targets."""
    folder = Path(rcv.__file__).parent / "csrc"
    kernels = json.loads((folder / "manifest.json").read_text())["kernels"]
    assert kernels, "the wheel holds no CUDA kernels"
    for name, kernel in kernels.items():
        assert set(kernel["resources"]) == {"sm_70", "sm_75"}, name
        for target in TARGETS:
            code = (folder / f"{kernel['source']}.{target}").read_bytes()
            assert name.encode() in code, f"{name} is not in {kernel['source']}.{target}"
            assert code.startswith(b"\x7fELF") == target.startswith("sm_"), target
    return len(kernels)


def check_settings():
    """The settings that are known by name are there."""
    from rcv.training import FinetuneConfig

    names = FinetuneConfig.shipped_names()
    assert names, "the wheel holds no settings for cards"
    for name in names:
        FinetuneConfig.read_yaml(name)


def check_operations():
    """Every operation, forward and backward, against the reference in float64."""
    torch.manual_seed(0)
    table = FrameTable.first_memory(3)
    heads, tokens = (1, 3, 5, 2, 8), (1, 3, 5, 16)
    normal = {shape: lambda shape=shape: torch.randn(shape, dtype=torch.float64) for shape in (heads, tokens)}
    pools = [
        tuple(torch.randn(1, n, 5, 2, 8, dtype=torch.float64) for _ in "kv") for n in table.frames_per_pool
    ]
    arguments = {
        "frame_attention": (normal[heads](), pools, table),
        "temporal_attention": tuple(normal[heads]() for _ in "qkv"),
        "recurrent_scan": (normal[tokens](), torch.randn(16, 16, dtype=torch.float64) / 8),
        "gated_scan": (normal[tokens]().sigmoid(), normal[tokens]()),
        "mingru_scan": (normal[tokens](), normal[tokens]()),
        "rglru_scan": (*(normal[tokens]() for _ in range(3)), torch.randn(16, dtype=torch.float64)),
    }
    assert set(arguments) == set(registry.OPERATIONS) - {"attention"}
    for name, given in arguments.items():
        first = given[0].requires_grad_()
        results = []
        for function in (getattr(ops, name), getattr(reference, name)):
            output = function(*given)
            output = output[0] if isinstance(output, tuple) else output
            results.append((output, *torch.autograd.grad(output.sum(), first)))
        torch.testing.assert_close(*results)
    return len(arguments)


def main():
    """Run all checks and print what was found."""
    assert "site-packages" in rcv.__file__, f"{rcv.__file__} is no installed package"
    check_settings()
    imported, kernels, operations = check_imports(), check_kernels(), check_operations()
    print(
        f"Python {sys.version.split()[0]}, PyTorch {torch.__version__}: {imported} modules import, "
        f"{kernels} CUDA kernels for {', '.join(TARGETS)}, {operations} operations right"
    )


if __name__ == "__main__":
    main()
