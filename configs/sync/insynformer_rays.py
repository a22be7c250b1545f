# The same for calibrated cameras, which learns in a third as many clips.
_base_ = ["insynformer.py"]
row = "insynformer-rays"
clips = 160_000
val_every = 500
