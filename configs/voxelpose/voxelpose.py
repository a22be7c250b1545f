# VoxelPose at its published size, with 3D convolutions, for a GPU. In parts: --option minutes=8 --resume.
_base_ = ["_base_/schedule.py"]
voxelpose = "cubes"
cube_cells = 64
scenes = 400_000
people = 6
part = 80
learning_rate = 1e-4
