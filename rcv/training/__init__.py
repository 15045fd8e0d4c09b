"""Finetuning on a few clips: settings, data, trainer, checkpoints and adapters."""

import importlib

_HOME = {
    "CheckpointError": "checkpoint",
    "ClipFolder": "clips",
    "ClipLostError": "inputs",
    "ClipsError": "clips",
    "DivergedError": "trainer",
    "DoesNotFitError": "memory",
    "FinetuneConfig": "config",
    "FinetuneResult": "run",
    "FolderBusyError": "lock",
    "Interrupted": "run",
    "OutOfMemoryError": "memory",
    "OutputError": "disk",
    "ProcessLostError": "processes",
    "finetune": "run",
    "read_adapter": "adapter",
    "save_adapter": "adapter",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'rcv.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rcv.training.{_HOME[name]}"), name)
