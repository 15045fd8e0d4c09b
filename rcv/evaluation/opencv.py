"""OpenCV, an optional dependency, imported in one place that says how to get it."""

try:
    import cv2
except ImportError as error:
    raise ImportError(
        "optical flow needs OpenCV, which is not installed: pip install 'rcv-video[evaluation]'"
    ) from error

__all__ = ["cv2"]
