"""The plan against what happens: PyTorch's own account of a CPU's memory during the same step."""

import dataclasses

import pytest
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

from rcv.planning import Setting, budget, plan
from rcv.planning.steps import TrainingStep
from tests.planning.small import SMALL

SETTING = Setting(SMALL, frames=5, height=64, width=48, precision="fp32")


def allocated_peak(run):
    """Most bytes that the CPU's allocator has given out while `run` runs, beyond those before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    pending, totals = list(profiler.profiler.kineto_results.experimental_event_tree()), []
    while pending:
        event = pending.pop()
        pending += event.children
        if event.tag == _EventType.Allocation and event.extra_fields.device.type == "cpu":
            fields = event.extra_fields
            totals.append((event.start_time_ns, fields.total_allocated, fields.alloc_size))
    totals.sort()
    _, total, size = totals[0]
    return max(total for _, total, _ in totals) - (total - size)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"checkpointing": "selective"},
        {"checkpointing": "full"},
        {"preset": "tune-a-video", "frames": 9},
        {"preset": "paper", "batch": 2},
        {"preset": "first-frame", "precision": "bf16"},
        {"preset": "streaming", "frames": 9, "window": 4, "checkpointing": "selective"},
    ],
    ids=str,
)
def test_training_peak(changes):
    """Within 3 % with the weights; of what the step itself takes, temporaries inside PyTorch's kernels may lack."""
    setting = dataclasses.replace(SETTING, **changes)
    planned = plan("train", setting, budget("cpu"))
    step = TrainingStep(dataclasses.replace(setting, capability=None))
    step.run()
    measured = allocated_peak(step.run)
    assert planned.resident + measured == pytest.approx(planned.peak, rel=0.03)
    assert 0.99 < measured / (planned.peak - planned.resident) < 1.12
