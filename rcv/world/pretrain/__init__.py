"""Training of the embedded text-to-image model, and of a small CLIP, on single frames of the motion world."""

from rcv.world.pretrain.config import ClipConfig, PretrainConfig

__all__ = ["ClipConfig", "PretrainConfig", "pretrain"]


def pretrain(config):
    """Train the model in four resumable stages and write it; see `rcv.world.pretrain.run.pretrain`."""
    from rcv.world.pretrain.run import pretrain as run

    return run(config)
