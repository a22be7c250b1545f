from dataclasses import replace

import numpy as np

from mvpose.bench.ablation import PARTS, Outcome, ablate, format_outcomes
from mvpose.bench.clocks import BASE
from mvpose.sync import refine
from mvpose.synthetic.motion import generate_motion


def test_every_part_is_left_out_of_the_same_recording_and_put_back():
    motions = {name: generate_motion(np.random.default_rng(seed), 15.0) for seed, name in enumerate("ab")}
    before = {name: getattr(refine, name) for name in ("joint_spread", "OUTLIER_SCALE", "_BIAS_SHARE", "settled")}
    case = replace(BASE, common_s=10.0, fps=(30.0,) * 3)
    found = ablate(case, motions, PARTS | {"again": PARTS["everything (kept)"]}, seed=100)
    assert {name: getattr(refine, name) for name in before} == before
    kept = found["everything (kept)"]
    assert found["again"] == kept
    assert max(kept.rms_ms) < 5.0  # measured: 1.9
    changed = [title for title, outcome in found.items() if outcome.rms_ms != kept.rms_ms]
    assert set(changed) == set(PARTS) - {"everything (kept)"}
    assert all(len(outcome.rms_ms) + outcome.refused == 2 for outcome in found.values())


def test_lines_say_the_errors_of_all_recordings():
    lines = format_outcomes([{"a": Outcome((1.0, 3.0), (1.0, -1.0), 0)}, {"a": Outcome((2.0,), (1.0,), 1)}])
    (line,) = lines
    for words in ("median   2.00", "z RMS   1.00", "3 clocks, 1 refused"):
        assert words in line
