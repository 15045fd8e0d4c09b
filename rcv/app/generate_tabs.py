"""The tabs for generating a video and for comparing two."""

import gradio

from rcv.app.fields import told
from rcv.app.generation import generated
from rcv.app.runs import VIDEOS

ONE_AT_A_TIME = {"concurrency_limit": 1, "concurrency_id": "generation"}
"""Two models at once might not fit; whoever comes second waits in the page's queue."""
BASE_ALONE = "none (the base model alone)"
EXAMPLE = "a red elephant walking in the desert"
MORE = "More settings (name: value a line, as `rcv generate --help` names them)"


def add_generate_tab(page, runs):
    """Add fields for one video to the page that is being built."""
    with gradio.Row():
        with gradio.Column():
            adapter = _adapter_field(page, runs, "Adapter")
            prompt = gradio.Textbox(label="Prompt", value=EXAMPLE)
            with gradio.Row():
                seed = gradio.Number(label="Seed", value=0, precision=0, minimum=0)
                steps = gradio.Number(label="Denoising steps", value=30, precision=0, minimum=1)
            more = gradio.Code(label=MORE, language="yaml", lines=3)
            button = gradio.Button("Generate", variant="primary", elem_id="generate")
        with gradio.Column():
            video = _video("Video", "generated")
            file = gradio.Textbox(label="File", interactive=False)

    @told
    def run(adapter, prompt, seed, steps, more, progress=gradio.Progress()):  # noqa: B008 (how gradio finds it)
        path = generated(runs.folder / VIDEOS, prompt, _chosen(adapter), seed, steps, more, progress)
        return path, path

    button.click(run, [adapter, prompt, seed, steps, more], [video, file], **ONE_AT_A_TIME)


def add_compare_tab(page, runs):
    """Add fields for two videos of one prompt, with two adapters or two seeds, side by side."""
    prompt = gradio.Textbox(label="Prompt of both", value=EXAMPLE)
    with gradio.Row():
        adapters = [_adapter_field(page, runs, f"Adapter {letter}") for letter in "AB"]
    with gradio.Row():
        seeds = [
            gradio.Number(label=f"Seed {letter}", value=value, precision=0, minimum=0)
            for letter, value in (("A", 0), ("B", 1))
        ]
        steps = gradio.Number(label="Denoising steps of both", value=30, precision=0, minimum=1)
    more = gradio.Code(label=MORE, language="yaml", lines=3)
    button = gradio.Button("Generate both", variant="primary", elem_id="compare")
    with gradio.Row():
        videos = [_video(f"Video {letter}", f"compared-{letter.lower()}") for letter in "AB"]

    @told
    def run(prompt, steps, more, adapter_a, adapter_b, seed_a, seed_b, progress=gradio.Progress()):  # noqa: B008
        return [
            generated(runs.folder / VIDEOS, prompt, _chosen(adapter), seed, steps, more, progress)
            for adapter, seed in ((adapter_a, seed_a), (adapter_b, seed_b))
        ]

    button.click(run, [prompt, steps, more, *adapters, *seeds], videos, **ONE_AT_A_TIME)


def _adapter_field(page, runs, label):
    """A choice of the runs' adapters; the path of any other may be typed."""

    def choices():
        return gradio.Dropdown(choices=[BASE_ALONE, *runs.adapters()])

    field = gradio.Dropdown(
        label=label,
        choices=[BASE_ALONE],
        value=BASE_ALONE,
        allow_custom_value=True,
        info="A run, or any path",
    )
    page.load(choices, None, field)
    field.focus(choices, None, field)
    return field


def _chosen(adapter):
    return None if adapter in (None, "", BASE_ALONE) else adapter


def _video(label, name):
    return gradio.Video(label=label, autoplay=True, loop=True, interactive=False, elem_id=name)
