"""People found and posed in a volume of voxels that all views' heatmaps are projected into (VoxelPose)."""
