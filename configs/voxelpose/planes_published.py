# Faster-VoxelPose at its published size: for a GPU.
_base_ = ["_base_/schedule.py"]
voxelpose = "planes"
cube_cells = 64
scenes = 400_000
batch = 8
people = 16
part = 80
learning_rate = 1e-4
