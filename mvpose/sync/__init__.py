"""From keypoints to one clock per camera."""
