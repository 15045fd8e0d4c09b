"""Memory before the run: what a training step or a generation will take, and what to change where it does not fit."""

from rcv.planning.budget import CARDS, Budget, budget
from rcv.planning.models import NAMED, ModelShape, model_shape
from rcv.planning.plans import Plan, advice, most_frames, plan
from rcv.planning.steps import Setting, trace_generation, trace_training

__all__ = [
    "CARDS",
    "NAMED",
    "Budget",
    "ModelShape",
    "Plan",
    "Setting",
    "advice",
    "budget",
    "model_shape",
    "most_frames",
    "plan",
    "trace_generation",
    "trace_training",
]
