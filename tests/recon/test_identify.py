from dataclasses import replace

import numpy as np
import pytest

from mvpose.clock import Clock, Clocks, identity_clock, unsynchronised_clocks
from mvpose.recon.align import align
from mvpose.recon.associate import associate
from mvpose.recon.identify import by_identity, identified


@pytest.fixture
def scene(rig, film, person):
    """Two people who walk side by side; the third camera started 0.4 s late. Gives (keypoints, clocks, aligned)."""
    late = dict(zip(rig.names, (0.0, 0.0, 0.4, 0.0), strict=True))
    reference = rig.names[0]
    clocks = {n: Clock(n, s, 1.0, np.zeros((2, 2))) if s else identity_clock(n) for n, s in late.items()}
    clocks = Clocks(reference, clocks)
    seen = film(rig, lambda t: np.stack([person(t - 1, 0.8), person(t - 1, -0.8)], axis=1), clocks.clocks, seconds=2.0)
    return seen, clocks, associate(align(seen, clocks, np.arange(12, 61) / 30), rig)


def test_every_detection_gets_the_person_that_it_was_made_from(scene):
    seen, clocks, aligned = scene
    named = identified(seen, clocks, aligned)
    assert len(aligned.person_ids) == 2
    for c, (name, own) in enumerate(named.items()):
        times = clocks[name].to_session(own.time_s[own.frame_index])
        index = np.rint((times - aligned.time_s[0]) * 30).astype(int)
        assert len(own.xy_px) == 2 * np.count_nonzero(
            (clocks[name].to_session(own.time_s) > aligned.time_s[0] - 0.01)
            & (clocks[name].to_session(own.time_s) < aligned.time_s[-1] + 0.01)
        )
        assert np.abs(own.xy_px - aligned.xy_px[index, c, own.track_id]).max() < 1.0


def test_the_people_are_the_same_under_other_clocks(scene):
    seen, clocks, aligned = scene
    raw = unsynchronised_clocks(aligned.cameras)
    again = by_identity(align(identified(seen, clocks, aligned), raw, np.arange(15, 50) / 30), aligned.person_ids)
    assert again.xy_px.shape[2] == 2
    # 0.4 s at 1 m/s: what the third camera shows is elsewhere, what the others show is where it was.
    both = aligned.xy_px[3:38]
    moved = np.linalg.norm(again.xy_px - both, axis=-1)
    assert np.nanmax(moved[:, [0, 1, 3]]) < 1e-6
    assert np.nanmedian(moved[:, 2]) > 5


def test_a_stranger_is_nobody(scene):
    seen, clocks, aligned = scene
    without = aligned.xy_px.copy()
    without[:, :, 1] = np.nan
    named = identified(seen, clocks, replace(aligned, xy_px=without))
    assert all((own.track_id == 0).all() for own in named.values())
    assert all((np.diff(own.frame_ptr) <= 1).all() for own in named.values())
