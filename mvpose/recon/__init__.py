"""From aligned keypoints to people in 3D."""
