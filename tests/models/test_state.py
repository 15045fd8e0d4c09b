"""A clip in windows with the state carried is the clip in one pass; what cannot be carried is refused by name."""

import dataclasses

import accelerate
import pytest
import torch

from rcv.models import PRESETS, CarriedState, VideoUNet, get_preset
from rcv.models import state as state_module
from rcv.models.state import causal_window_attention
from rcv.ops import reference
from rcv.world import model_path
from tests.models.small import randomise, small_inputs, small_unet

CELLS = [
    dataclasses.replace(
        get_preset("streaming"),
        name=f"{cell} {drive} {base}",
        cell=cell,
        drive=drive,
        base=base,
        logit_bias=-4.0 if base == "none" else None,
        temporal_window=3,
    )
    for cell in ("rnn", "mingru", "rglru")
    for drive in ("input", "feedback")
    for base in ("none", "former")
]
OTHERS = [
    get_preset("first-frame"),
    dataclasses.replace(
        get_preset("first-frame"), name="window 1", temporal_attention=True, temporal_window=1
    ),
    dataclasses.replace(get_preset("tune-a-video"), name="former", group_norm="per_frame", temporal_window=3),
    dataclasses.replace(get_preset("recurrent"), name="no temporal attention", temporal_attention=False),
]


def in_windows(unet, sample, timestep, text, sizes):
    """The output of windows of these sizes, and the last state."""
    state, outputs = None, []
    for window in sample.split(sizes, 2):
        output = unet(window, timestep, text, state=state, return_state=True)
        outputs.append(output.sample)
        state = output.state
    return torch.cat(outputs, 2), state


def assert_close(got, wanted, limit=2e-6):
    assert (got - wanted).abs().max() <= limit * wanted.abs().max()


@pytest.mark.parametrize("preset", CELLS + OTHERS, ids=lambda preset: preset.name)
@torch.no_grad()
def test_windows_give_the_single_pass(preset):
    """Also windows that do not divide the clip evenly, and windows of one frame, the first one included."""
    unet = randomise(small_unet(preset))
    inputs = small_inputs(batch=2, frames=7)
    whole = unet(*inputs).sample
    for sizes in ([3, 3, 1], [1, 6], [1] * 7):
        got, state = in_windows(unet, *inputs, sizes)
        assert_close(got, whole)
        assert state.frames == 7


@pytest.mark.parametrize(
    ("preset", "size", "windows"),
    [
        (get_preset("streaming"), 16, [16] * 4),
        (get_preset("streaming"), 4, [1, 1, 30, 13, 19]),
        (dataclasses.replace(get_preset("recurrent"), temporal_attention=False), 8, [16] * 4),
    ],
    ids=["causal temporal attention", "uneven", "none"],
)
@torch.no_grad()
def test_the_embedded_model_in_windows(preset, size, windows):
    """64 frames: at most 1e-4 from a single pass."""
    unet = randomise(VideoUNet.from_pretrained_2d(model_path(), preset=preset, dtype=torch.float32))
    sample, timestep, _ = small_inputs(frames=64, height=size, width=size)
    text = torch.randn(1, 7, 128, generator=torch.Generator().manual_seed(3))
    whole = unet(sample, timestep, text).sample
    got, _ = in_windows(unet, sample, timestep, text, windows)
    assert (got - whole).abs().max() <= 1e-4


@torch.no_grad()
def test_a_forgotten_state_is_seen():
    """The state matters: without memory, former frames or first frame the second window differs."""
    unet = randomise(small_unet("streaming"))
    sample, timestep, text = small_inputs(frames=8)
    state = unet(sample[:, :, :4], timestep, text, return_state=True).state
    second = unet(sample[:, :, 4:], timestep, text, state=state).sample
    for field in ("first", "former", "h", "recent"):
        layers = {
            name: dataclasses.replace(layer, **{field: torch.zeros_like(getattr(layer, field))})
            for name, layer in state.layers.items()
        }
        other = unet(sample[:, :, 4:], timestep, text, state=CarriedState(layers, 4)).sample
        assert (other - second).abs().max() > 1e-4, field


def test_the_state_is_small_detached_and_holds_no_window():
    """Frames of a width each: first, former, twice that for the float32 state, and the temporal attention's inputs."""
    unet = small_unet("streaming").set_precision(torch.float16)
    sample, timestep, text = small_inputs(batch=2, frames=20)
    state = unet(sample, timestep, text, return_state=True).state
    tokens = 3 * 64 * 16 + 16 * 32  # all blocks, channels included
    assert len(state.layers) == 4
    assert state.nbytes == 2 * tokens * (2 + 2 + 4 + 15 * 2)
    for layer in state.layers.values():
        assert layer.h.dtype == torch.float32 and layer.output is None
        for tensor in layer.tensors().values():
            assert not tensor.requires_grad
            assert tensor.untyped_storage().nbytes() == tensor.nbytes


@pytest.mark.parametrize("checkpointed", [False, True])
def test_gradients_of_a_window_begin_at_its_start(checkpointed):
    """A window's gradients are those of the single pass whose former frames are cut off; recomputed ones too.

    With a single window they are those of the call without a state.
    """

    def gradients(unet, loss):
        loss.backward()
        found = {name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None}
        unet.zero_grad()
        return found

    unet = randomise(small_unet("streaming"))
    sample, timestep, text = small_inputs(frames=6)
    plain = gradients(unet, unet(sample, timestep, text).sample.square().mean())
    if checkpointed:
        unet.enable_gradient_checkpointing()
    output = unet(sample, timestep, text, return_state=True)
    with torch.no_grad():  # another call in between, with another state
        unet(sample[:, :, :2], timestep, text, state=output.state, return_state=True)
    before = {name: layer.h for name, layer in output.state.layers.items()}
    once = gradients(unet, output.sample.square().mean())
    assert all(output.state.layers[name].h is h for name, h in before.items())
    for name, value in plain.items():
        assert_close(once[name], value, 1e-5)

    second = unet(sample[:, :, 3:], timestep, text, state=output.state).sample
    with torch.no_grad():
        unet(sample[:, :, :2], timestep, text)
    carried = gradients(unet, second.square().mean())
    assert carried.keys() == plain.keys()
    assert all(value.abs().max() > 0 for value in carried.values())


def test_recomputation_sees_the_state_of_its_own_forward():
    """Three windows' backward after all of their forwards."""

    def gradients(checkpointed):
        unet = randomise(small_unet("streaming"))
        if checkpointed:
            unet.enable_gradient_checkpointing()
        sample, timestep, text = small_inputs(frames=6)
        in_windows(unet, sample, timestep, text, [3, 2, 1])[0].square().sum().backward()
        return {name: p.grad for name, p in unet.named_parameters() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    for name, value in plain.items():
        assert_close(checkpointed[name], value, 1e-5)


@torch.no_grad()
def test_guided_batches_precision_and_devices():
    """Twice every video, in half precision, with weights that are there only while their own module runs."""
    unet = randomise(small_unet("streaming"))
    sample, timestep, text = small_inputs(batch=2, frames=6)
    alone = [in_windows(unet, sample[i : i + 1], timestep[i], text[i : i + 1], [4, 2])[0] for i in range(2)]
    together, state = in_windows(unet, sample, timestep, text, [4, 2])
    assert_close(together, torch.cat(alone), 5e-6)
    half, _ = in_windows(
        randomise(small_unet("streaming")).set_precision(torch.bfloat16), sample, timestep, text, [4, 2]
    )
    assert_close(half.float(), together, 0.05)
    (output,) = unet(sample, timestep, text, return_dict=False)
    as_tuple = unet(sample, timestep, text, return_dict=False, return_state=True)
    assert torch.equal(as_tuple[0], output) and as_tuple[1].layers.keys() == state.layers.keys()
    accelerate.cpu_offload(unet, execution_device=torch.device("cpu"))
    assert torch.equal(in_windows(unet, sample, timestep, text, [4, 2])[0], together)
    assert state.to("meta").layers.popitem()[1].h.is_meta


@torch.no_grad()
def test_reset_keeps_the_anchor_and_the_last_frame():
    unet = randomise(small_unet("streaming"))
    sample, timestep, text = small_inputs(frames=5)
    state = unet(sample[:, :, :4], timestep, text, return_state=True).state
    fresh = state.reset()
    for name, layer in fresh.layers.items():
        assert torch.equal(layer.first, state.layers[name].first)
        assert torch.equal(layer.former, state.layers[name].former)
        assert not layer.h.any() and layer.recent.shape[1] == 0
    assert torch.isfinite(unet(sample[:, :, 4:], timestep, text, state=fresh).sample).all()


@torch.no_grad()
def test_a_state_that_is_read_once_is_let_go_block_by_block():
    unet = randomise(small_unet("streaming"))
    sample, timestep, text = small_inputs(frames=5)
    state = unet(sample[:, :, :3], timestep, text, return_state=True).state
    wanted = unet(sample[:, :, 3:], timestep, text, state=state).sample
    assert len(state.layers) == 4
    state.read_once, left = True, []
    for block in unet.modules():
        if type(block).__name__ == "VideoTransformerBlock":
            block.register_forward_pre_hook(lambda *_: left.append(len(state.layers)))
    assert torch.equal(unet(sample[:, :, 3:], timestep, text, state=state).sample, wanted)
    assert left == [4, 3, 2, 1] and not state.layers
    with pytest.raises(
        ValueError, match=r"state was read once .* is empty; pass the state that that call returned"
    ):
        unet(sample[:, :, 3:], timestep, text, state=state)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("before", [0, 2, 7])
def test_causal_window_attention(frames, before, monkeypatch):
    """Against the reference's causal attention with the keys outside of the window taken away, frame by frame."""
    monkeypatch.setattr(state_module, "MOST_SEQUENCES", 4)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, n, 5, 2, 8, generator=generator, dtype=torch.float64)
        for n in (frames, before + frames, before + frames)
    )
    for window in (1, 3, 20):
        got = causal_window_attention(q, k, v, window, 0.4)
        for i in range(frames):
            seen = slice(max(0, before + i + 1 - window), before + i + 1)
            count = seen.stop - seen.start
            wanted = reference.temporal_attention(
                q[:, i : i + 1].expand(-1, count, -1, -1, -1), k[:, seen], v[:, seen], scale=0.4
            )
            torch.testing.assert_close(got[:, i], wanted[:, 0])


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_that_look_ahead_say_so(preset):
    reasons = {
        "tune-a-video": ["joint GroupNorms", "temporal attention reads later frames"],
        "published": ["overwrites the first frame", "joint GroupNorms", "later frames"],
        "paper": ["joint GroupNorms", "later frames"],
        "recurrent": ["later frames"],
    }.get(preset, [])
    unet = small_unet(preset)
    inputs = small_inputs(frames=2)
    if not reasons:
        assert get_preset(preset).why_not_carried() == []
        assert unet(*inputs, return_state=True).state.frames == 2
        return
    said = ".*".join([f"preset '{preset}' carries no state", *reasons, "preset 'streaming' does"])
    with pytest.raises(ValueError, match=said):
        unet(*inputs, return_state=True)
    with pytest.raises(ValueError, match=said):
        unet(*inputs, state=CarriedState({}, 0))


def test_states_that_do_not_fit():
    unet = small_unet("streaming")
    sample, timestep, text = small_inputs(batch=2, frames=2)
    state = unet(sample, timestep, text, return_state=True).state
    with pytest.raises(
        ValueError, match=r"state has 2 videos \(first of .*\), sample has 1; with guidance both"
    ):
        unet(sample[:1], timestep[:1], text[:1], state=state)
    with pytest.raises(
        ValueError, match=r"state: first of .* is for 64 tokens a frame and 16 channels, .* 32 and 16"
    ):
        unet(sample[:, :, :, :4], timestep, text, state=state)
    with pytest.raises(
        ValueError, match=r"state is on meta \(first of .*\), sample on cpu; state.to\('cpu'\) moves"
    ):
        unet(sample, timestep, text, state=state.to("meta"))
    with pytest.raises(ValueError, match=r"state is a dict, expected the CarriedState"):
        unet(sample, timestep, text, state={})
    deeper = small_unet("streaming", layers_per_block=2)
    with pytest.raises(
        ValueError, match=r"state is of another model: 4 layers, expected 6; only one .* has '.*\.1"
    ):
        deeper(sample, timestep, text, state=state)


@pytest.mark.slow
@torch.no_grad()
def test_one_compiled_graph():
    """torch.compile sees through a window with a state without a break, one that is read once too."""
    unet = randomise(small_unet("streaming"))
    sample, timestep, text = small_inputs(frames=5)
    state = unet(sample[:, :, :2], timestep, text, return_state=True).state
    plain = unet(sample[:, :, 2:], timestep, text, state=state, return_state=True)
    compiled = torch.compile(unet, backend="aot_eager", fullgraph=True)
    state.read_once = True
    graph = compiled(sample[:, :, 2:], timestep, text, state=state, return_state=True)
    assert not state.layers
    assert_close(graph.sample, plain.sample)
    assert graph.state.frames == 5
    for name, layer in plain.state.layers.items():
        for field, value in layer.tensors().items():
            assert_close(getattr(graph.state.layers[name], field), value)
