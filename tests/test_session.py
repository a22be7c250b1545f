import os
import re
from dataclasses import replace

import numpy as np
import pytest

from mvpose.errors import SessionError
from mvpose.session import CameraSource, camera_times, open_session, require_two, without
from mvpose.video import Video


@pytest.fixture
def session_of(tmp_path):
    """Make a session of empty files, folders where a name ends in a slash."""

    def make(*names, toml=None):
        root = tmp_path / "walk"
        for name in names:
            path = root / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        root.mkdir(exist_ok=True)
        if toml is not None:
            (root / "session.toml").write_text(toml)
        return root

    return make


TWO = ("videos/cam01.mp4", "videos/cam02.MOV")


def video_of(time_s, camera="cam01"):
    return Video(camera, (), (64, 48), 0, np.asarray(time_s, float), False)


def test_videos_in_their_folder(session_of):
    root = session_of(*TWO, "videos/.hidden.mp4", "videos/notes.txt", "mvpose/cam09.mp4", "cam08.mp4")
    session = open_session(root)
    assert session.name == "walk"
    assert session.names == ("cam01", "cam02")
    assert session["cam02"].videos == (root / "videos/cam02.MOV",)
    assert session.reference is None
    assert session["cam01"] == CameraSource("cam01", (root / "videos/cam01.mp4",))


def test_videos_directly_in_the_session(session_of):
    assert open_session(session_of("b.mkv", "a.webm", "mvpose/overlay.mp4")).names == ("a", "b")


def test_cameras_stand_in_natural_order(session_of):
    assert open_session(session_of("cam10.mp4", "cam2.mp4", "cam1.mp4")).names == ("cam1", "cam2", "cam10")


def test_keypoints_alone_make_a_session(session_of):
    root = session_of("keypoints/a.npz", "keypoints/b.json", "keypoints/c_json/", "keypoints/readme.txt")
    session = open_session(root)
    assert [camera.keypoints for camera in session.cameras] == [
        root / "keypoints/a.npz",
        root / "keypoints/b.json",
        root / "keypoints/c_json",
    ]
    assert session["a"].videos == ()


def test_what_lies_in_keypoints_unread_is_named(session_of, caplog):
    root = session_of(
        *TWO, "keypoints/cam01/cam01_000.json", "keypoints/cam02DLC_resnet50.csv", "keypoints/notes.txt",
        "keypoints/.DS_Store", "keypoints/._cam02.json",
    )  # fmt: skip
    session = open_session(root)
    assert [camera.keypoints for camera in session.cameras] == [None, None]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    for words in (
        "cam01/, ",
        "cam02DLC_resnet50.csv",
        "notes.txt",
        "<camera>_json/",
        "rename cam01/ to cam01_json/",
        ".h5",
    ):
        assert words in record.getMessage()
    assert "DS_Store" not in record.getMessage()


def test_suffixes_may_be_capitals(session_of):
    root = session_of("keypoints/a.NPZ", "keypoints/b.JSON", "keypoints/c.H5")
    assert open_session(root).names == ("a", "b", "c")


def test_two_files_of_keypoints_for_one_camera_are_refused(session_of):
    with pytest.raises(SessionError, match=r"cam01\.h5 and cam01\.json for cam01; remove one"):
        open_session(session_of(*TWO, "keypoints/cam01.json", "keypoints/cam01.h5"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize(
    "name", ["keypoints/cam01.json", "keypoints/cam01.npz", "session.toml", "times.csv", "videos/cam03.mp4"]
)
def test_pipes_are_refused_not_waited_for(session_of, name):
    root = session_of(*TWO, "keypoints/", toml="[cameras.cam01]\ntimestamps = 'times.csv'")
    (root / name).unlink(missing_ok=True)
    os.mkfifo(root / name)
    with pytest.raises(SessionError, match=r"pipe or a device|does not exist"):
        open_session(root)


def test_npz_comes_before_everything(session_of):
    root = session_of(*TWO, "keypoints/cam01.npz", "keypoints/cam01.json", "keypoints/cam01_json/")
    assert open_session(root)["cam01"].keypoints == root / "keypoints/cam01.npz"
    assert open_session(root)["cam02"].keypoints is None


def test_json_and_folder_together_are_refused(session_of):
    with pytest.raises(SessionError, match=r"cam01\.json and cam01_json/"):
        open_session(session_of(*TWO, "keypoints/cam01.json", "keypoints/cam01_json/"))


def test_two_files_for_one_camera_are_refused(session_of):
    with pytest.raises(SessionError, match="'cam01'"):
        open_session(session_of("videos/cam01.mp4", "videos/cam01.mov"))


@pytest.mark.parametrize("names", [(), ("videos/",), ("videos/notes.txt", "keypoints/"), ("videos/mvpose.txt",)])
def test_nothing_to_work_on_says_what_was_looked_for(session_of, names):
    with pytest.raises(SessionError, match=r"no camera.*videos.*keypoints"):
        open_session(session_of(*names))


def test_missing_folder(tmp_path):
    with pytest.raises(SessionError, match="not a folder"):
        open_session(tmp_path / "nowhere")
    (tmp_path / "file.mp4").touch()
    with pytest.raises(SessionError, match="not a folder"):
        open_session(tmp_path / "file.mp4")


def test_gopro_chapters_are_one_camera(session_of):
    root = session_of(
        "videos/GH020034.MP4",
        "videos/GH010034.MP4",
        "videos/GX010034.MP4",
        "videos/GH010035.MP4",
        "videos/GH010034.LRV",
    )
    session = open_session(root)
    assert session.names == ("GH010034", "GH010035", "GX010034")
    assert [path.name for path in session["GH010034"].videos] == ["GH010034.MP4", "GH020034.MP4"]


def test_gopro_chapters_are_ordered_by_number_not_by_case(session_of):
    session = open_session(session_of("gh010034.mp4", "GH020034.MP4"))
    assert [path.name for path in session["gh010034"].videos] == ["gh010034.mp4", "GH020034.MP4"]


def test_old_gopro_chapters_are_one_camera(session_of):
    session = open_session(session_of("GP010007.MP4", "GOPR0007.MP4", "GP020007.MP4", "cam.mp4"))
    assert session.names == ("GOPR0007", "cam")
    assert [path.name for path in session["GOPR0007"].videos] == ["GOPR0007.MP4", "GP010007.MP4", "GP020007.MP4"]


def test_missing_gopro_chapter_is_refused(session_of):
    with pytest.raises(SessionError, match=r"between GH010034\.MP4 and GH030034\.MP4 is missing"):
        open_session(session_of("GH010034.MP4", "GH030034.MP4"))


def test_folder_of_chapters_is_one_camera(session_of):
    root = session_of("videos/left/part10.mp4", "videos/left/part9.mp4", "videos/right.mp4", "videos/empty/")
    session = open_session(root)
    assert session.names == ("left", "right")
    assert [path.name for path in session["left"].videos] == ["part9.mp4", "part10.mp4"]


def test_folder_of_gopro_chapters_keeps_recordings_together(session_of):
    names = ("GH010001.MP4", "GH020001.MP4", "GH010002.MP4")
    session = open_session(session_of(*(f"videos/left/{name}" for name in names)))
    assert tuple(path.name for path in session["left"].videos) == names


def test_folder_and_file_of_one_camera_are_refused(session_of):
    with pytest.raises(SessionError, match="left"):
        open_session(session_of("videos/left/1.mp4", "videos/left.mp4"))


def test_toml_is_read(session_of):
    root = session_of(
        *TWO,
        "cam01.csv",
        toml="""
        reference = "cam02"
        [keypoints]
        skeleton = "body25"
        frame_base = 1
        [cameras.cam01]
        fps = 25
        timestamps = "cam01.csv"
        offset_hint_s = 12
        rolling_shutter_s = 0.011
        readout = "left"
        [cameras.cam02]
        start_s = -2.5
        """,
    )
    session = open_session(root)
    assert (session.reference, session.skeleton, session.frame_base) == ("cam02", "body25", 1)
    one, two = session.cameras
    assert (one.fps, one.timestamps, one.offset_hint_s, one.hint_sigma_s) == (
        25.0,
        (root / "cam01.csv").resolve(),
        12,
        0.5,
    )
    assert (one.rolling_shutter_s, one.readout) == (0.011, "left")
    assert (two.start_s, two.fps, two.timestamps, two.readout) == (-2.5, None, None, "down")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("refrence = 'cam01'", "unknown key 'refrence'; did you mean 'reference'"),
        ("[keypoints]\nframe_bass = 1", "did you mean 'frame_base'"),
        ("[cameras.cam01]\nstarts = 1", "did you mean 'start_s'"),
        ("[cameras.cam1]\nfps = 30", "'cam1' is not in the session; did you mean 'cam01'"),
        ("reference = 'kitchen'", "'kitchen' is not in the session. It has cam01, cam02"),
        ("reference = 1", "reference must be a text"),
        ("keypoints = 3", "keypoints must be a table"),
        ("cameras = ['cam01']", "cameras must be a table"),
        ("[cameras]\ncam01 = 3", "must be a table"),
        ("[keypoints]\nskeleton = 'coco71'", "did you mean 'coco17'"),
        ("[keypoints]\nskeleton = 17", "cannot be 17"),
        ("[keypoints]\nframe_base = 1.0", "frame_base must be a whole number"),
        ("[keypoints]\nframe_base = -1", "frame_base must be a whole number"),
        ("[keypoints]\nframe_base = true", "frame_base must be a whole number"),
        ("[cameras.cam01]\nfps = 0", "fps must be above 0"),
        ("[cameras.cam01]\nfps = '30'", "fps must be a finite number"),
        ("[cameras.cam01]\nfps = nan", "fps must be a finite number"),
        ("[cameras.cam01]\nstart_s = inf", "start_s must be a finite number"),
        (f"[cameras.cam01]\nstart_s = 1{'0' * 400}", "start_s must be a finite number"),
        ("[cameras.cam01]\nstart_s = true", "start_s must be a finite number"),
        ("[cameras.cam01]\nrolling_shutter_s = 11", "between 0 and 1"),
        ("[cameras.cam01]\nsize_px = 1920", "size_px must be [width, height] in whole pixels"),
        ("[cameras.cam01]\nsize_px = [1920]", "size_px must be [width, height] in whole pixels"),
        ("[cameras.cam01]\nsize_px = [1920, 0]", "size_px must be [width, height] in whole pixels"),
        ("[cameras.cam01]\nsize_px = [1920.0, 1080]", "size_px must be [width, height] in whole pixels"),
        ("[cameras.cam01]\nsize_px = [true, 1080]", "size_px must be [width, height] in whole pixels"),
        (f"[cameras.cam01]\nsize_px = [1{'0' * 40}, 1080]", "size_px must be [width, height] in whole pixels"),
        ("[cameras.cam01]\nreadout = 'sideways'", "Known are down, up, left, right"),
        ("[cameras.cam01]\noffset_hint_s = 1\nhint_sigma_s = 0", "hint_sigma_s must be above 0"),
        ("[cameras.cam01]\nhint_sigma_s = 1", "without offset_hint_s"),
        ("[cameras.cam01]\ntimestamps = 'times.csv'\nstart_s = 0.0", "both timestamps and start_s"),
        ("[cameras.cam01]\ntimestamps = 'none.csv'", "does not exist"),
        ("[cameras.cam01]\ntimestamps = 'videos'", "does not exist"),
        ("[cameras.cam01]\ntimestamps = '../other/times.csv'", "leads out of the session"),
        ("[cameras.cam01]\ntimestamps = 'videos/../times.csv'", "leads out of the session"),
        ("[cameras.cam01]\ntimestamps = '/etc/passwd'", "leads out of the session"),
        ('[cameras.cam01]\ntimestamps = "a\\u0000b"', "not a usable path"),
        ("reference = ", "not valid TOML"),
        ("a = " + "[" * 3000, "not valid TOML"),
    ],
)
def test_wrong_toml_is_refused(session_of, toml, message):
    with pytest.raises(SessionError, match=re.escape(message)) as caught:
        open_session(session_of(*TWO, "times.csv", toml=toml))
    assert "\n" not in str(caught.value)


def test_toml_that_is_no_text_is_refused(session_of):
    root = session_of(*TWO)
    (root / "session.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SessionError, match="not valid TOML"):
        open_session(root)


def test_timestamps_link_must_not_lead_out(session_of, tmp_path):
    (tmp_path / "secret.csv").write_text("0\n")
    root = session_of(*TWO, toml="[cameras.cam01]\ntimestamps = 'link.csv'")
    (root / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(SessionError, match="leads out of the session"):
        open_session(root)


def test_damaged_toml_raises_nothing_else(session_of):
    text = "reference = 'cam01'\n[keypoints]\nframe_base = 1\n[cameras.cam01]\nfps = 29.97\nreadout = 'up'\n"
    root = session_of(*TWO, toml=text)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(text.encode())
        for at in rng.integers(0, len(damaged), 3):
            damaged[at] = rng.integers(0, 256)
        (root / "session.toml").write_bytes(damaged)
        try:
            open_session(root)
        except SessionError:
            refused += 1
    assert refused > 100


def test_without(session_of):
    session = open_session(session_of("a.mp4", "b.mp4", "c.mp4", toml="reference = 'a'"))
    assert without(session, ["b"]).names == ("a", "c")
    assert without(session, []) == session
    with pytest.raises(SessionError, match="'bb' is not in the session; did you mean 'b'"):
        without(session, ["bb"])
    with pytest.raises(SessionError, match="reference"):
        without(session, ["a"])
    with pytest.raises(SessionError, match="all cameras"):
        without(replace(session, reference=None), "abc")


def test_one_camera_is_too_few(session_of):
    session = open_session(session_of("a.mp4"))
    with pytest.raises(SessionError, match="one camera only"):
        require_two(session)
    require_two(open_session(session_of("a.mp4", "b.mp4")))


def test_video_times_and_start():
    times = camera_times(CameraSource("cam01", start_s=10.0, fps=5.0), video_of([0.0, 0.04, 0.1]))
    np.testing.assert_array_equal(times, [10.0, 10.04, 10.1])


def test_fps_serves_only_without_video():
    times = camera_times(CameraSource("cam01", fps=29.97, start_s=1.0), None, 3)
    np.testing.assert_allclose(times, 1 + np.arange(3) / 29.97, rtol=0, atol=1e-15)


def test_no_times_at_all_says_what_to_set(tmp_path):
    with pytest.raises(SessionError, match=r"Set fps or timestamps under \[cameras\.cam01\]"):
        camera_times(CameraSource("cam01", keypoints=tmp_path / "cam01.json"), None, 10)


@pytest.mark.parametrize(
    "text",
    [
        "1.5\n1.6\n1.8\n",
        "time_s\n1.5\n1.6\n1.8",
        "time (s)\n1.5\n1.6\n1.8",
        "# time_s\n1.5\n\n1.6\n1.8\n",
        "\ufefftime,frame\r\n1.5,0\r\n1.6,1\r\n1.8,2\r\n",
        "frame;Timestamp\n0;1,5\n1;1,6\n2;1,8\n",
        "frame\ttime\n0\t1.5\n1\t1.6\n2\t1.8\n",
        "frame time\n0 1.5\n1 1.6\n2 1.8\n",
        "a.png 1.5\nb.png 1.6\nc.png 1.8\n",
        '"name","time"\n"a","1.5"\n"b","1.6"\n"c","1.8"\n',
    ],
)
def test_timestamps_stand_as_they_are(tmp_path, text):
    path = tmp_path / "times.csv"
    path.write_text(text, encoding="utf-8", newline="")
    times = camera_times(CameraSource("cam01", timestamps=path, fps=30), video_of([0.0, 0.04, 0.08]))
    np.testing.assert_array_equal(times, [1.5, 1.6, 1.8])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no times"),
        ("time_s\n", "0 columns"),
        ("0,0.0\n1,0.1\n2,0.2\n", "2 columns"),
        ("a\nb\nc\n", "0 columns"),
        ("0\n33\n66\n", "seconds"),
        ("0.3\n0.2\n0.1\n", "do not increase"),
        ("0.1\nnan\n0.3\ninf\n0.2\n", "do not increase"),
        ("0.1\n0.2\n", "one time a frame"),
        ("0.1\n0.2\n0.3\n0.4\n", "one time a frame"),
    ],
)
def test_wrong_timestamps_are_refused(tmp_path, text, message):
    path = tmp_path / "times.csv"
    path.write_text(text)
    with pytest.raises(SessionError, match=message):
        camera_times(CameraSource("cam01", timestamps=path), video_of([0.0, 0.04, 0.08]))


CALISCOPE = "cam_id,frame_time\n" + "".join(f"{i % 2},{100 + i / 50}\n" for i in range(8))


def test_rows_of_several_cameras_are_told_apart(tmp_path):
    path = tmp_path / "times.csv"
    path.write_text(CALISCOPE)
    for name in ("1", "cam_1", "port_1"):
        times = camera_times(CameraSource(name, timestamps=path), None, 4)
        np.testing.assert_allclose(times, [100.02, 100.06, 100.1, 100.14])
    # cam01 may be the first or the second of 0 and 1: nobody guesses.
    with pytest.raises(SessionError, match=r"several cameras, by its column cam_id: 0, 1\. None of these is cam01"):
        camera_times(CameraSource("cam01", timestamps=path), None, 4)
    path.write_text("camera;time_s\nleft;1,0\nleft;1,5\n")
    np.testing.assert_array_equal(camera_times(CameraSource("cam01", timestamps=path), None, 2), [1.0, 1.5])


def test_more_times_than_frames_are_not_taken_for_the_first_of_them(tmp_path, caplog):
    path = tmp_path / "times.csv"
    path.write_text("".join(f"{i / 30}\n" for i in range(200)))
    source = CameraSource("cam01", timestamps=path, keypoints=tmp_path / "cam01.json")
    for frames, lists_all in ((50, False), (199, True)):
        with pytest.raises(SessionError, match=f"has 200 times, and .*json {frames} frames; there must be one time a"):
            camera_times(source, None, frames, lists_all=lists_all)
    assert len(camera_times(source, None, 199)) == 200
    assert "the last 1 show nobody" in caplog.text
    assert len(camera_times(source, None, 200, lists_all=True)) == 200


def test_timestamps_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "times.csv"
    path.write_bytes(bytes(range(128, 256)))
    with pytest.raises(SessionError, match="cannot be read as text"):
        camera_times(CameraSource("cam01", timestamps=path), None, 3)


def test_few_wrong_timestamps_are_repaired_and_named(tmp_path, caplog):
    truth = np.arange(200) / 30
    written = truth.copy()
    written[100] = 0.0
    path = tmp_path / "times.csv"
    np.savetxt(path, written, header="time_s", fmt="%.9f")
    times = camera_times(CameraSource("cam01", timestamps=path), None, 150)
    np.testing.assert_allclose(times, truth, atol=1e-8)
    assert "cam01: 1 of 200 times" in caplog.text


def test_timestamps_must_cover_the_keypoints(tmp_path):
    path = tmp_path / "times.csv"
    path.write_text("0.1\n0.2\n")
    with pytest.raises(SessionError, match="frame 2"):
        camera_times(CameraSource("cam01", timestamps=path), None, 3)
