"""Counted work against numbers worked out by hand, and bounds of devices whose rates are known."""

import pytest
import torch

from benchmarks.bounds import Bound, Work, bound, work
from benchmarks.cases import Case
from benchmarks.computed import Rival, rival_of
from benchmarks.devices import Device, known_device, measured_device

SMALL = {"tokens": 5, "heads": 2, "head_dim": 4, "dtype": "float16"}


def test_first_and_memory():
    # Frames name 1, 2 and 2 pool frames of 5 tokens: 5 names. Scores: 2 heads x 5 queries x 5 keys x 5 names = 250.
    # q and o: 3 x 5 x 8 = 120 elements. Pools: (1 + 2) frames x 5 x 8 = 120, twice for k and v = 240.
    # Log-sum-exp: 3 x 5 x 2 rows of 4 bytes = 120.
    case = Case("frame_attention", 3, table="first_memory", **SMALL)
    assert work(case, "forward") == Work(4 * 250 * 4, 250, (120 + 120 + 240) * 2 + 120)
    assert work(case, "backward") == Work(10 * 250 * 4, 250, (4 * 120 + 2 * 240) * 2 + 120)


def test_a_frame_named_twice_is_counted_twice_but_read_once():
    # Every one of 3 frames names 2: 6 names, 300 scores; 3 pool frames.
    case = Case("frame_attention", 3, table="first_former", **SMALL)
    assert work(case, "forward") == Work(4 * 300 * 4, 300, (240 + 240) * 2 + 120)


def test_text_has_77_keys():
    # 2 heads x 3 frames x 5 queries x 77 keys = 2310 scores; one pool frame of 77 x 8 elements, k and v.
    case = Case("frame_attention", 3, table="text", **SMALL)
    assert work(case, "forward") == Work(4 * 2310 * 4, 2310, (240 + 2 * 616) * 2 + 120)


def test_temporal():
    # 2 videos x 5 tokens x 2 heads x 3 x 3 frames = 180 scores; 240 elements a tensor.
    case = Case("temporal_attention", 3, videos=2, **SMALL)
    assert work(case, "forward") == Work(4 * 180 * 4, 180, 4 * 240 * 2)
    assert work(case, "backward") == Work(10 * 180 * 4, 180, 7 * 240 * 2)


@pytest.mark.parametrize(("activation", "exponentials"), [("tanh", 120), ("relu", 0)])
def test_recurrent(activation, exponentials):
    # 8 channels; 2 frames have a state before them: 2 x 5 tokens x 8 x 8 multiply-adds = 640.
    case = Case("recurrent_scan", 3, activation=activation, **SMALL)
    assert work(case, "forward") == Work(1280, exponentials, (120 + 120 + 64) * 2)
    assert work(case, "backward") == Work(2560, 0, (3 * 120 + 2 * 64) * 2)


def test_gated():
    # a, x and h of 120 elements, the last state of 40 in float32.
    case = Case("gated_scan", 3, **SMALL)
    assert work(case, "forward") == Work(0, 0, 3 * 120 * 2 + 160)
    assert work(case, "backward") == Work(0, 0, 5 * 120 * 2 + 160)


def test_the_slowest_unit_sets_the_bound():
    device = Device("made up", "data sheet", {"float16": 100.0}, bytes=10.0, exponentials=1.0)
    assert bound(Work(500, 2, 10), device, "float16") == Bound(5.0, "matrix")
    assert bound(Work(500, 6, 10), device, "float16") == Bound(6.0, "exp")
    assert bound(Work(500, 2, 100), device, "float16") == Bound(10.0, "memory")
    assert bound(Work(0, 0, 20), device, "bfloat16") == Bound(2.0, "memory")


def test_a_rival_concatenates_and_pads():
    # 250 scores at 32 channels for 4. Keys and values of 5 names x 5 tokens x 8 channels: 400 elements; of the pools
    # 240. q and o: 240 elements; log-sum-exp 120 bytes.
    case = Case("frame_attention", 3, table="first_memory", **SMALL)
    assert rival_of(case, "forward") == Rival(Work(4 * 250 * 32, 250, (400 + 240) * 2 + 120), (400 + 240) * 2)
    # The gradients of both are written, then summed into the pools'.
    backward = Work(10 * 250 * 32, 250, (2 * 400 + 480) * 2 + 120)
    assert rival_of(case, "backward") == Rival(backward, (400 + 240) * 2)
    device = Device("made up", "data sheet", {"float16": 1e9}, bytes=1280.0, exponentials=1e9)
    assert rival_of(case, "forward").seconds(device, "float16") == 1400 / 1280 + 1


def test_a_rival_transposes():
    # 240 elements a tensor; q, k, v, o are read and written to be moved, and read or written by the attention.
    case = Case("temporal_attention", 3, videos=2, **SMALL)
    assert rival_of(case, "forward") == Rival(Work(4 * 180 * 32, 180, 4 * 480), 8 * 480)
    assert rival_of(case, "backward") == Rival(Work(10 * 180 * 32, 180, 8 * 480), 8 * 480)


@pytest.mark.parametrize(
    ("width", "kind"), [(40, "exp"), (80, "matrix"), (160, "matrix")], ids=["D40", "D80", "D160"]
)
def test_exact_head_dim_40_is_bound_by_exponentials_on_an_h200(width, kind):
    case = Case("frame_attention", 32, 4096, 8, width, table="first_memory")
    assert bound(work(case, "forward"), known_device("NVIDIA H200"), "float16").kind == kind


@pytest.mark.parametrize(
    ("name", "teraflops", "gigabytes"),
    [
        ("Tesla V100-SXM2-16GB", 125, 900),
        ("Tesla V100-PCIE-32GB", 112, 900),
        ("Tesla T4", 65, 320),
        ("NVIDIA A100-SXM4-40GB", 312, 1555),
        ("NVIDIA A100-SXM4-80GB", 312, 2039),
        ("NVIDIA A100 80GB PCIe", 312, 1935),
        ("NVIDIA H100 80GB HBM3", 989.4, 3350),
        ("NVIDIA H100 PCIe", 756, 2000),
        ("NVIDIA H200", 989.4, 4800),
    ],
)
def test_devices_of_the_data_sheets(name, teraflops, gigabytes):
    device = known_device(name)
    assert device.source == "data sheet"
    assert device.flops["float16"] == pytest.approx(teraflops * 1e12)
    assert device.bytes == pytest.approx(gigabytes * 1e9)


@pytest.mark.parametrize(
    "name", ["NVIDIA T400", "NVIDIA H100 NVL", "NVIDIA GeForce RTX 4090", "Tesla V100S-PCIE-32GB"]
)
def test_other_devices_are_not_taken_for_them(name):
    assert known_device(name) is None


def test_a_cpu_is_measured(monkeypatch):
    monkeypatch.setattr("benchmarks.devices._matrix_rate", lambda device, dtype, size: 2.0)
    device = measured_device.__wrapped__(torch.device("cpu"))
    assert device.source == "measured" and device.name
    assert set(device.flops) == {"float16", "bfloat16", "float32"}
    assert 1e7 < device.exponentials < 1e12
    assert 1e8 < device.bytes < 1e12
