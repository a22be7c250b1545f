"""How good decisions are: the paper's columns, and what they leave out, the signed error in time.

Liu et al. (AAAI 2024), *Evaluation metrics*. Their ``<`` is strict, so Acc@1 is the share of exactly right classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mvpose.sync.answers import TENTHS
from mvpose.sync.clips import Decision

_ROUNDING = 1e-4  # frames; a whole number of frames, divided out of seconds in float32, is not one any more


@dataclass(frozen=True)
class IntervalLabels:
    """The classes of B offsets.

    Attributes:
        ex: (B,) whole frames of |offset|.
        tenth: (B,) tenths of a frame beyond them.
        order: (B,) 0 where the offset is negative, 1 where it is positive.
        ordered: (B,) whether it is not zero.
    """

    ex: Tensor
    tenth: Tensor
    order: Tensor
    ordered: Tensor


def interval_labels(offset_frames: Tensor, reach: int = 5) -> IntervalLabels:
    """Return the classes of offsets (B,), frames, all within ``reach`` whole frames and their fraction."""
    size = offset_frames.abs()
    tenths = (TENTHS * (size + _ROUNDING)).long().clamp(max=TENTHS * (reach + 1) - 1)
    return IntervalLabels(tenths // TENTHS, tenths % TENTHS, (offset_frames > 0).long(), size > _ROUNDING)


@dataclass(frozen=True)
class Score:
    """Decisions on many pairs against the truth; shares are in [0, 1].

    Attributes:
        pairs: How many.
        ex_1: Acc_ex@1, the share with ``|P_ex − GT_ex| < 1``.
        ex_3: Acc_ex@3.
        in_1: Acc_in@1, the share with ``|P_in − GT_in| < 1`` tenths, of all pairs whatever their whole frame; None of
            an estimator that counts whole frames only.
        in_3: Acc_in@3.
        in_5: Acc_in@5.
        frame_error: Mean ``|(P_ex + P_in / 10) − (GT_ex + GT_in / 10)|``, frames; of one without tenths the mean
            ``|P_ex − GT_ex|``, as the paper does it.
        sign: Share of the pairs that are not simultaneous whose offset has the right sign; one of 0 has none.
        mean_ms: Mean size of the signed error, offset minus truth, ms.
        median_ms: Its median.
        p90_ms: Its 90th percentile.
        within_tenth: Share of signed errors of at most half a tenth of a frame.
        within_frame: Share of at most half a frame.
        z_rms: Root mean square of error over sigma, 1 if the sigmas are honest; None without sigmas.
    """

    pairs: int
    ex_1: float
    ex_3: float
    in_1: float | None
    in_3: float | None
    in_5: float | None
    frame_error: float
    sign: float
    mean_ms: float
    median_ms: float
    p90_ms: float
    within_tenth: float
    within_frame: float
    z_rms: float | None


def score_decisions(decision: Decision, offset_frames: Tensor, frame_s: float, *, reach: int = 5) -> Score:
    """Compare decisions on B ≥ 1 pairs with the truth.

    Args:
        decision: What was decided.
        offset_frames: (B,) the true offsets, ``t_b = t_a + offset``, frames.
        frame_s: Duration of a frame, seconds.
        reach: Largest number of whole frames.
    """
    labels = interval_labels(offset_frames, reach)
    wrong_ex = (decision.ex - labels.ex).abs()
    frame_error = wrong_ex.double()
    in_1 = in_3 = in_5 = None
    if decision.tenth is not None:
        wrong_in = (decision.tenth - labels.tenth).abs()
        in_1, in_3, in_5 = (_share(wrong_in < j) for j in (1, 3, 5))
        frame_error = (TENTHS * (decision.ex - labels.ex) + decision.tenth - labels.tenth).abs().double() / TENTHS
    error = decision.offset_frames.double() - offset_frames.double()
    size_ms = 1e3 * frame_s * error.abs()
    right_way = (decision.offset_frames.sign() == offset_frames.sign())[labels.ordered]
    sigma = decision.sigma_frames
    return Score(
        pairs=len(error),
        ex_1=_share(wrong_ex < 1),
        ex_3=_share(wrong_ex < 3),
        in_1=in_1,
        in_3=in_3,
        in_5=in_5,
        frame_error=float(frame_error.mean()),
        sign=_share(right_way),
        mean_ms=float(size_ms.mean()),
        median_ms=float(size_ms.quantile(0.5)),
        p90_ms=float(size_ms.quantile(0.9)),
        within_tenth=_share(error.abs() <= 0.5 / TENTHS),
        within_frame=_share(error.abs() <= 0.5),
        z_rms=None if sigma is None else float((error / sigma).square().mean().sqrt()),
    )


def _share(hit: Tensor) -> float:
    return float(hit.double().mean())


def join_decisions(parts: list[Decision]) -> Decision:
    """Return the decisions of several batches of one estimator as one."""

    def joined(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else torch.cat(values)

    return Decision(
        torch.cat([part.ex for part in parts]),
        joined("tenth"),
        torch.cat([part.offset_frames for part in parts]),
        joined("sigma_frames"),
    )
