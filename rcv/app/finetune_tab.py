"""The tab for finetuning: the clips, the settings, and the run as it goes."""

import gradio

from rcv.app.clips import contact_sheet, folder_strips, keep_uploads, theme_strips
from rcv.app.curve import loss_curves, svg
from rcv.app.fields import MENDABLE, settings_of, told, whole
from rcv.app.runs import UPLOADS
from rcv.app.watch import captioned, sample_files, status
from rcv.cli.options import resolve
from rcv.models import PRESETS
from rcv.training.clips_config import ClipsConfig
from rcv.training.config import NOISES, FinetuneConfig
from rcv.world import THEMES

THEME, FOLDER, UPLOAD = "A theme of the motion world", "A folder on this machine", "Upload"
DEFAULTS = {name: field.default for name, field in FinetuneConfig.model_fields.items()}
REFRESH_SECONDS = 2


def add_finetune_tab(page, runs):
    """Add the tab's fields to the page that is being built."""
    with gradio.Row():
        with gradio.Column():
            gradio.Markdown("## Clips")
            source = gradio.Radio([THEME, FOLDER, UPLOAD], value=THEME, label="From")
            with gradio.Group() as of_theme:
                theme = gradio.Dropdown(list(THEMES), value=DEFAULTS["theme"], label="Theme")
                count = gradio.Number(label="Clips", value=DEFAULTS["clip_count"], precision=0, minimum=1)
            folder = gradio.Textbox(
                label="Folder",
                info="Video files, GIFs or folders of frames, each with its caption in NAME.txt",
                visible=False,
                elem_id="folder",
            )
            with gradio.Group(visible=False) as of_upload:
                files = gradio.File(label="Clips and their NAME.txt", file_count="multiple", type="filepath")
                caption = gradio.Textbox(label="Caption of clips that come without one")
                keep = gradio.Button("Keep these files")
            look = gradio.Button("Show the clips", elem_id="look")
            gradio.Markdown("## Settings")
            name = gradio.Textbox(label="Name of the run", value="my-run")
            base = gradio.Textbox(
                label="Base",
                info="A Stable Diffusion folder; the embedded model if left empty",
                elem_id="base",
            )
            preset = gradio.Dropdown(list(PRESETS), value=DEFAULTS["preset"], label="Preset")
            with gradio.Row():
                frames = gradio.Number(label="Frames", value=DEFAULTS["frames"], precision=0, minimum=1)
                steps = gradio.Number(label="Steps", value=DEFAULTS["steps"], precision=0, minimum=1)
                seed = gradio.Number(label="Seed", value=DEFAULTS["seed"], precision=0, minimum=0)
            with gradio.Row():
                size = gradio.Textbox(label="Size", placeholder="the base's own, or 320x512")
                rate = gradio.Textbox(label="Learning rate", placeholder="by the base")
                noise = gradio.Dropdown(list(NOISES), value=DEFAULTS["noise"], label="Noise")
            more = gradio.Code(
                label="More settings (name: value a line, as `rcv finetune --help` names them)",
                language="yaml",
                lines=3,
            )
        with gradio.Column():
            strips = gradio.HTML(label="Clips", max_height=420, elem_id="strips")
            problems = gradio.Markdown(elem_id="problems", visible=False)
            with gradio.Row():
                start = gradio.Button("Start", variant="primary", elem_id="start")
                stop = gradio.Button("Stop", elem_id="stop")
                go_on = gradio.Button("Go on", elem_id="go-on")
            shown = gradio.Dropdown(label="Run", choices=[], allow_custom_value=True, elem_id="run")
            said = gradio.Markdown(elem_id="status")
            plot = gradio.HTML(label="Loss", elem_id="curve")
            gallery = gradio.Gallery(label="Samples", columns=4, elem_id="samples")
    chosen_clips = [source, theme, count, folder, frames, size]

    def show_source(source):
        return (
            gradio.Group(visible=source == THEME),
            gradio.Textbox(visible=source != THEME, interactive=source == FOLDER),
            gradio.Group(visible=source == UPLOAD),
        )

    @told
    def keep_files(files, caption):
        return str(keep_uploads(files, caption, runs.folder / UPLOADS))

    @told
    def look_at(source, theme, count, folder, frames, size, seed, more):
        given = settings_of(clip_fields(source, theme, count, folder, frames, size), more)
        known = {name: value for name, value in given.items() if name in ClipsConfig.model_fields}
        config = resolve(ClipsConfig, None, known)
        if config.clips is None:
            found, sentences = theme_strips(config, whole(seed)), []
        else:
            found, sentences = folder_strips(config)
        listed = "\n".join(f"- {sentence}" for sentence in sentences)
        return contact_sheet(found), gradio.Markdown(f"**Problems**\n\n{listed}", visible=bool(sentences))

    @told
    def start_run(
        source, theme, count, folder, frames, size, name, base, preset, steps, seed, rate, noise, more
    ):
        fields = {"output": runs.path(name), "base": base, "preset": preset, "noise": noise}
        fields.update(learning_rate=rate, steps=whole(steps), seed=whole(seed))
        fields.update(clip_fields(source, theme, count, folder, frames, size))
        runs.start(name, settings_of(fields, more))
        return gradio.Dropdown(choices=runs.names(), value=runs.path(name).name)

    @told
    def stop_run(name):
        runs.stop(name)
        gradio.Info(f"The run {name} stops after the step it is at.")

    @told
    def go_on_with(name):
        runs.resume(name)

    def refresh(name, seen):
        if not name:
            return "No run yet.", "", [], None
        try:
            folder = runs.path(name)
            files = sample_files(folder)
            # the same samples again would close the one that somebody looks at
            pictures = gradio.skip() if files == seen else captioned(files)
            return status(runs, name), svg(loss_curves(folder)), pictures, files
        except MENDABLE as error:  # as text: this is asked again and again
            return f"What the run {name!r} wrote cannot be read: {error}", "", [], None

    def newest_run():
        names = runs.names()
        return gradio.Dropdown(choices=names, value=names[0] if names else None)

    source.change(show_source, source, [of_theme, folder, of_upload])
    keep.click(keep_files, [files, caption], folder)
    look.click(look_at, [*chosen_clips, seed, more], [strips, problems])
    settings = [*chosen_clips, name, base, preset, steps, seed, rate, noise, more]
    seen = gradio.State()
    look_again = {"fn": refresh, "inputs": [shown, seen], "outputs": [said, plot, gallery, seen]}
    start.click(start_run, settings, shown).success(**look_again)
    stop.click(stop_run, shown, None).success(**look_again)
    go_on.click(go_on_with, shown, None).success(**look_again)
    shown.change(**look_again)
    page.load(newest_run, None, shown)
    gradio.Timer(REFRESH_SECONDS).tick(**look_again, show_progress="hidden")


def clip_fields(source, theme, count, folder, frames, size):
    """Return the settings of clips that the fields say, some of them empty; ValueError without a folder."""
    fields = {"frames": whole(frames), "size": size}
    if source == THEME:
        return {**fields, "theme": theme, "clip_count": whole(count)}
    if not (folder or "").strip():
        raise ValueError("no folder of clips was named")
    return {**fields, "clips": folder.strip()}
