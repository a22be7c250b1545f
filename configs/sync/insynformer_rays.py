# The same for calibrated cameras, which learns in half as many clips.
_base_ = ["insynformer.py"]
row = "insynformer-rays"
clips = 256_000
val_every = 1000
