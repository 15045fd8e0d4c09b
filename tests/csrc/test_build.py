"""What NVRTC made of csrc/: which kernels, and that none spills, is out of shared memory or misses its matrix units."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CSRC = ROOT / "csrc"
INSTALLED = ROOT / "rcv" / "csrc"
SHARED_LIMIT = {"sm_70": 96 << 10, "sm_75": 64 << 10}

sys.path.insert(0, str(CSRC))
import build_kernel  # noqa: E402
import resources  # noqa: E402


def _manifest():
    path = INSTALLED / "manifest.json"
    if not path.exists():
        pytest.fail("rcv was built without its CUDA kernels: run `make install` without RCV_BUILD_CUDA=0")
    return json.loads(path.read_text())


def _resources():
    return [
        pytest.param(target, found, id=f"{name}-{target}")
        for name, kernel in _manifest()["kernels"].items()
        for target, found in kernel["resources"].items()
    ]


def test_the_build_is_of_these_sources():
    now = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in CSRC.iterdir()
        if path.suffix in (".cu", ".cuh")
    }
    assert _manifest()["sources"] == now, "the kernels are stale: run `make install`"


@pytest.mark.parametrize(("target", "found"), _resources())
def test_gates(target, found):
    assert found["spill_bytes"] == found["stack_bytes"] == found["local_accesses"] == 0
    assert found["shared_bytes"] <= SHARED_LIMIT[target]
    assert found["hmma"] > 0
    assert found["registers"] * found["threads"] <= 65536


def test_every_source_is_there_for_every_target():
    for source in CSRC.glob("*.cu"):
        for target in ("sm_70", "sm_75", "compute_70", "compute_75"):
            assert (INSTALLED / f"{source.stem}.{target}").stat().st_size > 0
        assert b"mma.sync.aligned.m8n8k4" in (INSTALLED / f"{source.stem}.compute_70").read_bytes()
        assert b"mma.sync.aligned.m16n8k8" in (INSTALLED / f"{source.stem}.compute_75").read_bytes()


SPILLS = """
extern "C" __device__ int many_launch[3] = {1024, 1, 256};
extern "C" __global__ void __launch_bounds__(1024, 1) many(float* x) {
  float v[200];
  for (int i = 0; i < 200; ++i) v[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
  for (int k = 0; k < 200; ++k)
    for (int i = 0; i < 200; ++i) v[i] = v[i] * v[(i * 7 + 1) % 200] + 1.0f;
  for (int i = 0; i < 200; ++i) x[i * 1024 + threadIdx.x] = v[i];
}
"""


def test_spills_are_seen(tmp_path):
    source = tmp_path / "many.cu"
    source.write_text(SPILLS)
    many = build_kernel.described(*build_kernel.compile_cuda(source, "sm_70"))["many"]
    assert many["spill_bytes"] > 0
    assert many["local_accesses"] > 0
    assert (many["threads"], many["rows"], many["shared_bytes"], many["hmma"]) == (1024, 1, 256, 0)


def test_a_refused_source_raises_with_the_compilers_words(tmp_path):
    source = tmp_path / "wrong.cu"
    source.write_text("__global__ void wrong() { undeclared(); }")
    with pytest.raises(build_kernel.CompileError, match="undeclared"):
        build_kernel.compile_cuda(source, "sm_75")


def test_headers_are_followed():
    headers = [header.name for header in build_kernel.headers_of(CSRC / "attention.cu")]
    assert headers == ["attention.cuh", "machine.cuh", "tensor.cuh", "tile.cuh"]


def test_the_documented_resources_are_those_of_the_build():
    page = (ROOT / "docs" / "cuda-kernels.md").read_text()
    assert page.endswith("\n\n" + resources.table(_manifest())), "run csrc/resources.py and replace the table"


def test_occupancy_is_limited_by_the_scarcest():
    kernel = {"threads": 128, "registers": 255, "shared_bytes": 1024}
    assert resources.blocks_per_multiprocessor("sm_70", kernel) == (2, 0.125)
    assert resources.blocks_per_multiprocessor("sm_70", {**kernel, "shared_bytes": 49 << 10}) == (1, 0.0625)
    assert resources.blocks_per_multiprocessor("sm_75", {**kernel, "registers": 32}) == (8, 1.0)
