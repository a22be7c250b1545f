"""Videos: true frame times, frames as they are displayed, sound, and writing. The only importer of PyAV.

A frame's time is its presentation time in the container, never its number divided by a frame rate: phones record at a
varying rate, and recorders leave frames out. A video is read to its end or refused; it is never silently shortened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fractions import Fraction
from itertools import chain, count, dropwhile, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mvpose.atomic import atomic_path
from mvpose.errors import VideoError
from mvpose.frametimes import increasing_times

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container import InputContainer
    from av.video.frame import VideoFrame

log = logging.getLogger(__name__)

# Codecs of which one packet is one displayed frame, so that frames can be counted without decoding them.
_ONE_PACKET_ONE_FRAME = frozenset(
    {"h264", "hevc", "vvc", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores", "dnxhd", "ffv1", "rawvideo"}
)
# Chapters whose container goes on counting time (AVCHD) start within this of the last frame.
_CONTINUES_WITHIN_S = 1.0
_WRITE_TICK_S = Fraction(1, 90000)
# Sound whose time stamps are this far from where its samples lead has a gap; Matroska's are rounded to 1 ms.
_SOUND_GAP_S = 0.005
_CANCELLED = 0.05  # of the loudest channel's power: the mean of all channels has at least 1 / 4 of it where two agree
# Containers that know no date say 1904 or 1970.
_FIRST_YEAR = 1990


@dataclass(frozen=True)
class _Chapter:
    """One file of a camera.

    Attributes:
        path: The file.
        tick_s: Unit of its time stamps, seconds.
        pts: (n,) presentation time of each frame, ticks, never decreasing.
        ordered: Whether the decoder puts out just these time stamps in this order. False for containers that have
            none (AVI): there frames are known by their number alone.
    """

    path: Path
    tick_s: Fraction
    pts: np.ndarray
    ordered: bool

    @property
    def start_s(self) -> float:
        return float(int(self.pts[0]) * self.tick_s)

    @property
    def time_s(self) -> np.ndarray:
        """(n,) seconds since the chapter's first frame."""
        return (self.pts - self.pts[0]) * self.tick_s.numerator / self.tick_s.denominator


class _Look(NamedTuple):
    """What one file shows: displayed size, rotation as of :class:`Video`, and whether it has audio."""

    size_px: tuple[int, int]
    rotation: int
    has_audio: bool


@dataclass(frozen=True, eq=False)
class Sound:
    """What a camera's microphone heard.

    Attributes:
        samples: (n,) float32, mono, full scale about ±1; NaN where the recording has a gap.
        rate_hz: Samples per second.
        start_s: The camera's own time of the first sample, seconds; negative where sound starts before the pictures.
    """

    samples: np.ndarray
    rate_hz: int
    start_s: float


@dataclass(frozen=True)
class ContainerTime:
    """What a container says of when its first frame was taken.

    Attributes:
        timecode: ``HH:MM:SS:FF``, with a semicolon before the frames where numbers are dropped; None if it has none.
        created: Date and time, as the camera's clock was set, with a time zone; None if it has none.
        fps: Nominal frames per second.
        start_s: The camera's own time of that frame, seconds.
    """

    timecode: str | None
    created: datetime | None
    fps: float
    start_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Video:
    """One camera's video, made by :func:`probe`; nothing of it is held in memory but the frame times.

    Attributes:
        camera: The camera's name.
        paths: Its files in order; more than one where the camera recorded in chapters.
        size_px: (width, height) of the displayed image, that is with the rotation flag applied. Non-square pixels stay
            as they are stored, as calibrations take them.
        rotation: Degrees, 0, 90, 180 or 270, by which a stored picture is turned counter-clockwise to be displayed.
        time_s: (T,) presentation time of each frame since the first, seconds, strictly increasing.
        has_audio: Whether there is an audio track.
    """

    camera: str
    paths: tuple[Path, ...]
    size_px: tuple[int, int]
    rotation: int
    time_s: np.ndarray
    has_audio: bool
    _chapters: tuple[_Chapter, ...] = field(default=(), repr=False)

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.time_s)

    @property
    def frame_rate(self) -> float:
        """Median frames per second; NaN for fewer than two frames."""
        return float(1 / np.median(np.diff(self.time_s))) if self.n_frames > 1 else float("nan")

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Decode the frames ``start:stop`` one after the other, each when it is asked for.

        Yields:
            (H, W, 3) uint8 RGB as displayed; exactly one for each entry of ``time_s[start:stop]``.

        Raises:
            VideoError: A frame is damaged or missing; the message says which.
        """
        stop = self.n_frames if stop is None else stop
        if not 0 <= start <= stop <= self.n_frames:
            raise IndexError(f"frames {start}:{stop} of {self.camera}, which has {self.n_frames}")
        first = 0
        for chapter in self._chapters:
            low, high = max(start - first, 0), min(stop - first, len(chapter.pts))
            if low < high:
                yield from self._chapter_frames(chapter, first, low, high)
            first += len(chapter.pts)

    def frame(self, index: int) -> np.ndarray:
        """Decode one frame, found by seeking: (H, W, 3) uint8 RGB as displayed."""
        if not 0 <= index < self.n_frames:
            raise IndexError(f"frame {index} of {self.camera}, which has {self.n_frames}")
        return next(self.frames(index, index + 1))

    def audio(self, rate_hz: int = 8000) -> Sound | None:
        """Decode the sound, all channels made one and resampled, on the camera's own time.

        Samples lie where the container's time stamps put them, to half a sample: what is missing or cannot be decoded
        is NaN and shifts nothing. Only the resampled sound is held in memory, 115 MB an hour and channel at 8 kHz.

        Returns:
            The sound; None without a track that can be decoded.
        """
        stretches: list[tuple[float, np.ndarray]] = []
        first = 0
        for chapter in self._chapters:
            to_own_s = float(self.time_s[first]) - chapter.start_s
            stretches += [
                (start_s + to_own_s, samples)
                for start_s, samples in _sound_stretches(self.camera, chapter.path, rate_hz)
            ]
            first += len(chapter.pts)
        if not stretches:
            return None
        start_s = min(start for start, _ in stretches)
        places = [round((start - start_s) * rate_hz) for start, _ in stretches]
        length = max(place + len(samples) for place, (_, samples) in zip(places, stretches, strict=True))
        joined = np.full(length, np.nan, dtype=np.float32)
        for place, (_, samples) in zip(places, stretches, strict=True):
            joined[place : place + len(samples)] = samples
        return Sound(joined, rate_hz, start_s)

    def container_time(self) -> ContainerTime:
        """Read the first file's timecode and date."""
        with _opened(self.camera, self.paths[0]) as (container, stream):
            tags = [container.metadata, stream.metadata, *(other.metadata for other in container.streams)]
            rate = stream.average_rate

        def first(key: str) -> str | None:
            return next((tag[key] for tag in tags if key in tag), None)

        return ContainerTime(first("timecode"), _date(first("creation_time")), float(rate or self.frame_rate))

    def _chapter_frames(self, chapter: _Chapter, first: int, low: int, high: int) -> Iterator[np.ndarray]:
        import av

        def broken(index: int, why: object) -> VideoError:
            return VideoError(
                f"{self.camera}: {chapter.path} breaks at frame {first + index} of {self.n_frames} "
                f"({self.time_s[first + index]:.3f} s): {why}. Copy it anew from the camera, or cut it there."
            )

        index = low
        try:
            for frame in _decode_from(self.camera, chapter, low):
                if chapter.ordered and frame.pts != chapter.pts[index]:
                    raise broken(index, "the frame cannot be decoded")
                image = _displayed(frame, self.rotation)
                if (image.shape[1], image.shape[0]) != self.size_px:
                    raise broken(index, f"its size changes to {image.shape[1]}x{image.shape[0]}")
                yield image
                index += 1
                if index == high:
                    return
        except av.FFmpegError as error:
            raise broken(index, error.strerror) from error
        raise broken(index, "the file ends there")


def probe(camera: str, paths: Sequence[Path], progress: Callable[[float], None] | None = None) -> Video:
    """Read a camera's frame times and see that its video can be decoded at both ends.

    Reads all packets, and decodes only the first frame and those after the last key frame; containers without
    presentation times in their packets are decoded whole.

    Args:
        camera: The camera's name.
        paths: Its files, chapters in order.
        progress: Called with the fraction done.

    Raises:
        VideoError: A file is empty, no video, or truncated, its time stamps are hopeless, or chapters differ in size.
    """
    import av

    chapters: list[_Chapter] = []
    looks: list[_Look] = []
    for number, path in enumerate(paths):

        def report(fraction: float, number: int = number) -> None:
            if progress is not None:
                progress((number + fraction) / len(paths))

        try:
            chapter, look = _read_chapter(camera, path, report)
        except av.FFmpegError as error:
            raise _unreadable(camera, path, error) from error
        chapters.append(chapter)
        looks.append(look)
        if look[:2] != looks[0][:2]:
            raise VideoError(
                f"{camera}: {path} is {look.size_px[0]}x{look.size_px[1]}, turned by {look.rotation}°, but its first "
                f"chapter {looks[0].size_px[0]}x{looks[0].size_px[1]}, turned by {looks[0].rotation}°. "
                "Give each to a camera of its own, or re-encode it."
            )
    time_s = _joined_times(chapters)
    try:
        time_s, repaired = increasing_times(time_s)
    except ValueError as error:
        raise VideoError(
            f"{camera}: the time stamps of {paths[0]} are not usable: {error}. Remux it, or re-encode it."
        ) from error
    if repaired:
        log.warning("%s: %d of %d frame times did not increase and were interpolated", camera, repaired, len(time_s))
    has_audio = all(look.has_audio for look in looks)
    return Video(camera, tuple(paths), looks[0].size_px, looks[0].rotation, time_s, has_audio, tuple(chapters))


def _joined_times(chapters: Sequence[_Chapter]) -> np.ndarray:
    """(T,) seconds since the first frame of the first chapter.

    A chapter follows its predecessor by the median frame interval, unless its container goes on counting where that of
    the predecessor left off.
    """
    joined = chapters[0].time_s
    for previous, chapter in pairwise(chapters):
        interval = float(np.median(np.diff(previous.time_s))) if len(previous.pts) > 1 else 0.0
        gap = chapter.start_s - (previous.start_s + float(previous.time_s[-1]))
        if not interval / 2 < gap < _CONTINUES_WITHIN_S:
            gap = interval
        joined = np.concatenate([joined, joined[-1] + gap + chapter.time_s])
    return joined


@contextmanager
def _opened(camera: str, path: Path) -> Iterator[tuple[InputContainer, Any]]:
    """Open the file and its video stream for reading by several threads."""
    import av

    try:
        if path.stat().st_size == 0:
            raise VideoError(f"{camera}: {path} is empty. Copy it anew from the camera.")
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise _unreadable(camera, path, error) from error
    with container:
        stream: Any = container.streams.best("video")
        if stream is None:
            raise VideoError(f"{camera}: {path} has no video track.")
        stream.thread_type = "AUTO"
        yield container, stream


def _unreadable(camera: str, path: Path, error: Exception) -> VideoError:
    reason = getattr(error, "strerror", None) or error
    return VideoError(
        f"{camera}: {path} cannot be read as a video ({reason}). It is damaged, was cut off while it was recorded or "
        "copied, or is no video; copy it anew from the camera."
    )


def _truncated(camera: str, path: Path) -> VideoError:
    return VideoError(
        f"{camera}: {path} is truncated: it ends before what its header promises. Copy it anew from the camera."
    )


def _check_count(camera: str, path: Path, stream: Any, packets: _Packets) -> None:
    """Compare the frames of an MP4 with what its own tables say, and say which are missing, and when.

    The tables count frames and give the track's duration. An edit list may leave frames out at either end, as phones'
    trimming does: these are said. Where it leaves out frames and there is a hole in the middle, they are from there and
    their times are damaged: presentation times are decoding times in another order, no two farther apart than these.

    Raises:
        VideoError: Frames are missing that no edit list leaves out, more than 1 % and more than one.
    """
    tick_s = float(stream.time_base)
    pts = np.sort(np.array([t for t in packets.pts if t is not None], dtype=np.int64))
    if not len(pts):
        return
    first, last = int(pts[0]), int(pts[-1])
    left_out = np.sort(np.array(packets.left_out, dtype=np.int64))
    before, after = left_out[left_out < first], left_out[left_out > last]
    end_s = (packets.end - first) * tick_s

    def missing(count: int, since_s: float, until_s: float) -> VideoError:
        total = len(pts) + count
        return VideoError(
            f"{camera}: {path} is damaged: {count} of its {total} frames are missing, between {since_s:.3f} and "
            f"{until_s:.3f} s. Copy it anew from the camera."
        )

    if stream.frames > packets.n_packets:
        told_s = float(stream.duration or 0) * tick_s
        raise missing(stream.frames - packets.n_packets, end_s, max(told_s, end_s))
    gap = np.diff(pts)
    usual = float(np.median(gap)) if len(gap) else 0.0
    if stream.duration and usual > 0:
        tail = int((stream.duration - (packets.end - first)) / usual + 0.25)
        if tail > max(1, len(pts) // 100):
            raise missing(tail, end_s, float(stream.duration) * tick_s)
    if len(left_out) and len(packets.dts) > 2 and usual > 0:
        holes = np.flatnonzero(gap > 1.5 * max(np.diff(packets.dts).max(), usual))
        lost = min(len(left_out), int(np.round(gap[holes] / usual - 1).sum()))
        if lost:
            since_s, until_s = (pts[holes[0]] - first) * tick_s, (pts[holes[-1] + 1] - first) * tick_s
            if lost > max(1, len(pts) // 100):
                raise missing(lost, since_s, until_s)
            log.warning(
                "%s: %s is damaged: %d of its frames is missing, between %.3f and %.3f s",
                camera,
                path.name,
                lost,
                since_s,
                until_s,
            )
    if len(left_out):
        parts = [
            f"{len(some)} {where}"
            for some, where in (
                (before, "before its beginning"),
                (after, f"after {end_s:.3f} s"),
                (left_out[(left_out >= first) & (left_out <= last)], "in between"),
            )
            if len(some)
        ]
        log.warning(
            "%s: %s holds %d frames and shows %d: its edit list leaves out %s, as trimming does",
            camera,
            path.name,
            len(pts) + len(left_out),
            len(pts),
            " and ".join(parts),
        )


def _read_chapter(camera: str, path: Path, report: Callable[[float], None]) -> tuple[_Chapter, _Look]:
    import av

    with _opened(camera, path) as (container, stream):
        packets = _read_packets(camera, path, container, stream, report)
        if "mp4" in container.format.name.split(","):
            _check_count(camera, path, stream, packets)
    with _opened(camera, path) as (container, stream):
        frame = next(container.decode(stream), None)
        if frame is None:
            raise VideoError(f"{camera}: {path} has no frame that can be decoded. Copy it anew from the camera.")
        look = _look(camera, path, frame, has_audio=bool(container.streams.audio))
        tick_s = Fraction(stream.time_base)
        has_pts = container.format.name != "avi"
        is_countable = stream.codec_context.name in _ONE_PACKET_ONE_FRAME
    known = np.sort(np.array([pts for pts in packets.pts if pts is not None], dtype=np.int64))
    if not has_pts:
        return _Chapter(path, tick_s, known, ordered=False), look
    if not is_countable or len(known) < len(packets.pts) or frame.pts is None:
        return _Chapter(path, tick_s, _decoded_pts(camera, path, report), ordered=True), look
    # A decoder that starts in mid-stream puts out nothing before the first key frame.
    chapter = _Chapter(path, tick_s, known[known >= frame.pts], ordered=True)
    if len(chapter.pts) < len(known):
        log.warning(
            "%s: the first %d frames of %s, %.3f s, cannot be decoded without what came before; it begins after them",
            camera,
            len(known) - len(chapter.pts),
            path.name,
            float((frame.pts - known[0]) * tick_s),
        )
    try:
        end = next(_decode_from(camera, chapter, len(chapter.pts) - 1), None)
    except av.FFmpegError as error:
        raise _truncated(camera, path) from error
    if end is None or end.pts != chapter.pts[-1]:
        raise _truncated(camera, path)
    return chapter, look


class _Packets(NamedTuple):
    """What the packets of a video track say, times in ticks.

    Attributes:
        pts: Presentation time of each displayed frame, in the order of the file; None where it has none.
        left_out: Presentation time of each frame that an edit list leaves out.
        dts: Decoding times, those left out included.
        end: When the last displayed frame ends.
        n_packets: How many packets there are, empty ones included.
    """

    pts: list[int | None]
    left_out: list[int]
    dts: list[int]
    end: int
    n_packets: int


def _read_packets(
    camera: str, path: Path, container: InputContainer, stream: Any, report: Callable[[float], None]
) -> _Packets:
    """Read all packets of the video track.

    Raises:
        VideoError: The file ends before what its header promises, or its time stamps jump back.
    """
    size_bytes = path.stat().st_size
    pts: list[int | None] = []
    left_out: list[int] = []
    dts: list[int] = []
    end = n_packets = 0
    is_cut = lasts = False
    end_s = 0.0
    last_dts: int | None = None
    for packet in container.demux():
        if packet.pts is not None and packet.time_base is not None:
            end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index != stream.index or (packet.size == 0 and packet.dts is None):
            continue
        n_packets += 1
        is_cut |= packet.is_corrupt
        lasts |= bool(packet.duration)
        if packet.dts is not None:
            if last_dts is not None and packet.dts < last_dts:
                raise VideoError(
                    f"{camera}: the time stamps of {path} jump back at frame {len(pts)}, as in a spliced file. "
                    "Split it there into two chapters, or re-encode it."
                )
            last_dts = packet.dts
            dts.append(packet.dts)
        # An edit list has the decoder drop these; a packet of no size stands for a frame that the recorder left out.
        if packet.size and packet.is_discard and packet.pts is not None:
            left_out.append(packet.pts)
        if packet.size and not packet.is_discard:
            pts.append(packet.pts)
            end = max(end, (packet.pts or 0) + (packet.duration or 0))
            if packet.pos is not None and len(pts) % 100 == 0:
                report(max(packet.pos, 0) / size_bytes)
    # MP4 lists its packets in advance, AVI counts them, and Matroska tells its length.
    is_cut |= len(stream.index_entries or ()) > n_packets
    is_cut |= container.format.name == "avi" and stream.frames > n_packets
    if container.format.name.startswith("matroska") and container.duration is not None and pts:
        # Within less than one frame, which the end lacks if packets do not say how long they last.
        slack = 0.75 if lasts else 1.75
        is_cut |= container.duration / 1e6 > end_s + slack * end_s / len(pts)
    if is_cut:
        raise _truncated(camera, path)
    return _Packets(pts, left_out, dts, end, n_packets)


def _decoded_pts(camera: str, path: Path, report: Callable[[float], None]) -> np.ndarray:
    """(n,) time stamp of each frame by decoding all of them."""
    pts: list[int] = []
    with _opened(camera, path) as (container, stream):
        duration_s = (container.duration or 0) / 1e6
        for frame in container.decode(stream):
            if frame.pts is None:
                raise VideoError(
                    f"{camera}: {path} does not say when its frames were taken. "
                    "Remux it into MP4 with the camera's frame rate."
                )
            if pts and frame.pts < pts[-1]:
                raise VideoError(f"{camera}: the time stamps of {path} run back at frame {len(pts)}. Re-encode it.")
            pts.append(frame.pts)
            if duration_s:
                report(min(max(frame.time / duration_s, 0.0), 1.0))
    return np.array(pts, dtype=np.int64)


def _decode_from(camera: str, chapter: _Chapter, low: int) -> Iterator[VideoFrame]:
    """Yield the decoded frames from frame ``low`` of the chapter on."""
    if low and chapter.ordered:
        with _opened(camera, chapter.path) as (container, stream):
            frames = _seek(container, stream, chapter, low)
            if frames is not None:
                yield from frames
                return
    # Some containers' indices lead past the frame: slow, but right.
    with _opened(camera, chapter.path) as (container, stream):
        yield from islice(container.decode(stream), low, None)


def _seek(container: InputContainer, stream: Any, chapter: _Chapter, low: int) -> Iterator[VideoFrame] | None:
    """Return the frames from ``low`` on, or None if seeking does not lead there."""
    import av

    target = int(chapter.pts[low])
    try:
        container.seek(target, stream=stream)
        late = dropwhile(lambda frame: frame.pts is None or frame.pts < target, container.decode(stream))
        sought = next(late, None)
    except av.FFmpegError:
        return None
    if sought is None or sought.pts != target:
        return None
    # Frames that share a time stamp are told apart by their number.
    twins = low - int(np.searchsorted(chapter.pts, target))
    return islice(chain([sought], late), twins, None)


def _sound_stretches(camera: str, path: Path, rate_hz: int) -> list[tuple[float, np.ndarray]]:
    """Return a file's uninterrupted stretches of sound: container time of the first sample, and samples (n,)."""
    stretches: list[_Stretch] = []
    with _opened(camera, path) as (container, _):
        stream = container.streams.best("audio")
        for frame in () if stream is None else _decodable_sound(container, stream):
            if not stretches or not stretches[-1].continues_with(frame):
                if stretches:
                    stretches[-1].finish()
                stretches.append(_Stretch(frame, rate_hz))
            stretches[-1].add(frame)
        if stretches:
            stretches[-1].finish()
    return [(s.start_s, s.samples) for s in stretches if len(s.samples)]


def _decodable_sound(container: InputContainer, stream: Any) -> Iterator[AudioFrame]:
    import av

    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.FFmpegError:
            continue  # leaves a gap, which the next time stamp shows


class _Stretch:
    """Sound that is being decoded, of one format and without a gap."""

    def __init__(self, frame: AudioFrame, rate_hz: int) -> None:
        from av import AudioResampler

        self._form = _form(frame)
        self._heard = 0
        self._starts_s: list[float] = []
        self._chunks: list[np.ndarray] = []
        self._channels = frame.layout.nb_channels
        # Packed: PyAV reads past the planes of a frame with eight and more.
        self._resampler = AudioResampler(format="flt", layout=frame.layout.name, rate=rate_hz)

    def continues_with(self, frame: AudioFrame) -> bool:
        there_s = self._starts_s[0] + self._heard / frame.sample_rate
        return _form(frame) == self._form and (frame.time is None or abs(frame.time - there_s) < _SOUND_GAP_S)

    def add(self, frame: AudioFrame | None) -> None:
        if frame is not None:
            if frame.time is not None:
                self._starts_s.append(frame.time - self._heard / frame.sample_rate)
            elif not self._starts_s:
                self._starts_s.append(0.0)
            self._heard += frame.samples
        self._chunks += [chunk.to_ndarray() for chunk in self._resampler.resample(frame)]

    def finish(self) -> None:
        """Fetch what the resampler still holds."""
        self.add(None)

    @property
    def start_s(self) -> float:
        """Container time of the first sample; the median over all time stamps, which may be rounded."""
        return float(np.median(self._starts_s))

    @property
    def samples(self) -> np.ndarray:
        """(n,) the mean of all channels, or the loudest where they cancel, as one that is wired the other way round."""
        if not self._chunks:
            return np.zeros(0, np.float32)
        channels = np.concatenate(self._chunks, axis=1).reshape(-1, self._channels).T
        mean = channels.mean(axis=0, dtype=np.float32)
        power = np.square(channels).mean(axis=1)
        return channels[np.argmax(power)] if np.square(mean).mean() < _CANCELLED * power.max() else mean


def _form(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _date(text: str | None) -> datetime | None:
    try:
        date = datetime.fromisoformat((text or "").replace("Z", "+00:00"))
    except ValueError:
        return None
    return None if date.year < _FIRST_YEAR else date if date.tzinfo else date.replace(tzinfo=timezone.utc)


def _look(camera: str, path: Path, frame: VideoFrame, has_audio: bool) -> _Look:
    rotation = _rotation(camera, path, frame)
    width, height = (frame.width, frame.height) if rotation % 180 == 0 else (frame.height, frame.width)
    return _Look((width, height), rotation, has_audio)


def _rotation(camera: str, path: Path, frame: VideoFrame) -> int:
    """Return 0, 90, 180 or 270 degrees counter-clockwise, from the display matrix."""
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    if side_data is not None:
        matrix = np.frombuffer(bytes(side_data), dtype=np.int32)[:9].reshape(3, 3)[:2, :2].astype(float)
        if np.linalg.det(matrix) < 0:
            raise VideoError(f"{camera}: {path} is flagged to be shown mirrored. Re-encode it without the flag.")
    quarters = round(frame.rotation / 90)
    if abs(frame.rotation - 90 * quarters) > 1:
        raise VideoError(f"{camera}: {path} is flagged to be turned by {frame.rotation}°. Re-encode it upright.")
    return quarters * 90 % 360


def _displayed(frame: VideoFrame, rotation: int) -> np.ndarray:
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, rotation // 90)) if rotation else image


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames of one size at a constant rate; see :func:`write_video_times`."""
    write_video_times(path, frames, (number / fps for number in count()))


def write_video_times(path: Path, frames: Iterable[np.ndarray], time_s: Iterable[float]) -> None:
    """Write H.264 (yuv420p) with these presentation times, to the nearest 1/90000 s in MP4.

    Args:
        path: Where to write; its suffix names the container. There is nothing under this name before all is written.
        frames: (H, W, 3) uint8 RGB each, all of one size; an odd side is lengthened by repeating its last line.
        time_s: Presentation time of each frame, seconds, increasing; may go on after the last frame.

    Raises:
        WorkspaceError: The file cannot be written.
        ValueError: No frames, frames of several sizes, or times that do not increase by a tick.
    """
    with atomic_path(path) as temporary:
        _encode(temporary, frames, time_s)


def _encode(path: Path, frames: Iterable[np.ndarray], time_s: Iterable[float]) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream: Any = None
        shape: tuple[int, ...] = ()
        last = -1
        for image, t in zip(frames, time_s, strict=False):
            if stream is None:
                shape = image.shape
                stream = container.add_stream("libx264", rate=30)
                stream.height, stream.width = (side + side % 2 for side in shape[:2])
                stream.pix_fmt = "yuv420p"
                stream.time_base = stream.codec_context.time_base = _WRITE_TICK_S
                stream.codec_context.options = {"crf": "20", "preset": "veryfast"}
            if image.shape != shape:
                raise ValueError(f"frames of {shape} and {image.shape} in one video")
            even = np.pad(image, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            frame.pts, frame.time_base = round(t / _WRITE_TICK_S), _WRITE_TICK_S
            if frame.pts <= last:
                raise ValueError(f"frame times must increase, and {t} s does not")
            last = frame.pts
            container.mux(stream.encode(frame))
        if stream is None:
            raise ValueError("a video needs at least one frame")
        container.mux(stream.encode())
