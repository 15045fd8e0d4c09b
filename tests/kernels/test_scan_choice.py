"""Which way recurrent_scan goes, by tokens, channels and chip."""

import pytest
import torch

from rcv.kernels import scan
from rcv.kernels.launch import recording


@pytest.mark.parametrize(
    ("shape", "capability", "launches"),
    [
        ((2, 5, 4096, 320), (8, 0), 1),
        ((1, 5, 4096, 320), (8, 0), 5),  # 64 tiles of tokens do not fill 108 multiprocessors
        ((2, 5, 4096, 320), (9, 0), 1),
        ((2, 5, 2560, 320), (9, 0), 5),
        ((8, 5, 4096, 640), (8, 0), 5),  # bound by the product whatever is done
    ],
)
def test_launches(shape, capability, launches):
    x = torch.empty(shape, device="meta", dtype=torch.float16)
    weight = torch.empty(shape[-1], shape[-1], device="meta", dtype=torch.float16)
    with recording(capability) as recorder:
        h = scan.recurrent_forward(x, weight, None, "tanh")
    assert len(recorder.launches) == launches
    with recording(capability) as recorder:
        scan.recurrent_backward(h, weight, h, None, "tanh")
    assert len(recorder.launches) == launches
