# The networks that ship, trained further on one's own rig: --option "recipe={'rig': 'calib.json'}".
_base_ = ["_base_/schedule.py"]
voxelpose = "planes"
cube_cells = 40
begin = "shipped"
scenes = 1600
learning_rate = 3e-4
