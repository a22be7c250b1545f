"""SynNet-style: heatmaps of two views through one CNN, then a bidirectional ConvLSTM over the frames.

After Wu et al., *Multi-Video Temporal Synchronization by Matching Pose Features of Shared Moving Subjects* (ICCVW
2019), whose layer sizes are not given; hence "style". Sizes and resolution (heatmaps of 24², of which the first
convolution takes squares of 4²) are chosen so that a CPU trains it. The heads for tenths are those that Liu et al. add
in their comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvpose.bench.clips.rendering import render_heatmaps
from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.answers import IntervalLogits
from mvpose.sync.clips import ClipPairs, Decision
from mvpose.sync.insynformer import IntervalHeads, distance_map

_PIXELS, _MAP, _FEATURES, _HIDDEN = 24, 3, 48, 32  # side of a heatmap, of a feature map; channels of it, of the memory


class ConvLSTM(nn.Module):
    """An LSTM whose states are maps and whose gates are 3 × 3 convolutions (Shi et al. 2015)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.from_input = nn.Conv2d(channels, 4 * hidden, 3, padding=1)
        self.from_state = nn.Conv2d(hidden, 4 * hidden, 3, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the states (B, T, hidden, H, W) after each of the maps (B, T, channels, H, W)."""
        inputs = self.from_input(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
        state = cell = maps.new_zeros(len(maps), self.hidden, *maps.shape[3:])
        states = []
        for frame in inputs.unbind(1):
            keep, add, show, new = (frame + self.from_state(state)).chunk(4, dim=1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(add) * torch.tanh(new)
            state = torch.sigmoid(show) * torch.tanh(cell)
            states.append(state)
        return torch.stack(states, dim=1)


@dataclass(frozen=True)
class StreamAnswer:
    """What SynNet says of B pairs, and the frames (B, T, D) of both streams whose map it saw, if it did."""

    logits: IntervalLogits
    frames: tuple[Tensor, Tensor] | None


class SynNet(nn.Module):
    """Two streams that share one CNN, joined frame by frame.

    Args:
        reach: Largest number of whole frames.
        conditional: Whether tenths are conditioned on the whole frame (HXE) or independent of it (CE).
        whole_frames: Whether only whole frames are to be told.
        map_of: Frames of a clip whose map between the two streams is classified beside the memory's state, as guided
            networks need it; 0 without, as published.
    """

    def __init__(
        self, *, reach: int = 5, conditional: bool = True, whole_frames: bool = False, map_of: int = 0
    ) -> None:
        super().__init__()
        self.stream = nn.Sequential(
            nn.Conv2d(len(CLIP_SKELETON), _FEATURES, 4, stride=4),
            nn.BatchNorm2d(_FEATURES),
            nn.ReLU(),
            nn.Conv2d(_FEATURES, _FEATURES, 3, stride=2, padding=1),
            nn.BatchNorm2d(_FEATURES),
            nn.ReLU(),
        )
        self.forwards, self.backwards = ConvLSTM(2 * _FEATURES, _HIDDEN), ConvLSTM(2 * _FEATURES, _HIDDEN)
        self.merge = nn.Linear(2 * _HIDDEN * _MAP**2 + map_of**2, 128)
        self.embed = nn.Linear(_FEATURES * _MAP**2, 64) if map_of else None
        self.classify = IntervalHeads(128, reach=reach, conditional=conditional, whole_frames=whole_frames)

    def forward(self, pairs: ClipPairs) -> StreamAnswer:
        """Classify B pairs of clips of any length."""
        heatmaps = render_heatmaps(pairs, _PIXELS)
        images = heatmaps.flatten(0, 2).contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        features = self.stream(images).contiguous().unflatten(0, heatmaps.shape[:3])
        joined = features.transpose(1, 2).flatten(2, 3)  # (B, T, 2 · features, 3, 3)
        states = torch.cat([self.forwards(joined)[:, -1], self.backwards(joined.flip(1))[:, -1]], dim=1)
        told, frames = [states.flatten(1)], None
        if self.embed is not None:
            first, second = frames = self.embed(features.flatten(3)).unbind(1)
            told.append(distance_map(first, second).log_softmax(2).flatten(1))
        return StreamAnswer(self.classify(torch.relu(self.merge(torch.cat(told, 1)))), frames)

    def decide(self, output: StreamAnswer) -> Decision:
        """Say what the logits mean."""
        return output.logits.decide()
