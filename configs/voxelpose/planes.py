# What ships: Faster-VoxelPose's planes, the networks as wide as published; cubes of 40 voxels in place of 64 along
# a side, so that two CPU cores train it.
_base_ = ["_base_/schedule.py"]
voxelpose = "planes"
cube_cells = 40
scenes = 16_000
