"""What becomes of an adapter elsewhere: round trips, a whole pipeline, a LoRA in diffusers."""

import errno

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from rcv.diffusion import VideoPipeline
from rcv.training import (
    FinetuneConfig,
    OutputError,
    export_pipeline,
    export_run_lora,
    finetune,
    read_adapter,
)
from rcv.training import run as run_module
from rcv.training.lora import export_lora, low_rank


@pytest.fixture(scope="module")
def trained(base, clips, tmp_path_factory):
    """Folder of a run, and the UNet as it was when the training ended."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    kept, true_trainer = [], run_module.Trainer

    def trainer(*args):
        kept.append(true_trainer(*args))
        return kept[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "Trainer", trainer)
        settings = {
            "base": base,
            "clips": clips,
            "frames": 3,
            "steps": 4,
            "learning_rate": 1e-2,
            "eval_draws": 0,
        }
        finetune(FinetuneConfig(**settings, output=folder), show_progress=False)
    return folder, kept[0].unet.eval()


def video(pipe):
    """Latents of a short video."""
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    return pipe(
        "a fox", num_frames=3, num_inference_steps=2, generator=generator, output_type="latent"
    ).frames


def test_an_adapter_on_a_fresh_base_makes_the_same_video_bit_for_bit(trained, base):
    folder, unet = trained
    fresh = VideoPipeline.from_base(base, adapter=folder)
    own = VideoPipeline(**{**fresh.components, "unet": unet})
    untrained = VideoPipeline.from_base(base)
    assert torch.equal(video(fresh), video(own))
    assert not torch.allclose(video(fresh), video(untrained), atol=1e-3)


def test_a_whole_pipeline_makes_the_same_video_bit_for_bit(trained, base, tmp_path):
    folder, _ = trained
    written = export_pipeline(folder, tmp_path / "pipeline")
    loaded = VideoPipeline.from_pretrained(written)
    assert loaded.unet.preset.name == "recurrent"
    assert torch.equal(video(loaded), video(VideoPipeline.from_base(base, adapter=folder)))
    assert torch.equal(video(loaded), video(VideoPipeline.from_base(written)))
    again = export_pipeline(folder, written, precision="fp16")  # an earlier export is replaced
    unet = VideoPipeline.from_pretrained(again, dtype=torch.float16).unet
    assert unet.dtype == torch.float16
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline"]


def test_a_pipeline_is_written_whole_or_not_at_all(trained, tmp_path, monkeypatch):
    def full(pipe, path, **_):
        path.mkdir(exist_ok=True)
        (path / "half").write_text("")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(VideoPipeline, "save_pretrained", full)
    with pytest.raises(
        OutputError, match=r"pipeline: cannot be written \(No space left on device\); free some"
    ):
        export_pipeline(trained[0], tmp_path / "pipeline")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_things_is_left_alone(trained, tmp_path):
    (tmp_path / "letters").write_text("dear")
    with pytest.raises(ValueError, match="holds something else than a pipeline"):
        export_pipeline(trained[0], tmp_path)
    with pytest.raises(ValueError, match="unknown precision 'fp61', did you mean 'fp16'"):
        export_pipeline(trained[0], tmp_path / "new", precision="fp61")
    assert (tmp_path / "letters").read_text() == "dear"


def test_a_lora_of_full_rank_is_the_finetuned_image_model(trained, base, tmp_path):
    folder, _ = trained
    made = export_run_lora(folder, tmp_path)
    assert (
        made.kept == pytest.approx(1.0, abs=1e-12)
        and made.path == tmp_path / "pytorch_lora_weights.safetensors"
    )
    weights, _ = read_adapter(folder)

    before = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    loaded = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    loaded.load_lora_weights(tmp_path)
    loaded.fuse_lora()
    loaded.unload_lora_weights()
    found = loaded.unet.state_dict()
    held = [name for name in weights if name in found]
    assert sorted({name.rsplit(".", 3)[1] for name in held}) == ["attn1", "attn2"]
    assert made.layers == len(held) and len(held) + len(made.left_out) == len(weights)
    for name, start in before.unet.state_dict().items():
        torch.testing.assert_close(found[name], weights.get(name, start), atol=1e-6, rtol=1e-5, msg=name)
        assert torch.equal(found[name], start) == (name not in held), name
    assert all(".attn_temp." in name or ".memory." in name for name in made.left_out)


def test_a_lora_changes_the_picture_as_the_weights_do(trained, base, tmp_path):
    folder, _ = trained
    export_run_lora(folder, tmp_path)
    weights, _ = read_adapter(folder)

    def picture(change):
        pipe = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
        pipe.set_progress_bar_config(disable=True)
        change(pipe)
        generator = torch.Generator().manual_seed(5)
        return pipe("a fox", num_inference_steps=2, generator=generator, output_type="latent").images

    plain = picture(lambda pipe: None)
    with_lora = picture(lambda pipe: pipe.load_lora_weights(tmp_path))
    finetuned = picture(
        lambda pipe: pipe.unet.load_state_dict({**pipe.unet.state_dict(), **image_weights(pipe, weights)})
    )
    torch.testing.assert_close(with_lora, finetuned, atol=1e-4, rtol=1e-4)
    assert (plain - finetuned).abs().max() > 1e-2


def image_weights(pipe, weights):
    return {name: weight for name, weight in weights.items() if name in pipe.unet.state_dict()}


def test_a_small_rank_is_the_best_of_its_size(trained, tmp_path):
    change = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    down, up = low_rank(change, 3)
    singular = torch.linalg.svdvals(change.double())
    assert (down.shape, up.shape) == ((3, 8), (12, 3))
    torch.testing.assert_close((change - up @ down).square().sum(), singular[3:].square().sum())
    kept = [export_run_lora(trained[0], tmp_path / str(rank), rank).kept for rank in (1, 4)]
    assert 0 < kept[0] < kept[1] < 1
    assert all(
        min(tensor.shape) == 4
        for tensor in load_file(tmp_path / "4" / "pytorch_lora_weights.safetensors").values()
    )


def test_what_cannot_be_a_lora_is_said(trained, tmp_path):
    with pytest.raises(ValueError, match="rank is 0, expected 1 or more"):
        export_run_lora(trained[0], tmp_path, 0)
    with pytest.raises(ValueError, match="nothing for a LoRA to hold"):
        export_lora({}, {"a.attn_temp.to_q.weight": torch.ones(2, 2)}, tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a file or folder that `rcv finetune` wrote"):
        export_run_lora(tmp_path / "nowhere", tmp_path)
    unchanged = export_lora({"a.weight": torch.ones(4, 4)}, {"a.weight": torch.ones(4, 4)}, tmp_path, rank=2)
    assert unchanged.kept == 1.0
