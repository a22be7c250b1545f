"""Clip pairs of real recordings: the folders of NTU-SYN and CMU-SYN, and a table of pairs for IFID or anybody's own.

The layouts, and what is known of the original ones, are in ``docs/datasets.md``. Whatever was recorded, what comes out
is the paper's task: clips of 5 frames, offsets of less than 6 frames, no calibration.

**Sign.** ``t_b = t_a + offset``, in frames, each view's time counted from its own first frame.
"""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvpose.errors import FormatError, MvposeError
from mvpose.inputs import NONSENSE, read_json, read_text
from mvpose.keypoints import UNTRACKED, Keypoints2D
from mvpose.skeleton import SKELETONS
from mvpose.sync.clips import ClipPairs
from mvpose.sync.windows import clip_joints

log = logging.getLogger(__name__)

_MOST_FRAMES = 1_000_000  # of a view; the data sets' have some hundreds
_REQUIRED = ("split", "keypoints_a", "keypoints_b", "offset_frames", "fps")
_OPTIONAL = ("start_a", "start_b", "track_a", "track_b")
# The two cameras of a pair, as SeSyn-Net's loader tells them apart by parts of the files' names.
_SESYN_CAMERAS = {"NTU-SYN": ("C001", "C002"), "CMU-SYN": ("C11", "C21")}


@dataclass(frozen=True)
class View:
    """One person in one camera, in every frame.

    Attributes:
        xy_px: (T, J, 2) the joints of ``CLIP_SKELETON``, pixels, as detected; NaN where missing.
        score: (T, J) confidence in [0, 1]; 0 where missing.
        size_px: (width, height) of the image.
    """

    xy_px: np.ndarray
    score: np.ndarray
    size_px: tuple[int, int]

    def __len__(self) -> int:
        return len(self.xy_px)

    def since(self, frame: int) -> View:
        """Return the view from a frame on, which becomes its first."""
        return View(self.xy_px[frame:], self.score[frame:], self.size_px)


@dataclass(frozen=True)
class ViewPair:
    """Two views of one person, whose offset is known.

    Attributes:
        a: The first view.
        b: The second view.
        offset_frames: ``t_b = t_a + offset_frames``, counted in frames from either view's first.
        fps: Frame rate of both, Hz.
        source: File and line that the pair is from, for messages.
    """

    a: View
    b: View
    offset_frames: float
    fps: float
    source: str

    def swapped(self) -> ViewPair:
        """Return the same pair with the views exchanged."""
        return ViewPair(self.b, self.a, -self.offset_frames, self.fps, self.source)


@dataclass(frozen=True)
class Cut:
    """How clips are cut out of pairs.

    Attributes:
        frames: Frames of a clip.
        whole_frames: Offsets keep to whole frames −n … n, plus the fraction that the pair has.
        draws: Pairs of clips from each pair of views, with new offsets, as the paper does (2 for IFID, 6 for CMU-SYN);
            None for the one pair that begins where the views do, with the offset that they have, if it is small enough.
    """

    frames: int = 5
    whole_frames: int = 5
    draws: int | None = 2


# Reading.


def read_pair_table(path: Path, split: str, read: Callable[[Path], Keypoints2D]) -> list[ViewPair]:
    """Read a ``pairs.csv``: one row a pair of views, whose keypoint files it names.

    Args:
        path: The table; its files are relative to its folder.
        split: The split whose rows are wanted, such as ``train``.
        read: Reads one file of keypoints; :func:`mvpose.formats.keypoints2d.read_npz` for our own.

    Raises:
        FormatError: The table or a row is wrong, a file cannot be read or does not fit its row; names file and line.
    """
    path = Path(path)
    rows = list(_rows(path))
    if split not in {row["split"] for _, row in rows}:
        known = ", ".join(sorted({row["split"] for _, row in rows})) or "none"
        raise FormatError(f"{path} has no pairs of split {split!r}; its splits are: {known}.")
    files: dict[str, Keypoints2D] = {}
    pairs = []
    for where, row in rows:
        numbers = {name: _number(where, name, row[name]) for name in (*_REQUIRED[3:], *_OPTIONAL) if row.get(name)}
        if numbers["fps"] <= 0:
            raise FormatError(f"{where}: fps is {row['fps']}; it must be positive.")
        if row["split"] != split:
            continue
        views = []
        for side in ("a", "b"):
            name = row[f"keypoints_{side}"]
            if name not in files:
                files[name] = _keypoints(where, path.parent / name, read)
            _check_rate(where, name, files[name], numbers["fps"])
            view = _view_of(where, name, files[name], numbers.get(f"track_{side}"))
            start = int(numbers.get(f"start_{side}", 0))
            if start >= len(view):
                raise FormatError(f"{where}: start_{side} is {start}, and {name} has {len(view)} frames.")
            views.append(view.since(start))
        pairs.append(ViewPair(views[0], views[1], numbers["offset_frames"], numbers["fps"], where))
    return pairs


def read_sesyn_folder(path: Path, *, fps: float = 30.0) -> list[ViewPair]:
    """Read a folder of NTU-SYN or CMU-SYN, as SeSyn-Net's published loader does.

    One JSON file a view, with the frames that both videos share and in ``category_id`` how many of them the view lacks
    at its beginning; of the people, the first.

    Args:
        path: The folder of one split.
        fps: Frame rate, which the files do not say: 30 Hz of Kinect, 29.97 Hz of the Panoptic Studio.

    Raises:
        FormatError: No or not the same number of files of either camera, or a file that is not as it should be.
    """
    path = Path(path)
    names = sorted(p.name for p in path.glob("*.json"))
    for dataset, tokens in _SESYN_CAMERAS.items():
        sides = [{name.replace(token, "", 1): name for name in names if token in name} for token in tokens]
        if not any(sides):
            continue
        (first, second), (camera_a, camera_b) = sides, tokens
        if len(first) != len(second):
            lone = min(set(first) ^ set(second))
            raise FormatError(
                f"{path} has {len(first)} files of camera {camera_a} and {len(second)} of {camera_b}; alone is, with "
                f"the camera left out of its name, {lone}."
            )
        if set(first) != set(second):
            log.warning("%s: names do not tell which views belong together, so their order does", path)
        log.info("%s holds %d pairs of %s", path, len(first), dataset)
        pairs = []
        for a, b in zip((first[key] for key in sorted(first)), (second[key] for key in sorted(second)), strict=True):
            (view_a, late_a), (view_b, late_b) = _sesyn_view(path / a), _sesyn_view(path / b)
            # An instant is frame n − late of either view.
            pairs.append(ViewPair(view_a, view_b, float(late_a - late_b), fps, f"{path / a} and {b}"))
        return pairs
    tokens_known = " or ".join(f"{a} and {b} ({dataset})" for dataset, (a, b) in _SESYN_CAMERAS.items())
    raise FormatError(f"{path} holds no JSON files with {tokens_known} in their names.")


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row of the table, and where it stands; cells that must be filled are."""
    try:
        with io.StringIO(read_text(path), newline="") as file:
            table = csv.DictReader(file)
            columns = [name.strip() for name in table.fieldnames or ()]
            _check_columns(path, columns)
            table.fieldnames = columns
            for row in table:
                where = f"{path}, line {table.line_num}"
                if None in row or None in row.values():
                    raise FormatError(f"{where}: the row has not as many cells as the header, {len(columns)}.")
                cells = {name: cell.strip() for name, cell in row.items()}
                empty = [name for name in _REQUIRED if not cells[name]]
                if empty:
                    raise FormatError(f"{where}: {', '.join(empty)} must not be empty.")
                yield where, cells
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path} is not a table of comma-separated values in UTF-8: {error}.") from error


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        raise FormatError(f"{path} lacks the columns {', '.join(missing)}; see docs/datasets.md.")
    for name in columns:
        if name not in _REQUIRED + _OPTIONAL or columns.count(name) > 1:
            near = get_close_matches(name, _REQUIRED + _OPTIONAL, 1)
            raise FormatError(
                f"{path} has a column {name!r}{f', did you mean {near[0]!r}' if near else ''}? Remove it."
            )


def _number(where: str, name: str, cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise FormatError(f"{where}: {name} is {cell!r}, not a number.")
    if name in _OPTIONAL and not (number >= 0 and number.is_integer()):
        raise FormatError(f"{where}: {name} is {cell!r}; it must be a whole number from 0.")
    return number


def _keypoints(where: str, path: Path, read: Callable[[Path], Keypoints2D]) -> Keypoints2D:
    try:
        if not path.exists():
            raise FormatError(f"there is no {path}")
        return read(path)
    except OSError as error:  # a name that no file can have
        raise FormatError(f"{where}: {str(path)[:200]} cannot be read: {error.strerror or error}.") from error
    except MvposeError as error:
        raise FormatError(f"{where}: {error}") from error


def _check_rate(where: str, name: str, keypoints: Keypoints2D, fps: float) -> None:
    rate = keypoints.frame_rate
    if math.isfinite(rate) and abs(rate / fps - 1) > 0.02:
        raise FormatError(f"{where}: fps is {fps:g}, and {name} has {rate:.2f} frames per second.")


def _view_of(where: str, name: str, keypoints: Keypoints2D, track: float | None) -> View:
    """Take one person: a track, else the one seen in most frames, else in each frame the most confident detection."""
    tracked = keypoints.track_id[keypoints.track_id != UNTRACKED]
    if track is None and len(tracked):
        ids, counts = np.unique(tracked, return_counts=True)
        track = int(ids[np.argmax(counts)])
    rows = np.arange(len(keypoints.track_id)) if track is None else np.flatnonzero(keypoints.track_id == track)
    if not len(rows):
        raise FormatError(f"{where}: {name} shows {'nobody' if track is None else f'no track {track:g}'}.")
    rows = rows[np.argsort(keypoints.score[rows].mean(axis=1), kind="stable")]  # of one frame, the last is kept
    frame = keypoints.frame_index[rows]
    xy = np.full((keypoints.n_frames, len(keypoints.skeleton), 2), np.nan)
    score = np.zeros(xy.shape[:2])
    xy[frame], score[frame] = keypoints.xy_px[rows], keypoints.score[rows]
    return View(*clip_joints(xy, score, keypoints.skeleton), keypoints.known_size_px("SeSyn-Net"))


def _sesyn_view(path: Path) -> tuple[View, int]:
    """Read a view of SeSyn-Net's data, and how many frames it lacks at its beginning."""
    coco = SKELETONS["coco17"]
    try:
        data: Any = read_json(path)
        info, late, frames = data["info"], data["category_id"], data["info"]["num_frame"]
        channel = [info["keypoint_channels"].index(name) for name in ("x", "y", "score")]
        size_px = (int(info["resolution"][0]), int(info["resolution"][1]))
        people = [(a["id"] if a["person_id"] is None else a["person_id"], a) for a in data["annotations"]]
        found = {
            int(a["frame_index"]): np.array(a["keypoints"], dtype=np.float64)[:, channel]
            for person, a in people
            if person == 0 and 0 <= a["frame_index"] < frames
        }
        shapes = {joints.shape for joints in found.values()}
        if max(found, default=0) > _MOST_FRAMES:
            raise ValueError(f"frame {max(found)} is no frame's number")
    except (OSError, *NONSENSE) as error:
        raise FormatError(f"{path} is not a view of NTU-SYN or CMU-SYN: {type(error).__name__} {error}.") from error
    if shapes - {(len(coco), 3)} or min(size_px) < 1:
        raise FormatError(f"{path} is not a view of NTU-SYN or CMU-SYN: it must have the 17 keypoints of COCO.")
    if not isinstance(late, int) or not 0 <= late < max(found, default=0):
        raise FormatError(
            f"{path}: category_id, the view's late start, is {late!r}, of {max(found, default=0)} frames."
        )
    all_joints = np.full((max(found) + 1, len(coco), 3), np.nan)
    all_joints[list(found)] = np.stack(list(found.values()))
    score = np.clip(np.nan_to_num(all_joints[..., 2]), 0, 1)
    score[~np.isfinite(all_joints).all(-1)] = 0
    xy = np.where(score[..., None] > 0, all_joints[..., :2], np.nan)
    return View(*clip_joints(xy, score, coco), size_px).since(late), late


# Cutting.


def clip_batches(
    generator: torch.Generator, pairs: Sequence[ViewPair], cut: Cut, size: int
) -> Iterator[tuple[ClipPairs, Tensor]]:
    """Cut clips out of all pairs, in random order, in batches.

    New offsets are drawn by the paper's rule: the views are synchronised to the same frame, the fraction between their
    frames stays, and a whole number of frames is drawn from −n … n, of those that leave room in short videos. By chance
    the views are exchanged, so that both signs are distributed alike. Both clips are equally long and lie anywhere in
    the views.

    Args:
        generator: Source of randomness; the same one gives the same batches.
        pairs: The recordings.
        cut: How to cut.
        size: Pairs of clips of a batch, B; the last may be smaller.

    Yields:
        The clips, without calibration, and ``offset_frames`` (B,), each |offset| < n + 1.

    Raises:
        FormatError: A pair leaves no room for two clips, or no pair has an offset that is small enough.
    """
    if cut.draws is None:
        kept = [pair for pair in pairs if abs(pair.offset_frames) < cut.whole_frames + 1]
        if not kept:
            raise FormatError(f"none of {len(pairs)} pairs has an offset of less than {cut.whole_frames + 1} frames.")
        if len(kept) < len(pairs):
            log.info("%d of %d pairs are left out, their offsets are too large", len(pairs) - len(kept), len(pairs))
        pairs = kept
    order = torch.randperm(len(pairs) * (cut.draws or 1), generator=generator).tolist()
    for first in range(0, len(order), size):
        chosen = [pairs[index % len(pairs)] for index in order[first : first + size]]
        yield _stacked([_cut(generator, pair, cut) for pair in chosen], cut.frames)


def _cut(generator: torch.Generator, pair: ViewPair, cut: Cut) -> ViewPair:
    """Return two clips of a pair, and their offset."""

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    n = cut.frames
    if cut.draws is None:
        return _clips(pair, 0, 0, n, pair.offset_frames)
    # Rounded, so that the largest whole number and fraction do not become the next whole number in float32.
    offset = round(pair.offset_frames, 6)
    whole = math.floor(offset)
    # Where clip a begins at frame i, clip b begins at i + whole − drawn: from and to which i both views have them.
    spans = [
        (drawn, max(0, drawn - whole), min(len(pair.a), len(pair.b) - whole + drawn) - n)
        for drawn in range(-cut.whole_frames, cut.whole_frames + 1)
    ]
    spans = [span for span in spans if span[1] <= span[2]]
    if not spans:
        raise FormatError(
            f"{pair.source}: views of {len(pair.a)} and {len(pair.b)} frames, {pair.offset_frames:g} frames apart, "
            f"have no two clips of {n} frames within {cut.whole_frames} frames."
        )
    drawn, low, high = spans[draw(len(spans))]
    i = low + draw(high - low + 1)
    clips = _clips(pair, i, i + whole - drawn, n, drawn + offset - whole)
    return clips.swapped() if draw(2) else clips


def _clips(pair: ViewPair, i: int, j: int, frames: int, offset_frames: float) -> ViewPair:
    """Return the clips that begin at frame i of view a and j of view b."""
    if min(len(pair.a) - i, len(pair.b) - j) < frames:
        raise FormatError(f"{pair.source}: a view has no {frames} frames; it has {min(len(pair.a), len(pair.b))}.")
    a, b = (View(v.xy_px[k : k + frames], v.score[k : k + frames], v.size_px) for v, k in ((pair.a, i), (pair.b, j)))
    return ViewPair(a, b, offset_frames, pair.fps, pair.source)


def _stacked(pairs: Sequence[ViewPair], frames: int) -> tuple[ClipPairs, Tensor]:
    views = [[pair.a, pair.b] for pair in pairs]

    def tensor(values: Any) -> Tensor:
        return torch.from_numpy(np.array(values, dtype=np.float32))

    unknown = torch.full((len(pairs), 2, 3, 4), torch.nan)
    fps = tensor([pair.fps for pair in pairs])
    clips = ClipPairs(
        tensor([[view.xy_px for view in both] for both in views]),
        tensor([[view.score for view in both] for both in views]),
        (torch.arange(frames) / fps[:, None])[:, None].expand(-1, 2, -1),
        unknown[..., :3],
        unknown,
        tensor([[view.size_px for view in both] for both in views]),
    )
    return clips, tensor([pair.offset_frames for pair in pairs])
