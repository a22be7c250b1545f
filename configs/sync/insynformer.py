# The network that ships, on all that a recording brings: the paper's clips, windows of 1 and 2 s, slow and fast frames.
_base_ = ["_base_/schedule.py"]
row = "insynformer"
clips = 480_000
batch = 64
val_every = 1500
half = True
_people = dict(
    wild=0.5,
    noise=(0.0, 2.0),
    speed=(0.6, 1.6),
    mirror=True,
    unrelated=0.2,
    absent=0.05,
    cropped=0.08,
    stranger=0.1,
)
_window = dict(**_people, span_s=0.6, phase=True)
recipes = [
    (0.62, dict(**_people)),
    (0.06, dict(**_window, frames=10, fps=10.0)),
    (0.10, dict(**_window, frames=20, fps=10.0)),
    (0.06, dict(**_window, frames=30, fps=15.0)),
    (0.16, dict(**_window, frames=60, fps=30.0)),
]
del _people, _window
