"""2D keypoints from videos."""
