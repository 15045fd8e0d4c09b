"""Loading and launching the CUDA kernels, and what can go wrong, with a driver of no device."""

import ctypes
import json

import pytest
import torch

from rcv.ops import recurrent_scan, registry, why_not
from rcv.ops.cuda_backend import driver, scan
from rcv.ops.registry import Inputs
from tests.ops.fake_cuda import FakeDriver, driver_answering
from tests.standing_in import taking_cpu_tensors

V100 = Inputs("cuda", (7, 0), torch.float16)
ERROR = FakeDriver.CUresult
KERNEL = "recurrent_scan_fwd_kernel_c64"


@pytest.fixture(autouse=True)
def forgetful():
    """No answer about this machine outlives a test."""
    caches = (driver.manifest, driver.obstacles, driver._tiles, registry._importable, registry.program)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def answering(monkeypatch):
    """`with answering(...) as fake`: rcv.ops runs on the cuda backend, which talks to this driver."""

    def answering(**options):
        return driver_answering(monkeypatch, **options)

    with taking_cpu_tensors("cuda"):
        yield answering


def _inputs(width=40, frames=3):
    return torch.zeros(2, frames, 67, width, dtype=torch.float16), torch.zeros(
        width, width, dtype=torch.float16
    )


def _reasons(op="recurrent_scan", inputs=V100):
    return why_not(op, inputs, "cuda")


def test_the_driver_that_is_missing_is_the_reason(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert "cuda: there is no NVIDIA driver (libcuda.so.1)" in _reasons()
    driver.obstacles.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    assert driver.obstacles() == ()
    assert _reasons() == []


def test_bindings_that_are_missing_are_the_reason(monkeypatch):
    find = registry.importlib.util.find_spec
    monkeypatch.setattr(
        registry.importlib.util, "find_spec", lambda name: None if name == "cuda.bindings" else find(name)
    )
    assert "cuda: the package cuda-bindings is not installed" in _reasons()


def test_cubins_that_are_missing_are_the_reason(monkeypatch, tmp_path):
    manifest = driver.manifest()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for path in driver.FOLDER.iterdir():
        if path.name not in ("manifest.json", "scan.sm_70"):
            (tmp_path / path.name).write_bytes(b"")
    monkeypatch.setattr(driver, "FOLDER", tmp_path)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    assert _reasons() == [
        f"cuda: compiled kernels are missing from {tmp_path}: scan.sm_70. Install rcv-video again"
    ]


def test_a_build_without_kernels_is_the_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(driver, "FOLDER", tmp_path)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    (reason,) = _reasons()
    assert reason.startswith("cuda: rcv was built without its CUDA kernels")


@pytest.mark.parametrize("capability", [(3, 7), (6, 1)])
def test_an_older_chip_is_refused_before_anything_is_loaded(monkeypatch, capability):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    dotted = ".".join(map(str, capability))
    assert _reasons(inputs=Inputs("cuda", capability, torch.float16)) == [
        f"cuda: the device has compute capability {dotted}, it needs 7.0 or more"
    ]


def test_operations_without_products_say_why(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    for op in ("gated_scan", "mingru_scan", "rglru_scan"):
        assert _reasons(op) == ["cuda: it has no matrix product to gain from; triton and torch run it"]
    assert any("dtype is float32" in r for r in _reasons(inputs=Inputs("cuda", (7, 0), torch.float32)))


@pytest.mark.parametrize(
    ("capability", "target"),
    [((7, 0), "sm_70"), ((7, 2), "sm_70"), ((7, 5), "sm_75"), ((8, 6), "compute_75"), ((9, 0), "compute_75")],
)
def test_every_chip_loads_the_code_that_runs_on_it(answering, capability, target):
    with answering(capability=capability) as fake:
        recurrent_scan(*_inputs())
        sources = dict.fromkeys(kernel["source"] for kernel in driver.manifest()["kernels"].values())
        code = [(driver.FOLDER / f"{source}.{target}").read_bytes() + b"\0" for source in sources]
        assert list(fake.modules.values()) == code
        assert fake.shared_bytes == {name: tile.shared_bytes for name, tile in driver._tiles(target).items()}


@pytest.mark.parametrize(("capability", "entry"), [((7, 0), 0), ((7, 2), 0), ((7, 5), 5), ((9, 0), 5)])
def test_tables_by_chip_hold_for_those_above(answering, capability, entry):
    with answering(capability=capability):
        assert driver.of_chip({(7, 5): 5, (7, 0): 0}, _inputs()[0]) == entry


def test_a_launch_has_the_bounds_that_the_kernel_was_compiled_for(answering):
    with answering() as fake:
        x, weight = _inputs()
        recurrent_scan(x, weight)
        recurrent_scan(x, weight)
        assert len(fake.modules) == len({k["source"] for k in driver.manifest()["kernels"].values()})
        tile = driver._tiles("sm_70")[KERNEL]
        for kernel, blocks, threads, shared_bytes, _ in fake.launches:
            assert (kernel, blocks) == (KERNEL, 2 * 2)
            assert (threads, shared_bytes) == (tile.threads, tile.shared_bytes)
        assert len(fake.launches) == 2


def test_launches_of_frames_follow_each_other(answering):
    with answering() as fake:
        recurrent_scan(*_inputs(width=648, frames=5))
        assert [kernel for kernel, *_ in fake.launches] == ["recurrent_scan_frame_fwd_kernel_n64"] * 5
        assert {blocks for _, blocks, *_ in fake.launches} == {2 * 2 * 11}


def test_a_capture_is_refused_before_it_would_break(answering):
    with (
        answering(capturing=True) as fake,
        pytest.raises(RuntimeError, match="run the operation once before"),
    ):
        recurrent_scan(*_inputs())
    assert fake.modules == {}
    assert fake.contexts == 0


def test_a_capture_takes_kernels_that_are_loaded(answering, monkeypatch):
    with answering() as fake:
        recurrent_scan(*_inputs())
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        recurrent_scan(*_inputs())
        assert len(fake.launches) == 2


@pytest.mark.parametrize(
    ("function", "status", "said"),
    [
        ("cuDeviceGet", ERROR.CUDA_ERROR_INVALID_DEVICE, "INVALID_DEVICE, looking for device None"),
        ("cuDevicePrimaryCtxRetain", ERROR.CUDA_ERROR_OUT_OF_MEMORY, "OUT_OF_MEMORY, taking the context of"),
        ("cuModuleLoadData", ERROR.CUDA_ERROR_NO_BINARY_FOR_GPU, "NO_BINARY_FOR_GPU, loading .*sm_70 on"),
        ("cuModuleLoadData", ERROR.CUDA_ERROR_INVALID_IMAGE, "INVALID_IMAGE, loading .* capability 7.0"),
        ("cuModuleGetFunction", ERROR.CUDA_ERROR_NOT_FOUND, "NOT_FOUND, loading attention.*sm_70"),
        ("cuFuncSetAttribute", ERROR.CUDA_ERROR_INVALID_VALUE, "INVALID_VALUE, .*frame_attention_bwd"),
    ],
)
def test_kernels_that_do_not_load_say_what_and_where_and_leave_nothing(answering, function, status, said):
    with answering(**{function: status}) as fake:
        for _ in range(2):
            with pytest.raises(RuntimeError, match=f"CUDA driver: CUDA_ERROR_{said}"):
                recurrent_scan(*_inputs())
            assert fake.modules == {}
            assert fake.launches == []
        assert fake.contexts == 0
        fake.fails = {}
        recurrent_scan(*_inputs())
        assert len(fake.launches) == 1


def test_out_of_memory_is_pytorchs_error(answering):
    with answering(cuModuleLoadData=ERROR.CUDA_ERROR_OUT_OF_MEMORY), pytest.raises(torch.OutOfMemoryError):
        recurrent_scan(*_inputs())
    with answering(**{KERNEL: ERROR.CUDA_ERROR_OUT_OF_MEMORY}), pytest.raises(torch.OutOfMemoryError):
        recurrent_scan(*_inputs())


@pytest.mark.parametrize("status", [ERROR.CUDA_ERROR_ILLEGAL_ADDRESS, ERROR.CUDA_ERROR_MISALIGNED_ADDRESS])
@pytest.mark.parametrize("blocking", [False, True])
def test_an_error_of_the_device_names_operation_and_shapes(answering, monkeypatch, blocking, status):
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", str(int(blocking)))
    with answering(**{KERNEL: status}), pytest.raises(RuntimeError) as error:
        recurrent_scan(*_inputs())
    said = str(error.value)
    assert said.startswith(
        f"CUDA driver: {status.name}, launching {KERNEL} on float16[2, 3, 67, 40] (cpu), float16[40, 40] (cpu)"
    )
    assert ("may be an earlier kernel" in said) != blocking


def test_frames_after_one_that_fails_are_not_launched(answering):
    kernel = "recurrent_scan_frame_fwd_kernel_n64"
    with answering(**{kernel: ERROR.CUDA_ERROR_LAUNCH_FAILED}) as fake:
        asked = []
        launch = fake.cuLaunchKernel
        fake.cuLaunchKernel = lambda *arguments: asked.append(1) or launch(*arguments)
        with pytest.raises(RuntimeError, match=f"launching {kernel}"):
            recurrent_scan(*_inputs(width=648))
        assert asked == [1]


def test_tensors_on_two_devices_are_refused_before_the_launch(answering):
    x, weight = _inputs()
    with answering() as fake:
        with pytest.raises(ValueError, match="weight is on meta and x is on cpu"):
            recurrent_scan(x, weight.to("meta"))
        with pytest.raises(ValueError, match=r"one device, not float16\[2, 3, 67, 40\] \(cpu\), .*\(meta\)"):
            driver.launch(KERNEL, 4, scan.ScanParameters(), [x, weight.to("meta")])
        assert fake.modules == {}


def test_misaligned_tensors_are_copied_to_where_kernels_can_read_them(answering):
    x, weight = _inputs()
    shifted = torch.zeros(x.numel() + 1, dtype=torch.float16)[1:].view(x.shape)
    assert shifted.data_ptr() % 16
    addresses = []
    with answering() as fake:
        launch = fake.cuLaunchKernel

        def reading(*arguments):
            answer = launch(*arguments)
            addresses.append(scan.ScanParameters.from_address(fake.launches[-1][4]).added.data)
            return answer

        fake.cuLaunchKernel = reading
        recurrent_scan(x, weight)
        recurrent_scan(shifted, weight)
    assert addresses[0] == x.data_ptr()
    assert addresses[1] not in (x.data_ptr(), shifted.data_ptr())
    assert addresses[1] % 16 == 0
