"""Video files in and out: PyAV containers, GIFs, folders of frames, PNG sheets. Imports nothing else of rcv."""

from .atomic import replacing, replacing_folder
from .images import FOLDER_FPS, VideoError
from .reading import Video, VideoInfo, iter_frames, iter_timed_frames, probe, read_video
from .writing import check_target, frames_as_uint8, write_video

__all__ = [
    "FOLDER_FPS",
    "Video",
    "VideoError",
    "VideoInfo",
    "check_target",
    "frames_as_uint8",
    "iter_frames",
    "iter_timed_frames",
    "probe",
    "read_video",
    "replacing",
    "replacing_folder",
    "write_video",
]
