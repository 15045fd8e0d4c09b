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
    "PublishError": "publish",
    "export_pipeline": "export",
    "export_run_lora": "export",
    "ProcessLostError": "processes",
    "finetune": "run",
    "push": "publish",
    "read_adapter": "adapter",
    "save_adapter": "adapter",
    "write_model_card": "model_card",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'rcv.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rcv.training.{_HOME[name]}"), name)
