"""Settings of the training of the embedded model and of the motion world's CLIP."""

from pathlib import Path

from pydantic import Field, model_validator

from rcv.config import Config


class PretrainConfig(Config):
    """Settings of `rcv world pretrain`; the defaults are those of the model in the package."""

    output: Path = Field(Path("runs/world"), description="Folder for images, checkpoints, log and the model.")
    seed: int = Field(0, ge=0, description="Seed of the images, the weights and all draws.")
    size: int = Field(64, ge=16, multiple_of=16, description="Pixels a side.")
    images: int = Field(40_000, ge=1, description="Images rendered for training.")
    vae_widths: list[int] = Field([32, 64, 96], description="Channels of the autoencoder's levels.")
    vae_steps: int = Field(2_000, ge=1, description="Steps of the autoencoder.")
    vae_batch: int = Field(16, ge=1, description="Images a step of the autoencoder.")
    vae_learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate of the autoencoder.")
    vocabulary: int = Field(1_500, ge=600, description="Tokens of the tokenizer, bytes included.")
    text_width: int = Field(128, ge=8, description="Channels of the text model.")
    text_layers: int = Field(4, ge=1, description="Layers of the text model.")
    text_steps: int = Field(400, ge=1, description="Steps in which the text model learns to name attributes.")
    text_learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate of those steps.")
    widths: list[int] = Field([48, 96, 192], description="Channels of the UNet's levels.")
    heads: list[int] = Field([2, 3, 6], description="Attention heads of the UNet's levels.")
    steps: int = Field(9_000, ge=1, description="Steps of the UNet and the text model together.")
    batch: int = Field(32, ge=1, description="Latents a step.")
    learning_rate: float = Field(8e-4, gt=0, description="Highest learning rate of the UNet.")
    ema_decay: float = Field(0.998, ge=0, lt=1, description="Decay of the averaged weights that are kept.")
    caption_drop: float = Field(0.1, ge=0, lt=1, description="Share of captions left empty, for guidance.")
    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    workers: int = Field(2, ge=1, description="Processes that render.")

    @model_validator(mode="after")
    def _one_head_count_a_level(self):
        if len(self.heads) != len(self.widths):
            raise ValueError(f"heads names {len(self.heads)} levels and widths {len(self.widths)}")
        return self


class ClipConfig(Config):
    """Settings of `rcv world pretrain-clip`; the defaults are those of the CLIP in the package."""

    output: Path = Field(Path("runs/clip"), description="Folder for images, checkpoints, log and the model.")
    seed: int = Field(0, ge=0, description="Seed of the images, the weights and all draws.")
    size: int = Field(64, ge=16, multiple_of=16, description="Pixels a side.")
    images: int = Field(16_000, ge=1, description="Images rendered for training.")
    vocabulary: int = Field(1_500, ge=600, description="Tokens of the tokenizer, bytes included.")
    text_width: int = Field(128, ge=8, description="Channels of the text model.")
    text_layers: int = Field(4, ge=1, description="Layers of the text model.")
    text_steps: int = Field(150, ge=1, description="Steps in which the text model learns to name attributes.")
    text_learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate of those steps.")
    patch: int = Field(8, ge=2, description="Pixels a side of the vision model's patches.")
    width: int = Field(128, ge=8, description="Channels of the vision model.")
    layers: int = Field(4, ge=1, description="Layers of the vision model.")
    embedding: int = Field(128, ge=8, description="Channels of the space that frames and captions share.")
    steps: int = Field(800, ge=1, description="Steps of the vision model and the projections.")
    batch: int = Field(32, ge=2, description="Images a step.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate of those steps.")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="Decay of the averaged weights that are kept.")
    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    workers: int = Field(2, ge=1, description="Processes that render.")

    @model_validator(mode="after")
    def _whole_patches(self):
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not a multiple of patch {self.patch}")
        return self
