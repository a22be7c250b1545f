# The network that ships, on all that a recording brings: the paper's clips, windows of 1 and 2 s, slow and fast frames.
_base_ = ["_base_/schedule.py"]
row = "lagformer"
clips = 1_000_000
val_every = 2000
autocast = "bf16"
half = True
_people = dict(wild=0.5, noise=(0.2, 1.5), speed=(0.7, 1.4), mirror=True, unrelated=0.2, absent=0.05)
_window = dict(**_people, span_s=0.6, phase=True)
recipes = [
    (0.6, dict(**_people)),
    (0.1, dict(**_window, frames=10, fps=10.0)),
    (0.2, dict(**_window, frames=20, fps=10.0)),
    (0.1, dict(**_window, frames=60, fps=30.0)),
]
del _people, _window
