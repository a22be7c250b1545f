"""Training of VoxelPose's networks: random rigs and rooms full of people in torch, losses, figures."""
