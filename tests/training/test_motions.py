import numpy as np
import pytest
import torch

from mvpose.skeleton import CLIP_SKELETON
from mvpose.synthetic.motion import generate_motion
from mvpose.training.motions import RATE_HZ, motion_bank


@pytest.fixture(scope="module")
def motions():
    """People at the rates of motion capture, of unlike lengths; the last begins late on its own time axis."""
    made = [
        generate_motion(np.random.default_rng(seed), seconds, rate_hz=rate)
        for seed, (seconds, rate) in enumerate([(4.0, 60.0), (3.0, 120.0), (2.31, 60.0), (2.5, 100.0)])
    ]
    late = made[-1]
    return [*made[:-1], type(late)(late.time_s + 7.25, late.xyz_m)]


@pytest.fixture(scope="module")
def bank(motions):
    return motion_bank(motions)


def truth(motion, time_s):
    """Joints of ``CLIP_SKELETON`` (n, J, 3) at times from the motion's start."""
    joints = motion.skeleton.indices(CLIP_SKELETON.joint_names)
    return motion.at(motion.time_s[0] + np.asarray(time_s))[:, 0, joints]


def test_any_instant_is_that_of_the_motion_s_own_spline(motions, bank):
    rng = np.random.default_rng(0)
    inside = np.stack([rng.uniform(1 / RATE_HZ, m.duration_s - 2 / RATE_HZ, 300) for m in motions])
    found = bank.at(torch.arange(len(motions)), torch.from_numpy(inside)).numpy()
    for motion, times, xyz in zip(motions, inside, found, strict=True):
        # Measured on 3000 times each: 0.033 mm at most, of people who move by up to 46 mm from one sample to the next.
        np.testing.assert_allclose(xyz, truth(motion, times), atol=1e-4)


def test_samples_are_those_of_the_motion_itself(motions, bank):
    for index, motion in enumerate(motions):
        times = np.arange(0, int(motion.duration_s * 60) - 1) / 60
        found = bank.at(torch.tensor([index]), torch.from_numpy(times[None]))[0].numpy()
        np.testing.assert_allclose(found, truth(motion, times), atol=1e-6)


def test_clips_follow_each_other_and_do_not_mix(motions, bank):
    assert bank.length.tolist() == [int(m.duration_s * RATE_HZ + 1e-6) + 1 for m in motions]
    assert bank.first.tolist() == [0, *np.cumsum(bank.length.tolist())[:-1]]
    assert len(bank.xyz_m) == int(bank.length.sum())
    np.testing.assert_allclose(bank.stature_m, [m.statures_m()[0] for m in motions], rtol=1e-6)
    one = torch.tensor([[0.5, 1.0]])
    together = bank.at(torch.tensor([2, 0]), one.expand(2, -1))
    assert torch.equal(together[0], bank.at(torch.tensor([2]), one)[0])
    assert torch.equal(together[1], bank.at(torch.tensor([0]), one)[0])


def test_outside_a_clip_its_ends_stay(motions, bank):
    for index, motion in enumerate(motions):
        count = int(bank.length[index])
        ends = torch.tensor([[-5.0, -1e-3, 0.0, (count - 1) / RATE_HZ, count / RATE_HZ, 99.0]])
        found = bank.at(torch.tensor([index]), ends)[0].numpy()
        first, last = truth(motion, [0.0, (count - 1) / RATE_HZ])
        np.testing.assert_allclose(found[:3], np.broadcast_to(first, (3, *first.shape)), atol=1e-6)
        np.testing.assert_allclose(found[3:], np.broadcast_to(last, (3, *last.shape)), atol=1e-6)


def test_times_of_long_clips_lose_nothing_to_float32():
    still = generate_motion(np.random.default_rng(1), 2.0)
    minutes = type(still)(np.array([0.0, 600.0]), np.stack([still.xyz_m[0], still.xyz_m[0] + 60.0]))
    bank = motion_bank([minutes])
    times = torch.tensor([[599.123456]], dtype=torch.float64)
    # 0.1 m/s; in float32 ten minutes of 120 Hz have steps of 0.03 ms times 60.
    np.testing.assert_allclose(bank.at(torch.tensor([0]), times)[0].numpy(), truth(minutes, times[0]), atol=2e-5)


def test_room_for_starts_is_what_a_clip_lasts_beyond_the_asked_time(bank, motions):
    room = bank.longer_than(2.4)
    lasts = [min(m.duration_s, 99.0) for m in motions]
    for seconds, own in zip(lasts, room.tolist(), strict=True):
        # A sample on either side belongs to the spline.
        assert own == pytest.approx(max(seconds - 2.4, 0.0), abs=2.01 / RATE_HZ)
        assert own <= max(seconds - 2.4, 0.0)
    assert (room > 0).tolist() == [True, True, False, True]
    assert (bank.longer_than(100.0) == 0).all()
