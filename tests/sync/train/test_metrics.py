import pytest
import torch

from mvpose.sync.clips import Decision
from mvpose.sync.train.metrics import interval_labels, join_decisions, score_decisions

TRUTH = torch.tensor([0.25, -1.25, 3.95, -5.0])


def decision(ex, tenth, offset, sigma=None):
    return Decision(
        torch.tensor(ex),
        None if tenth is None else torch.tensor(tenth),
        torch.tensor(offset),
        None if sigma is None else torch.tensor(sigma),
    )


def test_the_truth_is_right_in_every_column():
    score = score_decisions(decision([0, 1, 3, 5], [2, 2, 9, 0], TRUTH.tolist()), TRUTH, 0.1)
    assert (score.ex_1, score.ex_3, score.in_1, score.in_3, score.in_5, score.sign) == (1, 1, 1, 1, 1, 1)
    assert (score.frame_error, score.mean_ms, score.within_tenth, score.pairs) == (0, 0, 1, 4)


def test_less_than_is_strict():
    off_by = decision([1, 2, 5, 2], [3, 4, 4, 5], TRUTH.tolist())  # ex by 1, 1, 2, 3; in by 1, 2, 5, 5
    score = score_decisions(off_by, TRUTH, 0.1)
    assert (score.ex_1, score.ex_3) == (0, 0.75)
    assert (score.in_1, score.in_3, score.in_5) == (0, 0.5, 0.5)


def test_the_frame_error_joins_frames_and_tenths():
    # 0.2 → 0.9, 1.2 → 1.2, 3.9 → 4.0 (near, although both classes are wrong), 5.0 → 2.5.
    score = score_decisions(decision([0, 1, 4, 2], [9, 2, 0, 5], TRUTH.tolist()), TRUTH, 0.1)
    assert score.frame_error == pytest.approx((0.7 + 0 + 0.1 + 2.5) / 4)


def test_without_tenths_frames_alone_count():
    score = score_decisions(decision([0, 2, 3, 2], None, TRUTH.tolist()), TRUTH, 0.1)
    assert score.frame_error == pytest.approx((0 + 1 + 0 + 3) / 4)
    assert score.in_1 is score.in_3 is score.in_5 is None


def test_signed_errors_are_in_ms_of_the_frame():
    # Errors of 0.5, 2.5, 0.04 and 10 frames of 20 ms; the second and the last have the wrong sign.
    found = decision([0, 1, 3, 5], [2, 2, 9, 0], [0.75, 1.25, 3.99, 5.0])
    score = score_decisions(found, TRUTH, 0.02)
    assert score.mean_ms == pytest.approx(20 * (0.5 + 2.5 + 0.04 + 10) / 4)
    assert score.median_ms == pytest.approx(20 * (0.5 + 2.5) / 2)
    assert score.p90_ms == pytest.approx(20 * (2.5 + 0.7 * 7.5))
    assert (score.sign, score.within_tenth, score.within_frame) == (0.5, 0.25, 0.5)
    assert score.frame_error == 0  # which the paper's metric does not see


def test_what_is_simultaneous_has_no_sign_to_be_right_about():
    score = score_decisions(decision([0, 0], None, [-1.0, 1.0]), torch.tensor([0.0, 1.0]), 0.1)
    assert score.sign == 1.0


def test_z_compares_errors_with_sigmas():
    found = decision([0, 1, 3, 5], None, (TRUTH + torch.tensor([0.1, -0.2, 0.3, 0.0])).tolist(), [0.1, 0.1, 0.1, 0.1])
    assert score_decisions(found, TRUTH, 0.1).z_rms == pytest.approx(((1 + 4 + 9) / 4) ** 0.5, rel=1e-5)
    assert score_decisions(decision([0, 1, 3, 5], None, TRUTH.tolist()), TRUTH, 0.1).z_rms is None


def test_joined_decisions_score_like_the_whole():
    whole = decision([0, 2, 3, 5], [2, 3, 9, 1], [0.2, -2.3, 3.9, 5.1], [0.1, 0.2, 0.3, 0.4])
    parts = [decision([0], [2], [0.2], [0.1]), decision([2, 3, 5], [3, 9, 1], [-2.3, 3.9, 5.1], [0.2, 0.3, 0.4])]
    assert score_decisions(join_decisions(parts), TRUTH, 0.1) == score_decisions(whole, TRUTH, 0.1)
    assert join_decisions([decision([0], None, [0.0])]).tenth is None


# Labels.


def test_labels_are_whole_frames_and_tenths_of_the_size_and_the_sign():
    labels = interval_labels(torch.tensor([0.0, 0.04, 2.35, -2.35, 5.99999, -5.95]))
    assert labels.ex.tolist() == [0, 0, 2, 2, 5, 5]
    assert labels.tenth.tolist() == [0, 0, 3, 3, 9, 9]
    assert labels.order.tolist() == [0, 1, 1, 0, 1, 0]
    assert labels.ordered.tolist() == [False, True, True, True, True, True]


def test_whole_frames_survive_the_way_through_seconds():
    whole = torch.arange(-30, 31).float()
    for frame_s in (1 / 10, 1 / 25, 1 / 30, 1 / 60):
        labels = interval_labels((whole * frame_s) / frame_s, reach=30)
        assert torch.equal(labels.ex, whole.abs().long())
        assert (labels.tenth == 0).all()
