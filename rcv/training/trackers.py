"""Programs that show a run's numbers and videos elsewhere: TensorBoard, Weights & Biases."""

import importlib.util
import logging

EXTRAS = {"tensorboard": "pip install 'rcv-video[tensorboard]'", "wandb": "pip install wandb"}


def check_tracker(name):
    """Raise a ValueError that says how to install the tracker `name`, unless it is installed or "none"."""
    if name != "none" and importlib.util.find_spec(name) is None:
        raise ValueError(f"tracker: {name} is not installed; {EXTRAS[name]}, or choose tracker none")


def open_tracker(settings, done):
    """Return the tracker of a run, None for "none".

    Parameters
    ----------
    settings : FinetuneConfig
        Resolved.
    done : int or None
        Steps of the checkpoint that the run goes on from; what was told of later ones is taken back where the tracker
        can.
    """
    kinds = {"none": lambda *_: None, "tensorboard": TensorBoard, "wandb": WeightsAndBiases}
    return kinds[settings.tracker](settings, done)


class TensorBoard:
    """Event files in OUTPUT/tensorboard."""

    def __init__(self, settings, done):
        from accelerate.tracking import TensorBoardTracker

        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        self.tracker = TensorBoardTracker(
            "", settings.output / "tensorboard", purge_step=0 if done is None else done + 1
        )
        self.tracker.start()
        lines = (f"    {name}: {value}" for name, value in settings.model_dump(mode="json").items())
        self.tracker.tracker.add_text("settings", "\n".join(lines))

    def log(self, values, step):
        """Show numbers {name: value} of a step."""
        self.tracker.log(values, step=step)

    def show(self, videos, step):
        """Show the SampleVideos of a step: TensorBoard plays GIFs as they are, encoded."""
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        for number, (prompt, path, _) in enumerate(videos):
            with Image.open(path) as opened:
                width, height = opened.size
            picture = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes()
            )
            value = Summary.Value(tag=f"samples/{number:02d} {prompt}", image=picture)
            self.tracker.tracker.file_writer.add_summary(Summary(value=[value]), step)
        self.tracker.tracker.flush()

    def close(self):
        """Write what is left."""
        self.tracker.finish()


class WeightsAndBiases:
    """A run of the project rcv, named as the output folder; where and whether it is uploaded, wandb's settings say."""

    def __init__(self, settings, done):
        from accelerate.tracking import WandBTracker

        self.tracker = WandBTracker("rcv", name=settings.output.name, dir=str(settings.output))
        self.tracker.start()
        self.tracker.store_init_configuration(settings.model_dump(mode="json"))

    def log(self, values, step):
        """Show numbers {name: value} of a step."""
        self.tracker.log(values, step=step)

    def show(self, videos, step):
        """Show the SampleVideos of a step."""
        import wandb

        shown = {
            f"samples/{number:02d}": wandb.Video(str(path), caption=prompt, format="gif")
            for number, (prompt, path, _) in enumerate(videos)
        }
        self.tracker.log(shown, step=step)

    def close(self):
        """Write what is left."""
        self.tracker.finish()
