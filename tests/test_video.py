import struct
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mvpose.errors import VideoError, WorkspaceError
from mvpose.frametimes import increasing_times
from mvpose.video import probe, write_video, write_video_times

POSE2SIM = Path(__file__).parents[2] / "shared/data/pose2sim"

# QuickTime's matrix [a b u; c d v; x y w], x' = a x + c y and y' = b x + d y with y down: what phones write into tkhd.
TURN_RIGHT = (0, 1, -1, 0)
UPSIDE_DOWN = (-1, 0, 0, -1)
TURN_LEFT = (0, -1, 1, 0)
MIRRORED = (-1, 0, 0, 1)


def numbered_frames(n, size_px=(64, 48)):
    """Frames whose grey tells their number, with a red top left quarter."""
    for number in range(n):
        image = np.full((size_px[1], size_px[0], 3), 40 + 4 * number, np.uint8)
        image[: size_px[1] // 2, : size_px[0] // 2] = (255, 0, 0)
        yield image


def number_of(image):
    """Read a frame's number from its bottom right quarter, which rotations of tests here do not move there."""
    return round((float(image[-8:, -8:].mean()) - 40) / 4)


def write_numbered(path, n=30, time_s=None):
    write_video_times(path, numbered_frames(n), np.arange(n) / 30 if time_s is None else time_s)
    return path


def set_display_matrix(path, matrix):
    """Set a, b, c, d of the track header, as a phone does that was held upright."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = matrix
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def remux(source, target, options=None, leave_out=()):
    """Copy the packets into another container or layout, some left out."""
    with av.open(str(source)) as reader, av.open(str(target), "w", options=options or {}) as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for number, packet in enumerate(reader.demux(video=0)):
            if packet.dts is not None and number not in leave_out:
                packet.stream = stream
                writer.mux(packet)
    return target


def write_avi(path, n=30):
    """AVI knows no presentation times, and its decoders muddle those of B-frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "3"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in numbered_frames(n):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_container(path):
    if path.suffix == ".avi":
        return write_avi(path)
    source = write_numbered(path.with_name("source.mp4"))
    return remux(source, path, {"movflags": "faststart"} if path.stem == "index_first" else None)


def test_written_times_are_the_times_read(tmp_path):
    times = np.array([0.0, 0.0333, 0.0667, 0.2, 0.25, 1.0, 1.0001, 3.5])
    video = probe("cam01", [write_numbered(tmp_path / "a.mp4", len(times), times)])
    assert np.abs(video.time_s - times).max() <= 0.5 / 90000 + 1e-12
    assert video.size_px == (64, 48)
    assert video.rotation == 0
    assert not video.has_audio
    assert [number_of(image) for image in video.frames()] == list(range(len(times)))


def test_first_time_is_subtracted(tmp_path):
    video = probe("cam01", [write_numbered(tmp_path / "a.mp4", 5, 7.25 + np.arange(5) / 25)])
    np.testing.assert_allclose(video.time_s, np.arange(5) / 25, atol=1e-5)


def test_constant_rate_is_exact(tmp_path):
    write_video(tmp_path / "a.mp4", numbered_frames(40), 30000 / 1001)
    video = probe("cam01", [tmp_path / "a.mp4"])
    np.testing.assert_allclose(video.time_s, np.arange(40) * 1001 / 30000, atol=1e-9)
    assert video.frame_rate == pytest.approx(29.97003, abs=1e-4)


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mov", "a.avi"])
def test_other_containers(tmp_path, name):
    video = probe("cam01", [write_container(tmp_path / name)])
    # Matroska counts milliseconds.
    np.testing.assert_allclose(video.time_s, np.arange(30) / 30, atol=0.0006)
    assert [number_of(image) for image in video.frames()] == list(range(30))
    assert [number_of(video.frame(index)) for index in (0, 7, 29)] == [0, 7, 29]


def test_frames_of_a_range_and_single_ones_agree(tmp_path):
    video = probe("cam01", [write_numbered(tmp_path / "a.mp4")])
    assert [number_of(image) for image in video.frames(10, 14)] == [10, 11, 12, 13]
    assert list(video.frames(4, 4)) == []
    np.testing.assert_array_equal(video.frame(12), list(video.frames())[12])
    with pytest.raises(IndexError):
        video.frame(30)
    with pytest.raises(IndexError):
        list(video.frames(5, 31))


@pytest.mark.parametrize(
    ("matrix", "rotation", "red_corner"),
    [
        (TURN_RIGHT, 270, (0, -1)),
        (UPSIDE_DOWN, 180, (-1, -1)),
        (TURN_LEFT, 90, (-1, 0)),
    ],
)
def test_rotation_flag_is_honoured(tmp_path, matrix, rotation, red_corner):
    path = write_numbered(tmp_path / "a.mp4", 3)
    set_display_matrix(path, matrix)
    video = probe("phone", [path])
    assert video.rotation == rotation
    assert video.size_px == ((64, 48) if rotation == 180 else (48, 64))
    image = video.frame(1)
    assert image.shape == (video.size_px[1], video.size_px[0], 3)
    corners = {(y, x): image[y, x] for y in (0, -1) for x in (0, -1)}
    red = max(corners, key=lambda corner: int(corners[corner][0]) - int(corners[corner][2]))
    assert red == red_corner


def test_mirrored_video_is_refused(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 3)
    set_display_matrix(path, MIRRORED)
    with pytest.raises(VideoError, match=r"selfie.*mirrored"):
        probe("selfie", [path])


def test_edit_list_hides_frames_at_both_ends(tmp_path):
    path = write_numbered(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    start = struct.unpack(">i", data[at + 4 : at + 8])[0]
    # Shown: 20 frames in milliseconds, from the sixth on in ticks.
    data[at : at + 8] = struct.pack(">ii", 20 * 1000 // 30, start + 5 * 3000)
    path.write_bytes(data)
    video = probe("trimmed", [path])
    assert [number_of(image) for image in video.frames()] == list(range(5, 25))
    np.testing.assert_allclose(video.time_s, np.arange(20) / 30, atol=1e-5)
    assert number_of(video.frame(3)) == 8


def test_chapters_follow_each_other_by_one_interval(tmp_path):
    first = write_numbered(tmp_path / "GH010001.MP4", 10)
    second = write_numbered(tmp_path / "GH020001.MP4", 6)
    video = probe("GH010001", [first, second])
    np.testing.assert_allclose(video.time_s, np.arange(16) / 30, atol=1e-5)
    assert [number_of(image) for image in video.frames()] == [*range(10), *range(6)]
    assert [number_of(image) for image in video.frames(8, 12)] == [8, 9, 0, 1]
    assert number_of(video.frame(13)) == 3


def test_chapters_that_go_on_counting_keep_their_gap(tmp_path):
    first = write_numbered(tmp_path / "a.mp4", 10)
    second = write_numbered(tmp_path / "b.mp4", 5, 0.5 + np.arange(5) / 30)
    times = probe("camcorder", [first, second]).time_s
    assert times[10] == pytest.approx(0.5, abs=1e-5)


def test_chapters_of_different_size_are_refused(tmp_path):
    first = write_numbered(tmp_path / "a.mp4", 3)
    write_video(tmp_path / "b.mp4", numbered_frames(3, (32, 32)), 30)
    with pytest.raises(VideoError, match=r"cam01.*32x32"):
        probe("cam01", [first, tmp_path / "b.mp4"])


CLICKS_S = np.array([0.1, 0.35, 0.8, 1.25, 1.7])


def clicks(time_s, at_s=CLICKS_S):
    """A sound that is loud for a millisecond or so at each of the given times, and that any encoder keeps."""
    rise = (time_s[:, None] - at_s) / 1e-3
    return (0.8 * np.exp(-0.5 * rise**2) * np.cos(2 * np.pi * 0.5 * rise)).sum(1).astype(np.float32)


def write_heard(
    path,
    codec="pcm_s16le",
    *,
    seconds=2.0,
    rate=48000,
    channels=1,
    picture_s=0.0,
    sound_s=0.0,
    leave_out=(),
    tags=None,
    polarity=(1, 1),
):
    """Write pictures and clicks, the clicks on the container's own time, each track from its own start."""
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels]
    with av.open(str(path), "w") as container:
        container.metadata.update(tags or {})
        video = container.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, 90000)
        video.metadata.update(tags or {})
        audio = container.add_stream(codec, rate=rate, layout=layout)
        for number, image in enumerate(numbered_frames(30)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round((picture_s + number / 30) * 90000), video.time_base
            container.mux(video.encode(frame))
        container.mux(video.encode())
        form = audio.codec_context.format.name
        for number, first in enumerate(range(0, int(seconds * rate), 1024)):
            time_s = sound_s + np.arange(first, first + 1024) / rate
            wave = np.resize(np.float32(polarity[:channels]), channels)[:, None] * clicks(time_s)
            if form == "s16":
                wave = (wave.T.reshape(1, -1) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave), format=form, layout=layout)
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = round(time_s[0] * rate)
            if number not in leave_out:
                container.mux(audio.encode(frame))
        container.mux(audio.encode())
    return path


def heard_s(sound, near_s):
    """Return when a sound has its peaks next to the given times, between samples."""
    found = []
    for near in near_s:
        middle = round((near - sound.start_s) * sound.rate_hz)
        rows = slice(max(middle - 80, 0), middle + 80)
        loud = np.square(np.nan_to_num(sound.samples[rows].astype(float)))
        found.append(sound.start_s + (rows.start + np.average(np.arange(len(loud)), weights=loud**2)) / sound.rate_hz)
    return np.array(found)


def test_silent_film_has_no_sound(tmp_path):
    video = probe("cam01", [write_numbered(tmp_path / "a.mp4")])
    assert not video.has_audio
    assert video.audio() is None


@pytest.mark.parametrize(
    ("name", "codec", "rate", "channels"),
    [
        ("a.mov", "pcm_s16le", 48000, 1),
        ("a.mov", "pcm_s16le", 8000, 1),
        ("a.mp4", "aac", 48000, 2),
        ("a.mkv", "aac", 44100, 1),
        ("a.mov", "pcm_s16le", 48000, 6),
        ("a.mov", "pcm_s16le", 48000, 8),
        ("a.ts", "aac", 48000, 1),
    ],
)
def test_sound_lies_on_the_time_of_the_pictures(tmp_path, name, codec, rate, channels):
    # Pictures start 0.25 s after the sound, and it is they that time counts from.
    path = write_heard(tmp_path / name, codec, rate=rate, channels=channels, picture_s=0.25)
    video = probe("cam01", [path])
    assert video.has_audio
    assert video.n_frames == 30
    sound = video.audio(8000)
    assert sound.rate_hz == 8000
    assert sound.samples.dtype == np.float32
    assert sound.samples.ndim == 1
    assert sound.start_s == pytest.approx(-0.25, abs=0.03)  # an encoder may start with a frame of silence
    # MPEG-TS and Matroska round the time stamps of pictures and sound, which a median evens out for the sound alone.
    np.testing.assert_allclose(heard_s(sound, CLICKS_S - 0.25), CLICKS_S - 0.25, atol=0.0007)
    assert 0.6 < np.nanmax(np.abs(sound.samples)) < 1.2  # the mean of equal channels is either


@pytest.mark.parametrize("polarity", [(1, -1), (0.5, -0.6), (0, 1)], ids=["opposed", "nearly", "one"])
def test_channels_that_cancel_are_heard(tmp_path, polarity):
    path = write_heard(tmp_path / "a.mov", channels=2, polarity=polarity)
    sound = probe("cam01", [path]).audio()
    assert np.nanmax(np.abs(sound.samples)) > 0.3
    np.testing.assert_allclose(heard_s(sound, CLICKS_S[1:]), CLICKS_S[1:], atol=2e-4)


def test_sound_that_starts_late_is_late(tmp_path):
    sound = probe("cam01", [write_heard(tmp_path / "a.mov", sound_s=0.2)]).audio()
    assert sound.start_s == pytest.approx(0.2, abs=1e-4)
    np.testing.assert_allclose(heard_s(sound, CLICKS_S[1:]), CLICKS_S[1:], atol=2e-4)


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "pcm_s16le"), ("a.mkv", "aac")])
def test_a_gap_in_the_sound_shifts_nothing(tmp_path, name, codec):
    whole = probe("cam01", [write_heard(tmp_path / name, codec)]).audio()
    path = write_heard(tmp_path / f"gap_{name}", codec, leave_out=range(22, 30))  # 0.47 s to 0.64 s
    sound = probe("cam01", [path]).audio()
    np.testing.assert_allclose(heard_s(sound, CLICKS_S), CLICKS_S, atol=0.0007)
    assert np.isfinite(whole.samples).all()
    missing = np.flatnonzero(np.isnan(sound.samples)) / 8000
    assert len(missing) / 8000 == pytest.approx(8 * 1024 / 48000, abs=0.03)
    assert missing.min() > 0.44
    assert missing.max() < 0.67


def test_damaged_sound_is_a_gap(tmp_path):
    path = write_heard(tmp_path / "a.mp4", "aac")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size][22:30]
        damaged = [(packet.pos, packet.size) for packet in packets]
    data = bytearray(path.read_bytes())
    for position, size in damaged:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    sound = probe("cam01", [path]).audio()
    np.testing.assert_allclose(heard_s(sound, CLICKS_S), CLICKS_S, atol=0.0007)
    assert 0.05 < np.isnan(sound.samples).mean() < 0.15


def test_sound_of_chapters_is_joined_as_the_pictures_are(tmp_path):
    paths = [write_heard(tmp_path / name, seconds=1.0) for name in ("GH010001.mov", "GH020001.mov")]
    sound = probe("GH010001", paths).audio()
    times = np.concatenate([CLICKS_S[:3], 1.0 + CLICKS_S[:3]])
    np.testing.assert_allclose(heard_s(sound, times), times, atol=2e-4)


def test_a_container_s_timecode_and_date_are_read(tmp_path):
    tags = {"timecode": "10:20:30:05", "creation_time": "2024-05-06T07:08:09.000000Z"}
    told = probe("cam01", [write_heard(tmp_path / "a.mov", tags=tags)]).container_time()
    assert told.timecode == "10:20:30:05"
    assert told.created == datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
    assert told.fps == pytest.approx(30.0)
    assert told.start_s == 0.0


@pytest.mark.parametrize("date", ["1970-01-01T00:00:00Z", "yesterday"])
def test_no_date_is_none(tmp_path, date):
    told = probe("cam01", [write_heard(tmp_path / "a.mkv", tags={"creation_time": date})]).container_time()
    assert told.created is None
    assert told.timecode is None


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100], ids=["empty", "junk"])
def test_what_is_no_video_is_refused(tmp_path, content):
    path = tmp_path / "cam01.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"cam01: .*cam01\.mp4"):
        probe("cam01", [path])


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(VideoError, match="No such file"):
        probe("cam01", [tmp_path / "cam01.mp4"])


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "cam01.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(VideoError, match="no video track"):
        probe("cam01", [path])


@pytest.mark.parametrize("name", ["index_last.mp4", "index_first.mp4", "a.mkv", "a.avi"])
@pytest.mark.parametrize("kept", [0.98, 0.9, 0.6, 0.3])
def test_truncated_video_is_never_shortened(tmp_path, name, kept):
    path = write_container(tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    try:
        numbers = [number_of(image) for image in probe("cam01", [path]).frames()]
    except VideoError as error:
        assert str(error).startswith("cam01: ")
    else:
        # What is cut off may be an index or remarks behind the last frame.
        assert kept > 0.8
        assert numbers == list(range(30))


def test_damage_in_the_middle_names_the_frame(tmp_path):
    path = tmp_path / "a.mp4"
    rng = np.random.default_rng(0)
    write_video(path, (rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(30)), 30)
    whole = probe("cam01", [path])
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.pts is not None][9]
        low, high = packet.pos, packet.pos + packet.size
    data = bytearray(path.read_bytes())
    # A unit length that leads far out of the packet.
    data[low : low + 4] = b"\x7f\xff\xff\xff"
    data[low + 4 : high] = bytes(high - low - 4)
    path.write_bytes(data)
    frames = []
    with pytest.raises(VideoError, match=r"breaks at frame \d+ of 30"):
        frames.extend(whole.frames())
    assert len(frames) < 30


@pytest.mark.parametrize("name", ["index_first.mp4", "a.avi"])
def test_a_file_cut_between_two_packets_is_refused(tmp_path, name):
    path = write_container(tmp_path / name)
    with av.open(str(path)) as container:
        position = sorted(packet.pos for packet in container.demux(video=0) if packet.pos is not None and packet.size)[
            20
        ]
    header = 8 if name == "a.avi" else 0
    path.write_bytes(path.read_bytes()[: position - header])
    with pytest.raises(VideoError, match="truncated"):
        probe("cam01", [path])


def test_a_frame_that_does_not_come_out_is_named(tmp_path):
    source = write_numbered(tmp_path / "source.mp4")
    path = remux(source, tmp_path / "a.mkv")
    video = probe("cam01", [path])
    with av.open(str(path)) as container:
        pts = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    lost = sorted(pts).index(pts[12])
    remux(source, path, leave_out={12})
    frames = []
    with pytest.raises(VideoError, match=f"breaks at frame {lost} of 30"):
        frames.extend(video.frames())
    assert len(frames) == lost


def test_a_file_that_was_shortened_after_probing_is_noticed(tmp_path):
    path = write_numbered(tmp_path / "a.mp4")
    video = probe("cam01", [path])
    write_numbered(path, 20)
    with pytest.raises(VideoError, match=r"breaks at frame 20 of 30 \(0\.667 s\): the file ends there"):
        list(video.frames())


def test_no_partial_file_is_left(tmp_path):
    def frames():
        yield from numbered_frames(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", frames(), 30)
    assert list(tmp_path.iterdir()) == []


def test_writing_refuses_what_is_no_video(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "a.mp4", [], 30)
    with pytest.raises(ValueError, match="must increase"):
        write_video_times(tmp_path / "a.mp4", numbered_frames(2), [1.0, 1.0])
    with pytest.raises(ValueError, match="in one video"):
        write_video(tmp_path / "a.mp4", [*numbered_frames(1), *numbered_frames(1, (32, 32))], 30)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError):
        write_video(tmp_path / "file" / "a.mp4", numbered_frames(2), 30)


def test_odd_sides_are_padded(tmp_path):
    write_video(tmp_path / "a.mp4", numbered_frames(2, (33, 21)), 30)
    assert probe("cam01", [tmp_path / "a.mp4"]).size_px == (34, 22)


def test_increasing_times_keeps_good_ones():
    times = np.arange(100) / 30
    assert increasing_times(times)[1] == 0
    leap = times.copy()
    leap[40] = 99.0
    repaired, wrong = increasing_times(leap)
    assert wrong == 1
    np.testing.assert_allclose(repaired, times, atol=1e-12)


@pytest.mark.parametrize(("index", "value"), [(0, np.nan), (99, 0.0), (50, np.inf), (50, 0.2)])
def test_increasing_times_repairs_anywhere(index, value):
    times = np.arange(100) / 30
    broken = times.copy()
    broken[index] = value
    repaired, wrong = increasing_times(broken)
    assert wrong == 1
    np.testing.assert_allclose(repaired, times, atol=1e-12)


def test_one_of_two_equal_times_moves_half_an_interval():
    times = np.arange(100) / 30
    times[50] = times[49]
    repaired, wrong = increasing_times(times)
    assert wrong == 1
    assert (np.diff(repaired) > 0).all()
    assert np.abs(repaired - times).max() <= 1.01 / 60


def test_increasing_times_refuses_hopeless_ones():
    with pytest.raises(ValueError, match="do not increase"):
        increasing_times(np.r_[np.arange(50), np.arange(50)] / 30)
    with pytest.raises(ValueError, match="do not increase"):
        increasing_times(np.zeros(3))


@pytest.mark.skipif(not POSE2SIM.is_dir(), reason="the pose2sim recordings are not beside the repository")
def test_real_recording_agrees_with_its_frames():
    video = probe("cam02", [POSE2SIM / "Demo_SinglePerson/videos/cam02.mp4"])
    assert video.n_frames == 100
    np.testing.assert_allclose(np.diff(video.time_s), 1 / 60, atol=1e-9)
    assert sum(1 for _ in video.frames(80)) == 20


@pytest.fixture(scope="module")
def flippable(tmp_path_factory):
    """An MP4 with B-frames, and where its tables begin."""
    path = tmp_path_factory.mktemp("flips") / "cam01.mp4"
    rng = np.random.default_rng(0)
    images = (
        np.kron(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8)) for _ in range(60)
    )
    write_video(path, images, 30.0)
    data = path.read_bytes()
    return data, data.rindex(b"moov")


def test_no_flipped_bit_of_its_tables_shortens_a_video_without_a_word(flippable, tmp_path, caplog):
    """44 of 900 did; one gave 1 frame of 60."""
    data, tables = flippable
    path = tmp_path / "cam01.mp4"
    rng = np.random.default_rng(1)
    said = 0
    for bit in rng.choice((len(data) - tables) * 8, 300, replace=False):
        flipped = bytearray(data)
        flipped[tables + bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        caplog.clear()
        try:
            video = probe("cam01", [path])
        except VideoError as error:
            assert str(path) in str(error)
            continue
        if video.n_frames < 60:
            assert "cam01" in caplog.text
            said += 1
    assert said > 5


def box(data, name):
    """Where a box's content begins."""
    return data.rindex(name) + 4


def test_frames_that_its_tables_count_but_lack_are_told_with_their_times(flippable, tmp_path):
    """Whoever cuts the table of sizes, leaves the durations of 60 frames."""
    data = bytearray(flippable[0])
    at = box(data, b"stsz") + 4 + 8 + 4 * 40  # the 41st frame now ends far beyond the file
    data[at : at + 4] = struct.pack(">I", 1 << 30)
    path = tmp_path / "cam01.mp4"
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"20 of its 60 frames are missing, between 1\.\d+ and 2\.000 s|truncated"):
        probe("cam01", [path])


def test_an_edit_list_that_trims_is_said(flippable, tmp_path, caplog):
    data = bytearray(flippable[0])
    at = box(data, b"elst") + 8
    duration, start = struct.unpack(">II", data[at : at + 8])
    data[at : at + 8] = struct.pack(
        ">II", duration // 2, start + 512 * 10
    )  # 15360 ticks a second: from 1/3 s on, for 1 s
    path = tmp_path / "cam01.mp4"
    path.write_bytes(data)
    video = probe("cam01", [path])
    assert 28 <= video.n_frames <= 31
    assert f"cam01.mp4 holds 60 frames and shows {video.n_frames}: its edit list leaves out" in caplog.text


def test_a_whole_video_is_silent(flippable, tmp_path, caplog):
    path = tmp_path / "cam01.mp4"
    path.write_bytes(flippable[0])
    assert probe("cam01", [path]).n_frames == 60
    assert not caplog.records
