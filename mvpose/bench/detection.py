"""Seconds and peak memory of ``mvpose detect`` on one video looped to several lengths.

Run ``mvpose bench detection VIDEO --seconds 30 --seconds 120``. Frames are streamed, so memory must not grow.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mvpose.video import Video, probe, write_video_times

# A process of its own for each length: the operating system counts the peak of a whole process.
_DETECT = """
import json, resource, sys, time
from pathlib import Path
from mvpose.pipeline import Settings, detect, open_recording
from mvpose.workspace import open_workspace
session = Path(sys.argv[1])
start = time.perf_counter()
found = detect(open_recording(session, Settings(detector=sys.argv[2])), open_workspace(session / "mvpose"))
seconds = time.perf_counter() - start
unit = 1024 if sys.platform == "linux" else 1024**2
print(json.dumps({"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
                  "frames": sum(k.n_frames for k in found.values())}))
"""


def looped(video: Video, seconds: float, every: int) -> Iterator[np.ndarray]:
    """Yield every ``every``-th frame, over and over, until they last for some seconds."""
    wanted = round(seconds * video.frame_rate / every)
    while wanted > 0:
        for index, frame in enumerate(video.frames()):
            if index % every == 0 and wanted > 0:
                wanted -= 1
                yield frame


def measure_detection(video: Path, lengths: Sequence[float], every: int, detector: str) -> Iterator[str]:
    """Yield a line for each length to which a video is looped.

    Args:
        video: The file.
        lengths: Seconds.
        every: Every how many-th of its frames is kept.
        detector: 2D pose engine.

    Raises:
        VideoError: The video cannot be read.
    """
    source = probe("loop", (video,))
    for seconds in lengths:
        with tempfile.TemporaryDirectory() as folder:
            session = Path(folder)
            rate = source.frame_rate / every
            times = np.arange(round(seconds * rate)) / rate
            write_video_times(session / "loop.mp4", looped(source, seconds, every), times)
            done = subprocess.run(
                [sys.executable, "-c", _DETECT, folder, detector], capture_output=True, text=True, check=True
            )
            measured = json.loads(done.stdout.splitlines()[-1])
        per_thousand = 1000 * measured["seconds"] / measured["frames"]
        yield (
            f"{seconds:g} s, {measured['frames']} frames of {source.size_px[0]}x{source.size_px[1]}: "
            f"{per_thousand:.1f} s per 1,000 frames, peak memory {measured['peak_mb']:.0f} MB"
        )
