"""CNNSiamese: a small CNN embeds images of motion, and the distances between two views' frames tell the offset.

Boizard et al., *Deep Learning-Based Stereo Camera Multi-Video Synchronization* (ICASSP 2023). Adapted, since there is
no video here, to images of the joints' motion, and to short clips:

- Optical flow is rendered from the joints: each carries its displacement, spread by a Gaussian, on 64² images in place
  of 224².
- Their clips have 20 frames and give a 20 × 20 matrix of distances; T frames have T − 1 displacements here, so that 5
  give 4 × 4. Their softmax tells 40 offsets; here −reach … reach.
- Half of their filters (16-24-24-32 in place of 32-48-48-64), the first at every fourth pixel in place of pooling, so
  that a CPU trains it; the embedding has their 48 numbers.
- They train the embedding first and the classifier after it; here both learn at once (``losses.cnnsiamese_loss``).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from mvpose.bench.clips.rendering import gaussian_profiles, person_frame
from mvpose.sync.clips import ClipPairs, Decision

_PIXELS = 64
_SIGMA = 2.5  # of a joint's Gaussian, pixels of the image
_FILTERS = (16, 24, 24, 32)
_EMBEDDING = 48


@dataclass(frozen=True)
class MatchedMotion:
    """What is known of B pairs of clips with n = T − 1 images each.

    Attributes:
        distances: (B, n, n) of each image of a from each of b.
        logits: (B, 2 · reach + 1) of the signed whole frames −reach … reach, towards zero.
    """

    distances: Tensor
    logits: Tensor


def render_joint_flow(pairs: ClipPairs) -> Tensor:
    """Return images (B, 2, T − 1, 2, 64, 64) of the joints' displacements to the next frame.

    Displacements are in units of the person's size; each is spread by a Gaussian round the joint's earlier position.
    """
    _, size = person_frame(pairs)
    both = pairs.seen[:, :, 1:] & pairs.seen[:, :, :-1]
    displacement = torch.where(both[..., None], torch.diff(pairs.xy, dim=2) / size, 0.0)
    rows, columns = (profile[:, :, :-1] for profile in gaussian_profiles(pairs, _PIXELS, _SIGMA))
    carried = displacement.permute(0, 1, 2, 4, 3)[..., None, :] * rows.transpose(3, 4)[..., None, :, :]
    return (carried.flatten(3, 4) @ columns).unflatten(3, (2, _PIXELS))


class CNNSiamese(nn.Module):
    """One CNN for both views, and a classifier of the distances.

    Args:
        frames: Frames of a clip.
        reach: Largest number of whole frames.
        whole_frames: Whether offsets are whole numbers, so that a class stands for itself and not for the frame beyond.
    """

    def __init__(self, *, frames: int = 5, reach: int = 5, whole_frames: bool = False) -> None:
        super().__init__()
        self.reach, self.whole_frames = reach, whole_frames
        layers: list[nn.Module] = [nn.Conv2d(2, _FILTERS[0], 5, stride=4, padding=2), nn.ReLU()]
        for before, after in pairwise(_FILTERS):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_FILTERS[-1], _EMBEDDING)]
        self.embed = nn.Sequential(*layers)
        self.classify = nn.Sequential(
            nn.Linear((frames - 1) ** 2, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2 * reach + 1)
        )

    def forward(self, pairs: ClipPairs) -> MatchedMotion:
        """Compare B pairs of clips."""
        images = render_joint_flow(pairs)
        flat = images.flatten(0, 2).contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        a, b = self.embed(flat).unflatten(0, images.shape[:3]).unbind(1)
        distances = torch.cdist(a, b)
        return MatchedMotion(distances, self.classify(distances.flatten(1)))

    def decide(self, output: MatchedMotion) -> Decision:
        """Take the most probable whole frame; where offsets have fractions, the offset is the middle of that frame."""
        whole = output.logits.argmax(1) - self.reach
        offset = whole.to(output.logits.dtype)
        if not self.whole_frames:
            offset = offset + 0.5 * whole.sign()
        return Decision(whole.abs(), None, offset)
