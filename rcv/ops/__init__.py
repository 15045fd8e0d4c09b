"""Operations of recurrent causal video, with interchangeable backends."""

from rcv.ops.attention import attention, frame_attention
from rcv.ops.gated import gated_scan, mingru_scan, rglru_scan
from rcv.ops.registry import BackendError, backend, set_backend, why_not
from rcv.ops.scan import recurrent_scan
from rcv.ops.table import FrameTable
from rcv.ops.temporal import temporal_attention

__all__ = [
    "BackendError",
    "FrameTable",
    "attention",
    "backend",
    "frame_attention",
    "gated_scan",
    "mingru_scan",
    "recurrent_scan",
    "rglru_scan",
    "set_backend",
    "temporal_attention",
    "why_not",
]
