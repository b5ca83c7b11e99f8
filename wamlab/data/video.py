"""Encoding and decoding of RGB video with PyAV; frames are found by their time stamps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.error import FFmpegError
from av.video.stream import VideoStream
from jaxtyping import Float, UInt8

from wamlab.data.manifest import DataError

CODEC = "libx264"
PIXELS = "yuv420p"
OPTIONS = {"crf": "18", "preset": "veryfast", "g": "2"}


def write_video(path: Path, frames: UInt8[np.ndarray, "t h w 3"], fps: int) -> None:
    """Write frames as H.264 (crf 18, key frame every second frame).

    Raises:
        ValueError: an odd height or width, which yuv420p cannot hold.
    """
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"frames are {height} x {width}; {PIXELS} video needs even sizes")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = cast(VideoStream, container.add_stream(CODEC, rate=fps, options=OPTIONS))
        stream.width, stream.height, stream.pix_fmt = width, height, PIXELS
        stream.codec_context.time_base = Fraction(1, fps)
        stream.codec_context.thread_count = 1
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_video(
    path: Path, seconds: Float[np.ndarray, " t"], fps: float
) -> tuple[UInt8[np.ndarray, "t h w 3"], float]:
    """The frames nearest to ascending ``seconds`` and the largest distance in time, in seconds.

    Raises:
        DataError: the file is missing or damaged, or a wanted instant has no frame within half a
            frame's time.
    """
    try:
        frames, distance = _nearest_frames(path, seconds)
    except (FFmpegError, EOFError, IndexError, TypeError) as error:
        raise DataError(f"video {path} cannot be decoded: {error}") from error
    far = int(distance.argmax()) if len(distance) else 0
    if len(distance) and distance[far] > 0.5 / fps:
        raise DataError(
            f"video {path} has no frame at {seconds[far]:.4f} s: the nearest is "
            f"{distance[far]:.4f} s away, expected at most {0.5 / fps:.4f} s"
        )
    return frames, float(distance.max(initial=0.0))


def _nearest_frames(
    path: Path, seconds: Float[np.ndarray, " t"]
) -> tuple[UInt8[np.ndarray, "t h w 3"], Float[np.ndarray, " t"]]:
    margin = 1.0
    times: list[float] = []
    frames: list[np.ndarray] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        if len(seconds) and seconds[0] > margin:
            container.seek(int((seconds[0] - margin) / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            time = float(frame.time)
            if len(seconds) == 0 or time > seconds[-1] + margin:
                break
            if time >= seconds[0] - margin:
                times.append(time)
                frames.append(frame.to_ndarray(format="rgb24"))
        if len(seconds) == 0:
            return np.zeros((0, stream.height, stream.width, 3), np.uint8), np.zeros(0)
    if not frames:
        raise EOFError("no frames")
    away = np.abs(seconds[:, None] - np.asarray(times)[None])
    return np.stack([frames[i] for i in away.argmin(axis=1)]), away.min(axis=1)


def frame_count(path: Path) -> int:
    """How many frames a video really decodes to.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(container.streams.video[0]))
    except (FFmpegError, EOFError, IndexError) as error:
        raise DataError(f"video {path} cannot be decoded: {error}") from error
