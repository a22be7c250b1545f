"""A video's frames go through an engine one after the other, and come out as the tracks of its people."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mvpose.detect.base import PoseDetector
from mvpose.detect.tracks import track_people
from mvpose.keypoints import UNTRACKED, Keypoints2D
from mvpose.video import Video


def detect_video(
    video: Video,
    time_s: np.ndarray,
    detector: PoseDetector,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Keypoints2D:
    """Detect and track the people of one camera. Frames are streamed: memory does not grow with the video.

    Args:
        video: The camera's video.
        time_s: (T,) time of each of its frames on the camera's own clock, seconds.
        detector: The engine.
        progress: Called with the frames done and their number after each frame.

    Raises:
        VideoError: The video cannot be read to its end.
    """
    if len(time_s) != video.n_frames:
        raise ValueError(f"{video.camera}: {len(time_s)} times for {video.n_frames} frames")
    joints = len(detector.skeleton)
    xy, score, boxes, counts = [np.empty((0, joints, 2))], [np.empty((0, joints))], [np.empty((0, 4))], [0]
    for done, people in enumerate(detector.detect(video.frames()), start=1):
        xy.append(people.xy_px)
        score.append(people.score)
        boxes.append(people.bbox_px)
        counts.append(len(people))
        if progress is not None:
            progress(done, video.n_frames)
    found = sum(counts)
    return track_people(
        Keypoints2D(
            camera=video.camera,
            time_s=time_s,
            frame_ptr=np.cumsum(counts),
            xy_px=np.concatenate(xy),
            score=np.concatenate(score),
            track_id=np.full(found, UNTRACKED),
            skeleton=detector.skeleton,
            size_px=video.size_px,
            bbox_px=np.concatenate(boxes),
        )
    )
