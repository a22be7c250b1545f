# What all trainings of VoxelPose share: rigs, rooms and people as a user may have them.
batch = 4
people = 8
part = 48
autocast = "bf16"
half = True
val_every = 1000
checkpoint_every = 50
log_every = 25
recipe = dict()
