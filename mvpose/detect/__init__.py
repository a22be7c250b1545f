"""2D keypoints from videos."""

from mvpose.detect.base import Detections, PoseDetector
from mvpose.detect.choose import choose_detector
from mvpose.detect.tracks import track_people
from mvpose.detect.videos import detect_video

__all__ = ["Detections", "PoseDetector", "choose_detector", "detect_video", "track_people"]
