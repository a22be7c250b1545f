from fractions import Fraction

import numpy as np
import pytest

from mvpose.detect import Detections, detect_video
from mvpose.skeleton import Skeleton
from mvpose.video import probe, write_video_times


class BrightBoxDetector:
    """Finds the one bright box of an image; its joints are the corners."""

    name = "bright"
    skeleton = Skeleton("corners", ("top_left", "bottom_right"))

    def detect(self, images):
        for image in images:
            rows, columns = np.nonzero(image.min(axis=2) > 128)
            if not len(rows):
                yield Detections(np.empty((0, 2, 2)), np.empty((0, 2)), np.empty((0, 4)))
                continue
            box = np.array([columns.min(), rows.min(), columns.max(), rows.max()], dtype=float)
            yield Detections(box.reshape(1, 2, 2), np.ones((1, 2)), box[None])


@pytest.fixture
def video(tmp_path):
    """A box of 32 px that moves right by 8 px a frame and is away in frame 3; frames at uneven times."""
    time_s = np.array([0.0, 0.04, 0.08, 0.12, 0.2, 0.24])
    frames = np.zeros((6, 96, 128, 3), np.uint8)
    for k in (0, 1, 2, 4, 5):
        frames[k, 32:64, 16 + 8 * k : 48 + 8 * k] = 255
    write_video_times(tmp_path / "cam07.mp4", frames, [Fraction(t).limit_denominator(1000) for t in time_s])
    return probe("cam07", [tmp_path / "cam07.mp4"])


def test_a_video_becomes_tracked_keypoints_in_the_cameras_own_time(video):
    reported = []
    keypoints = detect_video(
        video, video.time_s + 5, BrightBoxDetector(), progress=lambda done, total: reported.append((done, total))
    )
    assert keypoints.camera == "cam07"
    assert keypoints.size_px == (128, 96)
    np.testing.assert_array_equal(keypoints.time_s, video.time_s + 5)
    assert keypoints.frame_index.tolist() == [0, 1, 2, 4, 5]
    assert keypoints.track_id.tolist() == [0] * 5
    # The codec blurs the edge of the box by a pixel.
    np.testing.assert_allclose(keypoints.xy_px[:, 0, 0], 16 + 8 * keypoints.frame_index, atol=1.5)
    assert reported == [(k, 6) for k in range(1, 7)]


def test_times_that_do_not_fit_the_video_are_refused(video):
    with pytest.raises(ValueError, match="5 times for 6 frames"):
        detect_video(video, video.time_s[:5], BrightBoxDetector())
