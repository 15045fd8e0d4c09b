"""VideoUNet: diffusers' UNet2DConditionModel with frames folded into its batch."""

import inspect

import torch
from diffusers import ModelMixin, UNet2DConditionModel

from rcv.models.blocks import inflate
from rcv.models.presets import get_preset
from rcv.models.recompute import pinning_checkpoint, recompute_in_blocks, set_gradient_checkpointing
from rcv.models.sources import blocks_2d, load_unet_2d, misfit
from rcv.models.state import CarriedState, FrameCount, VideoUNetOutput, check_carries, check_state

__all__ = ["ModelMixin", "VideoUNet"]  # pipelines look for the name ModelMixin beside the model's class


def _registered_with_preset(init):
    """Give `init` its parent's signature and a preset: diffusers drops configuration keys that no signature names."""
    signature = inspect.signature(UNet2DConditionModel.__init__)
    preset = inspect.Parameter("preset", inspect.Parameter.KEYWORD_ONLY, default="recurrent")
    init.__signature__ = signature.replace(parameters=[*signature.parameters.values(), preset])
    return init


class VideoUNet(UNet2DConditionModel):
    """A Stable Diffusion 1.x or 2.x UNet over videos, its attention and memory chosen by a preset.

    Made by `from_config(config, preset=...)`, `from_pretrained_2d(path, preset=...)` or, for what `save_pretrained`
    wrote, `from_pretrained(path)`. Everything but the preset's trained set is frozen. Frames are a batch to the 2D
    layers, in the order [B*F]; the modules that see a video read the call's frame count from one FrameCount.
    """

    _no_split_modules = ("VideoTransformerBlock", "ResnetBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
    _repeated_blocks = ("VideoTransformerBlock",)
    offloaded = None  # OffloadedTensors, if what a forward keeps waits in main memory

    @_registered_with_preset
    def __init__(self, *args, preset="recurrent", **kwargs):
        super().__init__(*args, **blocks_2d(kwargs))
        self._inflate(get_preset(preset))

    def _inflate(self, preset):
        self.preset = preset
        self.frames = FrameCount()
        self.image_names = frozenset(name for name, _ in self.named_parameters())  # those of the 2D UNet
        self._blocks = inflate(self, preset, self.frames)
        self.register_to_config(preset={**vars(preset)})
        self._own_names = frozenset(name for name, _ in self.named_parameters())
        self.freeze_untrained()

    @classmethod
    def from_pretrained_2d(cls, path, preset="recurrent", *, subfolder=None, dtype=None, torch_dtype=None,
                           variant=None, config=None, allow_pickle=False):  # fmt: skip
        """Return a VideoUNet with the weights of a 2D UNet of Stable Diffusion 1.x or 2.x, new layers at their start.

        Parameters
        ----------
        path : path
            A UNet folder, a pipeline folder (its `unet` is taken), or a single .safetensors or .ckpt file.
        preset : str or Preset
        subfolder : str, optional
            Folder of the UNet inside `path`; "unet" for a pipeline folder.
        dtype, torch_dtype : torch.dtype, optional
            Precision of the frozen weights, that of the files if left out; trained ones are float32 masters.
            diffusers calls it `dtype` now and `torch_dtype` before.
        variant : str, optional
            Of the weights' file name, such as "fp16".
        config : path, optional
            For a single file: a local UNet or pipeline folder in diffusers' layout whose configuration it follows.
        allow_pickle : bool
            Whether to read .ckpt and .bin files (tensors only, nothing in them is run).

        Raises
        ------
        ValueError
            For a folder or file that is missing, incomplete or another kind of model.
        """
        preset = get_preset(preset)
        dtype = dtype or torch_dtype
        unet = load_unet_2d(path, subfolder, dtype, variant, config, allow_pickle)
        unet.__class__ = cls  # in place: 860 M parameters are neither initialised nor copied a second time
        unet._inflate(preset)
        return unet.set_precision(dtype or unet.dtype).eval()

    @classmethod
    def from_pretrained(cls, path, **kwargs):
        """Load what `save_pretrained` wrote; trained weights stay float32 whatever `dtype` (or `torch_dtype`) says.

        Raises
        ------
        ValueError
            For a 2D UNet, which `from_pretrained_2d` inflates.
        """
        config = cls.load_config(
            path, **{k: v for k, v in kwargs.items() if k in ("subfolder", "local_files_only")}
        )
        if "preset" not in config:
            raise ValueError(f"{path} holds a {config.get('_class_name')}, not a saved VideoUNet; "
                             "VideoUNet.from_pretrained_2d(path, preset=...) inflates 2D UNets")  # fmt: skip
        dtype = kwargs.pop("torch_dtype", None)
        dtype = kwargs.pop("dtype", dtype)
        loaded = super().from_pretrained(path, **kwargs)
        unet = loaded[0] if isinstance(loaded, tuple) else loaded
        unet.freeze_untrained()
        if isinstance(dtype, torch.dtype):
            unet.set_precision(dtype)
        return loaded

    def forward(self, sample, timestep, encoder_hidden_states, *, class_labels=None, timestep_cond=None,
                cross_attention_kwargs=None, return_dict=True, state=None, return_state=False,
                **unsupported):  # fmt: skip
        """Predict for noisy latents.

        Parameters
        ----------
        sample : Tensor [B,C,F,H,W]
            Cast to the dtype of the frozen weights.
        timestep : number or Tensor [] or [B]
        encoder_hidden_states : Tensor [B,L,C]
            One text embedding a video.
        class_labels, timestep_cond : Tensor [B,...], optional
            As in the 2D UNet, one a video.
        cross_attention_kwargs : dict, optional
            Only {"scale": ...} of LoRA adapters has an effect.
        state : CarriedState, optional
            What the call for the frames before these returned: a clip in windows then gives what one call for all of
            its frames gives. No gradient goes back into it.
        return_state : bool
            Whether to return the state for the frames after these.

        Returns
        -------
        VideoUNetOutput, or a tuple of its fields
            `sample` [B,C,F,H,W]; `state` if `return_state`.

        Raises
        ------
        ValueError
            For arguments that do not fit; for a state of another batch, size, model or device; for a preset whose
            frames depend on later ones, which no state can stand for.
        """
        for name, value in unsupported.items():
            if value is not None:
                raise ValueError(f"VideoUNet does not take {name}; pass None or leave it out")
        channels = self.config.in_channels
        if sample.ndim != 5 or sample.shape[1] != channels:
            raise ValueError(
                f"sample has shape {tuple(sample.shape)}, expected [B,C,F,H,W] with C={channels}"
            )
        batch, _, frames, height, width = sample.shape
        if encoder_hidden_states.ndim != 3 or encoder_hidden_states.shape[0] != batch:
            raise ValueError(f"encoder_hidden_states has shape {tuple(encoder_hidden_states.shape)}, expected "
                             f"[{batch},L,C], one text a video")  # fmt: skip
        if torch.is_tensor(timestep) and timestep.ndim:
            if timestep.shape not in ((1,), (batch,)):
                raise ValueError(
                    f"timestep has shape {tuple(timestep.shape)}, expected a number or [{batch}]"
                )
            timestep = timestep.expand(batch).repeat_interleave(frames)
        per_video = {"class_labels": class_labels, "timestep_cond": timestep_cond}
        if return_state or state is not None:
            check_carries(self.preset)
        if state is not None:
            check_state(state, self._blocks, batch, sample.device)
        before = state or CarriedState({}, 0)
        kept = {} if return_state else None
        with self.frames.pinned(frames, before, kept):
            (folded,) = super().forward(
                sample.transpose(1, 2).reshape(batch * frames, channels, height, width).to(self.dtype),
                timestep,
                encoder_hidden_states.to(self.dtype),
                cross_attention_kwargs=cross_attention_kwargs,
                return_dict=False,
                **{k: None if v is None else v.repeat_interleave(frames, 0) for k, v in per_video.items()},
            )
        output = folded.unflatten(0, (batch, frames)).transpose(1, 2).contiguous()
        after = CarriedState(kept, before.frames + frames) if return_state else None
        if return_dict:
            return VideoUNetOutput(sample=output, state=after)
        return (output, after) if return_state else (output,)

    def enable_gradient_checkpointing(self, gradient_checkpointing_func=None):
        """Recompute blocks in the backward, each with the frame count and state of its own forward."""
        recompute_in_blocks(self, None)
        super().enable_gradient_checkpointing(pinning_checkpoint(self.frames, gradient_checkpointing_func))

    def set_gradient_checkpointing(self, mode):
        """Recompute in the backward by one of `rcv.models.recompute.MODES`; ValueError for another."""
        set_gradient_checkpointing(self, mode)

    def set_attn_processor(self, processor):
        """Refuse: the preset chooses the attention, `rcv.set_backend` the program that runs it."""
        raise ValueError("VideoUNet's attention belongs to its preset and takes no processors; "
                         "rcv.set_backend chooses the implementation")  # fmt: skip

    def _own_parameters(self):
        """Return the model's parameters by name, whatever PEFT wrapped around them and without what it added."""
        plain = ((name.replace(".base_layer.", "."), value) for name, value in self.named_parameters())
        return {name: value for name, value in plain if name in self._own_names}

    def trained_names(self):
        """Return the state-dict keys of the preset's trained set."""
        return [name for name in self._own_parameters() if self.preset.trains(name)]

    def freeze_untrained(self):
        """Let exactly the preset's trained set require gradients; PEFT adapters are left as they are."""
        for name, parameter in self._own_parameters().items():
            parameter.requires_grad_(self.preset.trains(name))

    def set_precision(self, dtype):
        """Put frozen parameters and buffers in `dtype`; trained ones become float32 masters, cast in each call.

        Returns the UNet. float64 holds for all: it is for checks.
        """
        masters = torch.promote_types(dtype, torch.float32)
        for name, parameter in self._own_parameters().items():
            parameter.data = parameter.data.to(masters if self.preset.trains(name) else dtype)
        for buffer in self.buffers():
            if buffer.is_floating_point():
                buffer.data = buffer.data.to(dtype)
        return self

    def adapter_state_dict(self):
        """Return the trained weights alone, by state-dict key."""
        own = self._own_parameters()
        return {name: own[name].detach() for name in self.trained_names()}

    def load_adapter_state_dict(self, state):
        """Load what `adapter_state_dict` returned, all of it.

        Raises
        ------
        ValueError
            Naming the missing, unexpected or misshapen entries, as an adapter of another preset or base has.
        """
        own = self.adapter_state_dict()
        if faults := misfit(own, state):
            raise ValueError(f"the adapter does not fit preset {self.preset.name!r} of this UNet: {faults}")
        for name, value in state.items():
            own[name].copy_(value)
