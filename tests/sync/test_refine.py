from dataclasses import replace

import numpy as np
import pytest

from mvpose.clock import Clocks, identity_clock
from mvpose.sync.offsets import edge
from mvpose.sync.refine import find_jumps, refine_clocks
from mvpose.sync.trajectories import all_trajectories
from mvpose.synthetic.motion import still_motion

A, B, C = "cam01", "cam02", "cam03"
STARTS = (0.4137, 0.0, 1.2)


def truth_without_drift(recording, reference=A, off_s=None):
    """Return clocks of rate 1 that are right in the middle of each recording, but for what they are put off by."""
    true = recording.world.true_clocks(reference)
    clocks = {}
    for name, clock in true.clocks.items():
        epoch = recording.epochs_s[name]
        off = 0.0 if name == reference or off_s is None else off_s[name]
        offset = 0.0 if name == reference else float(clock.to_session(epoch)) - epoch + off
        clocks[name] = replace(identity_clock(name, epoch), offset_s=offset)
    return Clocks(reference, clocks)


def refined(recording, clocks, cues=()):
    return refine_clocks(all_trajectories(recording.keypoints, recording.cameras), recording.cameras, clocks, cues)


@pytest.fixture(scope="module")
def noisy(make):
    return make(3, 30.0, STARTS, (30, 25, 60), noisy=True)


@pytest.mark.parametrize("reference", [A, B, C])
def test_exact_keypoints_give_exact_clocks_whoever_is_the_reference(make, reference):
    recording = make(1, 12.0, STARTS, (30, 25, 60))
    clocks = refined(recording, truth_without_drift(recording, reference, {A: 0.04, B: -0.05, C: 0.03}))
    assert clocks.reference == reference
    # Measured: 0.02 to 0.3 ms.
    assert max(map(abs, recording.errors_s(clocks).values())) < 6e-4
    assert (clocks[reference].offset_s, clocks[reference].rate) == (0.0, 1.0)
    assert not clocks[reference].cov.any()


def test_noisy_keypoints_give_clocks_within_their_sigma(make):
    z, errors = [], []
    for seed in range(6):
        recording = make(20 + seed, 20.0, STARTS, (30, 25, 60), noisy=True)
        clocks = refined(recording, truth_without_drift(recording, A, {B: 0.03, C: -0.03}))
        own = recording.errors_s(clocks)
        errors += own.values()
        z += [error / clocks[name].sigma_at_epoch_s for name, error in own.items()]
    assert 1e-4 < np.median(np.abs(errors)) < 2.5e-3
    assert 0.3 < np.sqrt(np.mean(np.square(z))) < 1.6


def test_drift_is_found_where_the_data_speak_for_it_and_bounded_elsewhere(make):
    long, short = make(5, 180.0, STARTS, (30, 25, 30), ppm=(0, 100, 0), noisy=True), make(5, 8.0, STARTS, noisy=True)
    clocks = refined(long, truth_without_drift(long))
    assert clocks[B].rate_fitted
    assert not clocks[C].rate_fitted
    assert clocks[C].rate == 1.0
    true = long.world.true_clocks(A)
    # Measured: 4 ppm.
    assert abs(clocks[B].rate - true[B].rate) < 15e-6
    assert 1e-6 < np.sqrt(clocks[B].cov[1, 1]) < 15e-6
    clocks = refined(short, truth_without_drift(short))
    assert clocks[B].rate == 1.0
    assert 5e-5 < np.sqrt(clocks[B].cov[1, 1]) < 2e-4


def test_what_is_known_otherwise_counts_by_its_sigma(noisy):
    start = truth_without_drift(noisy)
    plain = refined(noisy, start)
    true_s = noisy.true_offset_s(A, B, 10.0)

    def with_cue(sigma_s):
        return refined(noisy, start, [edge(A, B, 10.0, true_s + 0.05, sigma_s, "audio")])

    sure, vague = with_cue(1e-5), with_cue(0.5)
    moved = plain[B].to_session(10.0) - sure[B].to_session(10.0)
    assert moved == pytest.approx(0.05, abs=0.006)
    assert sure[B].sigma_s(10.0 + true_s) < 0.1 * plain[B].sigma_s(10.0 + true_s)
    assert vague[B].to_session(10.0) == pytest.approx(float(plain[B].to_session(10.0)), abs=1e-4)


def test_cameras_without_common_motion_stay_as_they_were(make, noisy):
    still = make(2, 8.0, STARTS, motion=still_motion)
    start = truth_without_drift(still, A, {B: 0.03, C: 0.02})
    clocks = refined(still, start)
    # At rest hardly anything moves the clocks, and nothing is claimed to be known.
    assert all(abs(clocks[n].offset_s - start[n].offset_s) < 0.1 for n in (B, C))
    assert all(clocks[n].sigma_at_epoch_s > 0.02 for n in (B, C))
    start = truth_without_drift(noisy)
    tracks = all_trajectories(noisy.keypoints, noisy.cameras)
    nobody = refine_clocks({**tracks, C: []}, noisy.cameras, start)
    assert nobody[C] == start[C]
    assert nobody[B].sigma_at_epoch_s > 0
    assert refine_clocks({A: [], B: [], C: []}, noisy.cameras, start) == start


def without_frames(keypoints, first, count):
    """Lose frames; the times go on as if nothing were missing."""
    kept = np.delete(np.arange(keypoints.n_frames), np.arange(first, first + count))
    rows = np.flatnonzero(np.isin(keypoints.frame_index, kept))
    return replace(
        keypoints,
        time_s=keypoints.time_s[: len(kept)],
        frame_ptr=np.concatenate([[0], np.cumsum(np.diff(keypoints.frame_ptr)[kept])]),
        xy_px=keypoints.xy_px[rows],
        score=keypoints.score[rows],
        track_id=keypoints.track_id[rows],
        bbox_px=keypoints.bbox_px[rows],
    )


@pytest.mark.parametrize(("camera", "count"), [(A, 2), (C, 5)])
def test_lost_frames_show_as_a_jump(noisy, camera, count):
    k = noisy.keypoints[camera]
    first = int(0.6 * k.n_frames)
    recording = noisy.seen(**{camera: without_frames(k, first, count)})
    tracks = all_trajectories(recording.keypoints, recording.cameras)
    clocks = refine_clocks(tracks, recording.cameras, truth_without_drift(noisy))
    jump = find_jumps(tracks, recording.cameras, clocks)[0]
    assert jump.camera == camera
    assert jump.at_s == pytest.approx(k.time_s[first], abs=2.0)
    # One linear step, in which the largest residuals count least.
    assert 0.4 * count / k.frame_rate < jump.jump_s < 1.2 * count / k.frame_rate


def test_recordings_whose_times_are_true_have_no_jump_and_no_readout(noisy):
    tracks = all_trajectories(noisy.keypoints, noisy.cameras)
    clocks = refine_clocks(tracks, noisy.cameras, truth_without_drift(noisy))
    assert find_jumps(tracks, noisy.cameras, clocks) == []
    careful = refine_clocks(tracks, noisy.cameras, clocks, untold=(A, B, C))
    assert all(clock.readout_s is None for clock in careful.clocks.values())
    for name in (B, C):
        # Rows that may be read late leave more open, but move no clock that shows none.
        assert careful[name].offset_at_epoch_s == pytest.approx(clocks[name].offset_at_epoch_s, abs=1e-3)
        assert 1.0 < careful[name].sigma_at_epoch_s / clocks[name].sigma_at_epoch_s < 2.0
