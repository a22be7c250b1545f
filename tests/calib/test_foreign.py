"""Each format is built here from a known rig by its own published formulae, then read."""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from mvpose.calib.files import FORMATS, read_rig, write_rig
from mvpose.calib.rig import CameraRig
from mvpose.errors import CalibrationError

QUALISYS = Path(__file__).parents[2] / "../shared/data/pose2sim/Demo_SinglePerson/calibration/Calib.qca.txt"


def rodrigues(R):
    """Axis times angle from the matrix logarithm, not from OpenCV."""
    angle = np.arccos((np.trace(R) - 1) / 2)
    axis = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / (2 * np.sin(angle))
    return axis * angle


def turned(rig, R):
    """The same cameras in a world turned by R."""
    cameras = []
    for camera in rig:
        pose = camera.cam_from_world.copy()
        pose[:3, :3] = camera.R @ R.T
        cameras.append(type(camera)(camera.name, camera.size_px, camera.K, camera.dist, pose, camera.model))
    return cameras


def test_panoptic(rig, same, tmp_path):
    world = CameraRig(tuple(turned(rig, np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]))), "-y")
    cameras = [
        {"name": c.name, "type": "hd", "resolution": [1920, 1080], "panel": 0, "node": 1, "K": c.K.tolist(),
         "distCoef": c.dist.tolist(), "R": c.R.tolist(), "t": (c.t * 100).reshape(3, 1).tolist()}
        for c in world
    ]  # fmt: skip
    path = tmp_path / "anything.txt"
    path.write_text(json.dumps({"calibDataSource": "160224_calib_norm", "cameras": cameras}))
    same(read_rig(path), world)


def test_panoptic_up_is_fixed_whatever_the_images_show(rig, tmp_path, caplog):
    path = tmp_path / "calibration.json"
    write_rig(CameraRig(rig.cameras, "-y"), path, "panoptic")
    assert read_rig(path).up == "-y"
    assert "says that -y is up, but its cameras' images are upright along z" in caplog.text


def test_voxelpose_translation_is_the_centre_in_mm(rig, same, tmp_path):
    document = {
        c.name: {"R": c.R.tolist(), "T": (c.center_m * 1000).reshape(3, 1).tolist(), "fx": c.K[0, 0], "fy": c.K[1, 1],
                 "cx": c.K[0, 2], "cy": c.K[1, 2], "k": [[c.dist[0]], [c.dist[1]], [c.dist[4]]],
                 "p": [[c.dist[2]], [c.dist[3]]]}
        for c in rig
    }  # fmt: skip
    path = tmp_path / "calibration_shelf.json"
    path.write_text(json.dumps(document))
    read = read_rig(path)
    assert not any(c.size_known for c in read)
    assert read["cam01"].size_px == (1904, 1088)  # twice the principal point, plus the pixel in the middle
    for a, b in zip(read, rig, strict=True):
        np.testing.assert_allclose(a.cam_from_world, b.cam_from_world, atol=1e-9)
        np.testing.assert_allclose(a.dist, b.dist)
        np.testing.assert_allclose(a.K, b.K)


@pytest.mark.parametrize("form", ["RT", "R and T", "Rodrigues"])
def test_4d_association(rig, same, tmp_path, form, caplog):
    document = {}
    for c in rig:
        entry = {"K": c.K.ravel().tolist(), "imgSize": [1920, 1080], "distCoeff": c.dist.tolist()}
        if form == "RT":
            entry["RT"] = np.column_stack([c.R, c.t]).ravel().tolist()
        else:
            entry |= {"R": (c.R.ravel() if form == "R and T" else rodrigues(c.R)).tolist(), "T": c.t.tolist()}
        document[c.name] = entry
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(document))
    same(read_rig(path), rig)
    assert "names no length unit" in caplog.text
    assert "taken as m;" in caplog.text


def anipose_text(rig, metres_per_unit, extra=""):
    text = ""
    for index, c in enumerate(rig):
        text += f"[cam_{index}]\nname = {json.dumps(c.name, ensure_ascii=False)}\nsize = [ 1920, 1080,]\n"
        text += f"matrix = {c.K.tolist()}\ndistortions = {c.dist.tolist()}\n"
        text += f"rotation = {rodrigues(c.R).tolist()}\ntranslation = {(c.t / metres_per_unit).tolist()}\n{extra}\n"
    return text + "[metadata]\nadjusted = false\nerror = 0.3\n"


@pytest.mark.parametrize(("metres", "unit"), [(1.0, "m"), (0.01, "cm"), (0.001, "mm")])
def test_anipose_in_any_unit(rig, same, tmp_path, metres, unit, caplog):
    path = tmp_path / "calibration.toml"
    path.write_text(anipose_text(rig, metres), encoding="utf-8")
    same(read_rig(path), rig)
    assert f"taken as {unit};" in caplog.text
    caplog.clear()
    same(read_rig(path, units=unit), rig)
    assert "length unit" not in caplog.text


def test_pose2sim(rig, same, tmp_path):
    path = tmp_path / "Calib_scene.toml"
    path.write_text(
        anipose_text(rig, 1.0, "fisheye = false").replace("1920, 1080,", "1920.0, 1080.0"), encoding="utf-8"
    )
    same(read_rig(path), rig)


def test_fisheye_toml(camera_at, same, tmp_path):
    places = [(4.0, 0, 1.6), (-1.0, 4, 2), (-3, -2, 2)]
    lens = {"dist": (0.01, -0.02, 0.003, 0.001), "model": "fisheye"}
    fisheyes = CameraRig(tuple(camera_at(f"c{i}", place, **lens) for i, place in enumerate(places)))
    path = tmp_path / "calibration.toml"
    path.write_text(anipose_text(fisheyes, 1.0, "fisheye = true"))
    same(read_rig(path), fisheyes)


def filestorage(path, values):
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for key, value in values.items():
        if isinstance(value, list):
            storage.startWriteStruct(key, cv2.FILE_NODE_SEQ)
            for item in value:
                storage.write("", item)
            storage.endWriteStruct()
        else:
            storage.write(key, value)
    storage.release()


@pytest.mark.parametrize("given", ["intri.yml", "extri.yml", "."])
def test_easymocap_is_in_metres(plain_rig, same, tmp_path, given, caplog):
    intri = {"names": list(plain_rig.names)}
    extri = {"names": list(plain_rig.names)}
    for c in plain_rig:
        intri |= {f"K_{c.name}": c.K, f"dist_{c.name}": c.dist[None], f"H_{c.name}": 1080, f"W_{c.name}": 1920}
        extri |= {f"R_{c.name}": rodrigues(c.R)[:, None], f"Rot_{c.name}": c.R, f"T_{c.name}": c.t[:, None]}
    filestorage(tmp_path / "intri.yml", intri)
    filestorage(tmp_path / "extri.yml", extri)
    same(read_rig(tmp_path / given), plain_rig)
    assert "length unit" not in caplog.text


def test_easymocap_without_sizes_or_its_other_half(plain_rig, tmp_path):
    intri, extri = {}, {}
    for c in plain_rig:
        intri |= {f"K_{c.name}": c.K, f"D_{c.name}": c.dist[None]}
        extri |= {f"Rot_{c.name}": c.R, f"T_{c.name}": c.t[:, None]}
    filestorage(tmp_path / "intri.yml", intri)
    with pytest.raises(CalibrationError, match=r"no extri\.yml beside it"):
        read_rig(tmp_path / "intri.yml")
    filestorage(tmp_path / "extri.yml", extri)
    assert [c.size_known for c in read_rig(tmp_path)] == [False] * 3


def test_opencv_a_file_a_camera(rig, same, tmp_path):
    for c in rig:
        values = {"image_width": 1920, "image_height": 1080, "camera_matrix": c.K,
                  "distortion_coefficients": c.dist[:, None], "R": c.R, "T": c.t[:, None] * 1000}  # fmt: skip
        filestorage(tmp_path / f"{c.name}.yml", values)
    read = read_rig(tmp_path)
    same(read, CameraRig(tuple(sorted(rig, key=lambda c: c.name))))


def qualisys_text(rig):
    """Invert: centre in mm, r.. the rows of diag(1, -1, -1) R, intrinsics times 64."""
    text = "<?xml version='1.0' encoding='ASCII'?>\n<calibration type='regular'><results std-dev='0.4'/><cameras>\n"
    for c in rig:
        Q = np.array([c.R[0], -c.R[1], -c.R[2]])
        entries = " ".join(f'r{i + 1}{j + 1}="{float(Q[i, j])!r}"' for i in range(3) for j in range(3))
        x, y, z = map(float, c.center_m * 1000)
        (fx, _, cx), (_, fy, cy), _ = (c.K * 64).tolist()
        k1, k2, p1, p2, k3 = c.dist.tolist()
        text += f"""<camera active="1" serial="{c.name}" model="none" viewrotation="0" video_resolution="">
            <fov_video left="0" top="0" right="1919" bottom="1079"/>
            <fov_video_max left="0" top="0" right="1919" bottom="1079"/>
            <transform {entries} x="{x!r}" y="{y!r}" z="{z!r}"/>
            <intrinsic focalLengthU="{fx}" focalLengthV="{fy}" centerPointU="{cx}" centerPointV="{cy}"
             radialDistortion1="{k1}" radialDistortion2="{k2}" radialDistortion3="{k3}"
             tangentalDistortion1="{p1}" tangentalDistortion2="{p2}" skew="0.0"/></camera>"""
    return text + "</cameras></calibration>"


def test_qualisys(plain_rig, same, tmp_path):
    path = tmp_path / "Calib.qca.txt"
    path.write_text(qualisys_text(plain_rig))
    same(read_rig(path), plain_rig)


def test_qualisys_region_and_resolution(plain_rig, tmp_path):
    """The image starts at the region's corner, and 540p video has a pixel for two of the sensor's."""
    text = qualisys_text(plain_rig).replace('<fov_video left="0" top="0"', '<fov_video left="100" top="40"')
    path = tmp_path / "Calib.qca.txt"
    path.write_text(text.replace('video_resolution=""', 'video_resolution="540p"'))
    camera = read_rig(path)["cam01"]
    assert camera.size_px == (910, 520)
    expected = [[1400.5 / 2, 0, (951.25 - 100) / 2], [0, 1401.5 / 2, (543.75 - 40) / 2], [0, 0, 1]]
    np.testing.assert_allclose(camera.K, expected)


@pytest.mark.parametrize(("lines", "resolution"), [(1440, "1440p"), (2160, "2160p"), (1088, ""), (2880, "1440p")])
def test_qualisys_sensors_of_any_number_of_lines(plain_rig, tmp_path, lines, resolution):
    """A sensor of 1440 lines filmed at 1440p is not scaled, one of 2880 lines is halved."""
    text = qualisys_text(plain_rig).replace('bottom="1079"', f'bottom="{lines - 1}"')
    path = tmp_path / "Calib.qca.txt"
    path.write_text(text.replace('video_resolution=""', f'video_resolution="{resolution}"'))
    scale = 0.5 if lines == 2880 else 1.0
    camera = read_rig(path)["cam01"]
    assert camera.size_px == (1920 * scale, lines * scale)
    np.testing.assert_allclose(camera.K[:2], plain_rig["cam01"].K[:2] * scale)


# Caliscope, FreeMoCap, Vicon


def caliscope_text(rig, heading, form, **more):
    text = 'fps_recording = 24\n\n[charuco]\ncolumns = 4\nunits = "inch"\n\n[capture_volume]\nstage = 2\n\n'
    for index, c in enumerate(rig):
        rotation = (rodrigues(c.R) if form == "vector" else c.R).tolist()
        fields = {"size": [1920, 1080], "matrix": c.K.tolist(), "distortions": c.dist.tolist(), "rotation": rotation,
                  "translation": c.t.tolist(), "rotation_count": 0, "error": 0.3, **more}  # fmt: skip
        text += f"[{heading.format(index)}]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items()) + "\n"
    return text


@pytest.mark.parametrize("heading", ["cameras.{}", "cam_{}"])
@pytest.mark.parametrize("form", ["vector", "matrix"])
def test_caliscope(rig, same, tmp_path, heading, form, caplog):
    path = tmp_path / "camera_array.toml"
    path.write_text(caliscope_text(rig, heading, form))
    read = read_rig(path)
    assert read.names == ("cam_0", "cam_1", "cam_2")
    renamed = [type(c)(f"cam_{i}", c.size_px, c.K, c.dist, c.cam_from_world) for i, c in enumerate(rig)]
    same(read, CameraRig(tuple(renamed)))
    assert not caplog.records


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
@pytest.mark.parametrize("lens", ["rig", "fisheye", "prism"])
def test_caliscope_turns_its_images(camera_at, tmp_path, quarters, lens, caplog):
    """Where the upright image shows a point, the turned calibration has it."""
    dist = {"rig": (-0.1, 0.02, 0.01, 0.02, 0.0), "fisheye": (0.01, -0.02, 0.003, 0.001),
            "prism": (-0.1, 0.02, 0.01, 0.02, 0.0, 0.1, 0, 0, 0.01, 0.002, -0.02, 0.003)}[lens]  # fmt: skip
    more = {"dist": dist, "model": "fisheye" if lens == "fisheye" else "pinhole"}
    cameras = [camera_at("cam_0", (4, 0.5, 1.6), **more), camera_at("cam_1", (-1, 4.2, 1.9), **more)]
    path = tmp_path / "config.toml"
    fisheye = "true" if lens == "fisheye" else "false"
    path.write_text(caliscope_text(cameras, "cam_{}", "vector", rotation_count=quarters, fisheye=fisheye))
    points = np.random.default_rng(0).uniform(-0.8, 0.8, (50, 3))
    for camera, read in zip(cameras, read_rig(path), strict=True):
        expected, (width, height) = camera.project(points), camera.size_px
        for _ in range(quarters % 4):  # clockwise: the left column becomes the top row
            expected, (width, height) = np.stack([height - 1 - expected[:, 1], expected[:, 0]], 1), (height, width)
        assert read.size_px == (width, height)
        np.testing.assert_allclose(read.project(points), expected, atol=1e-9 * 1920)
    assert "Caliscope turns its image by" in caplog.text


def test_freemocap_is_in_millimetres_where_it_knows_the_board(rig, same, tmp_path, caplog):
    """1.2 m between two cameras could be 1200 cm as well, if nobody said."""
    close = CameraRig(tuple(
        type(c)(c.name, c.size_px, c.K, c.dist, np.block([[c.R, c.t[:, None] * 0.2], [np.zeros((1, 3)), 1]]))
        for c in rig
    ))  # fmt: skip
    path = tmp_path / "camera_calibration.toml"
    path.write_text(anipose_text(close, 0.001), encoding="utf-8")
    with pytest.raises(CalibrationError, match="pass --units"):
        read_rig(path)
    path.write_text(anipose_text(close, 0.001) + "charuco_square_size = 39.0\n", encoding="utf-8")
    same(read_rig(path), close)
    path.write_text(anipose_text(close, 0.001) + "charuco_square_size = 1\n", encoding="utf-8")  # never told
    with pytest.raises(CalibrationError, match="pass --units"):
        read_rig(path)


VICON_LENS = (-4.5e-8, 6e-15, 0.0)


def vicon_text(rig, lens=VICON_LENS, tag="VICON_RADIAL2"):
    text = '<?xml version="1.0" encoding="UTF-8" standalone="no" ?>\n<Cameras NAME="" VERSION="1.0">\n'
    for number, c in enumerate(rig):
        angle_axis = rodrigues(c.R)
        angle = np.linalg.norm(angle_axis)
        quaternion = [*(np.sin(angle / 2) * angle_axis / angle), np.cos(angle / 2)]
        (fx, _, cx), (_, fy, cy), _ = c.K.tolist()
        words = {"ORIENTATION": quaternion, "POSITION": c.center_m * 1000, "PRINCIPAL_POINT": [cx, cy]}
        attributes = " ".join(f'{key}="{" ".join(map(repr, map(float, value)))}"' for key, value in words.items())
        radial = f"Vicon3Parameter {cx} {cy} {' '.join(map(repr, lens))}" if tag[-1] == "2" else f"{lens[0]} {lens[1]}"
        text += f'''<Camera DEVICEID="{c.name}" DISPLAY_TYPE="VideoCamera" TYPE="VIDEO"
          SENSOR_SIZE="1920 1080" PIXEL_ASPECT_RATIO="{fx / fy!r}" USERID="{number}"><ControlFrames/><KeyFrames>
          <KeyFrame FOCAL_LENGTH="{fx!r}" FRAME="0" {attributes} {tag}="{radial}"/></KeyFrames></Camera>
        <Camera DEVICEID="{c.name}7" TYPE="DxCore160" SENSOR_SIZE="4704 3456"><KeyFrames/></Camera>'''
    return text + "</Cameras>"


@pytest.mark.parametrize("tag", ["VICON_RADIAL", "VICON_RADIAL2"])
def test_vicon(plain_rig, tmp_path, tag):
    path = tmp_path / "walk.xcp"
    path.write_text(vicon_text(plain_rig, tag=tag))
    read = read_rig(path)
    assert read.names == plain_rig.names
    points = np.random.default_rng(0).uniform(-1, 1, (300, 3))
    for camera, own in zip(read, plain_rig, strict=True):
        np.testing.assert_allclose(camera.cam_from_world, own.cam_from_world, atol=1e-9)
        np.testing.assert_allclose(camera.K, own.K)
        # Vicon's own words: what is seen at p is, without the lens, at c + (p - c) (1 + k1 r² + k2 r⁴).
        seen = camera.project(points)
        inside = ((seen > 0) & (seen < camera.size_px)).all(axis=1)
        assert inside.sum() > 100
        off = (seen - own.K[:2, 2])[inside]
        r2 = (off**2).sum(axis=1, keepdims=True)
        straight = own.K[:2, 2] + off * (1 + VICON_LENS[0] * r2 + VICON_LENS[1] * r2**2)
        flat = points[inside] @ own.R.T + own.t
        np.testing.assert_allclose(straight, (flat[:, :2] / flat[:, 2:]) @ own.K[:2, :2].T + own.K[:2, 2], atol=0.05)


def test_vicon_without_a_lens_or_a_key_frame(plain_rig, same, tmp_path, caplog):
    path = tmp_path / "walk.xcp"
    text = vicon_text(plain_rig, (0.0, 0.0, 0.0))
    path.write_text(text)
    same(
        read_rig(path),
        CameraRig(tuple(type(c)(c.name, c.size_px, c.K, np.zeros(5), c.cam_from_world) for c in plain_rig)),
    )
    head, _, rest = text.partition("<KeyFrame ")
    path.write_text(head + rest[rest.index("/>") + 2 :])
    assert read_rig(path).names == plain_rig.names[1:]
    assert "cam01 is left out: camera cam01 has no KeyFrame: it is not calibrated" in caplog.text


@pytest.mark.parametrize("lens", [(-1e-5, 0.0, 0.0), (1e300, 0.0, 0.0)])
def test_vicon_lenses_that_are_none_are_refused(plain_rig, tmp_path, lens):
    path = tmp_path / "walk.xcp"
    path.write_text(vicon_text(plain_rig, lens))
    with pytest.raises(CalibrationError, match=r"camera cam01: .*(lens|beyond all measure)"):
        read_rig(path)


# Entries that nobody needs


UNPOSED = '[cam05]\nname = "cam05"\nsize = [1920, 1080]\nmatrix = [[1e3, 0, 960], [0, 1e3, 540], [0, 0, 1]]\n'
UNPOSED += "distortions = [0.0, 0.0, 0.0, 0.0]\n"


@pytest.mark.parametrize(
    ("extra", "name", "why"),
    [
        (UNPOSED, "cam05", "has no 'rotation'"),
        (UNPOSED + "rotation = [nan, nan, nan]\ntranslation = [nan, nan, nan]\n", "cam05", "rotation holds NaN"),
        ("[groundplane]\nnormal = [0, 0, 1]\n", "groundplane", "has no 'size'"),
    ],
)
def test_entries_without_a_pose_cost_only_their_camera(rig, same, tmp_path, extra, name, why, caplog):
    path = tmp_path / "Calib.toml"
    path.write_text(extra + anipose_text(rig, 1.0), encoding="utf-8")
    read = read_rig(path)
    same(read, rig)
    assert f"{name} is left out: camera {name}" in caplog.text
    assert why in caplog.text
    with pytest.raises(CalibrationError, match=f"entry '{name}' is no whole camera: .*{why}"):
        read.subset(["cam01", name])
    if name == "cam05":
        path.write_text(extra, encoding="utf-8")
        with pytest.raises(CalibrationError, match=why):
            read_rig(path)


def test_entries_with_wrong_values_cost_the_file(rig, tmp_path):
    path = tmp_path / "Calib.toml"
    path.write_text(anipose_text(rig, 1.0).replace("1920, 1080,]", "1920, 0]", 1), encoding="utf-8")
    with pytest.raises(CalibrationError, match="image size 1920 x 0"):
        read_rig(path)


def test_easymocap_with_a_camera_that_has_no_pose(plain_rig, same, tmp_path, caplog):
    write_rig(plain_rig, tmp_path, "easymocap")
    intri = (tmp_path / "intri.yml").read_text()
    one = intri[intri.index("K_cam01") : intri.index("K_left")]
    text = intri.replace("names:", 'names:\n  - "cam09"') + one.replace("cam01", "cam09")
    (tmp_path / "intri.yml").write_text(text)
    same(read_rig(tmp_path), plain_rig)
    assert "cam09 is left out: extri.yml has no 'R_cam09'" in caplog.text


def test_hidden_files_beside_yaml_are_passed_over(rig, same, tmp_path):
    for c in rig:
        write_rig(CameraRig((c,)), tmp_path / f"{c.name}.yml", "opencv")
        (tmp_path / f"._{c.name}.yml").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X   \xff\xfe")
    same(read_rig(tmp_path), CameraRig(tuple(sorted(rig, key=lambda c: c.name))))


@pytest.mark.skipif(not QUALISYS.exists(), reason="the Pose2Sim recording is not here")
def test_real_qualisys_agrees_with_pose2sims_conversion():
    """Rotation and translation that Pose2Sim publishes for this very file (its Calib_qualisys.toml, 2024)."""
    published = {
        "cam01": ([1.68827548, 1.04832205, -0.41955852], [0.32110489, 0.95633206, 2.89071305]),
        "cam02": ([1.34975875, 1.59638091, -1.19832858], [-0.11152829, 0.77661848, 3.06755196]),
        "cam03": ([0.81096549, -2.19721293, 1.37602778], [-0.79348039, 0.32283594, 4.35351487]),
        "cam04": ([1.40455717, -1.38874127, 0.42535743], [0.50302172, 0.04894934, 4.40656446]),
    }
    read = read_rig(QUALISYS)
    assert read.up == "z"
    for camera in read:
        np.testing.assert_allclose(rodrigues(camera.R), published[camera.name][0], atol=1e-6)
        np.testing.assert_allclose(camera.t, published[camera.name][1], atol=1e-6)
        assert camera.size_px == (1088, 1920)
    np.testing.assert_allclose(read["cam01"].K[[0, 1], [0, 1]], [1681.244873046875, 1681.075439453125])


@pytest.mark.skipif(not QUALISYS.exists(), reason="the Pose2Sim recording is not here")
def test_real_qualisys_cameras_look_to_a_common_centre():
    rig = read_rig(QUALISYS)
    axes = np.stack([c.R[2] for c in rig])
    away = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    meeting = np.linalg.solve(away.sum(0), np.einsum("cij,cj->i", away, np.stack([c.center_m for c in rig])))
    assert 0 < meeting[2] < 2  # at the height of a person
    for camera in rig:
        off = camera.project(meeting) - camera.K[:2, 2]
        assert np.linalg.norm(off) < 0.15 * max(camera.size_px)


def opencap(camera, protocol):
    document = {
        "distortion": camera.dist[None], "intrinsicMat": np.asfortranarray(camera.K),
        "imageSize": np.array([[1080.0], [1920.0]]), "rotation": camera.R, "translation": camera.t[:, None] * 1000,
        "rotation_EulerAngles": rodrigues(camera.R)[:, None], "rms": np.float64(0.3), "note": ["front", None, True],
    }  # fmt: skip
    return pickle.dumps(document, protocol=protocol)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_opencap(rig, same, tmp_path, protocol):
    for c in rig:
        folder = tmp_path / "Videos" / c.name
        folder.mkdir(parents=True)
        (folder / "cameraIntrinsicsExtrinsics.pickle").write_bytes(opencap(c, protocol))
    expected = CameraRig(tuple(sorted(rig, key=lambda c: c.name)))
    same(read_rig(tmp_path), expected)
    same(read_rig(tmp_path / "Videos"), expected)
    one = read_rig(tmp_path / "Videos" / "left" / "cameraIntrinsicsExtrinsics.pickle")
    assert one.names == ("left",)


def test_opencap_pickles_by_name(rig, same, tmp_path):
    for c in rig:
        (tmp_path / f"{c.name}.pickle").write_bytes(opencap(c, 4))
    same(read_rig(tmp_path), CameraRig(tuple(sorted(rig, key=lambda c: c.name))))


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Call:
    """Calls a function of NumPy that is harmless, but not one that arrays need."""

    def __reduce__(self):
        return np.zeros, ((2, 2),)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_are_never_executed(rig, tmp_path, protocol):
    target = tmp_path / "touched"
    path = tmp_path / "cam01.pickle"
    for evil in (Touch(target), Call(), np.array([Touch(target)], dtype=object), {1, 2}, range(3)):
        path.write_bytes(pickle.dumps({"intrinsicMat": evil}, protocol=protocol))
        with pytest.raises(CalibrationError, match=r"cam01\.pickle"):
            read_rig(path)
        assert not target.exists()


def test_pickle_extension_codes_are_refused(tmp_path):
    path = tmp_path / "cam01.pickle"
    path.write_bytes(b"\x80\x02\x82\x01.")
    with pytest.raises(CalibrationError, match="uses EXT1"):
        read_rig(path)


def test_pickle_cannot_build_onto_the_stand_ins(tmp_path):
    path = tmp_path / "cam01.pickle"
    path.write_bytes(b"\x80\x02c_codecs\nencode\n(N}U\x0c__defaults__)stb.")
    with pytest.raises(CalibrationError, match="change code"):
        read_rig(path)


def world_of(rig, to):
    """Panoptic's world has -y up; every other format takes the rig as it is."""
    R = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    return CameraRig(tuple(turned(rig, R)), "-y") if to == "panoptic" else rig


@pytest.mark.parametrize("to", FORMATS)
def test_write_then_read_is_identity(plain_rig, same, tmp_path, to):
    rig = world_of(plain_rig, to)
    path = tmp_path / "written"
    write_rig(rig, path, to)
    read = read_rig(path)
    if to == "voxelpose":  # which holds no size
        assert not any(c.size_known for c in read)
        read = CameraRig(tuple(type(c)(c.name, (1920, 1080), c.K, c.dist, c.cam_from_world) for c in read))
    same(read, rig)


@pytest.mark.parametrize("to", sorted(set(FORMATS) - {"easymocap"}))
def test_names_survive(rig, tmp_path, to):
    path = tmp_path / "written"
    write_rig(world_of(rig, to), path, to)
    assert read_rig(path).names == rig.names


def test_opencv_reads_what_we_write(plain_rig, tmp_path):
    write_rig(plain_rig, tmp_path / "opencv.yml", "opencv")
    write_rig(plain_rig, tmp_path, "easymocap")
    camera = plain_rig["left"]
    storage = cv2.FileStorage(str(tmp_path / "opencv.yml"), cv2.FILE_STORAGE_READ)
    node = storage.getNode("camera_1")
    np.testing.assert_array_equal(node.getNode("camera_matrix").mat(), camera.K)
    assert node.getNode("name").string() == "left"
    extri = cv2.FileStorage(str(tmp_path / "extri.yml"), cv2.FILE_STORAGE_READ)
    np.testing.assert_array_equal(extri.getNode("T_left").mat()[:, 0], camera.t)
    assert [extri.getNode("names").at(i).string() for i in range(3)] == list(plain_rig.names)


@pytest.mark.parametrize("to", sorted(set(FORMATS) - {"mvpose", "opencv", "anipose"}))
def test_what_a_format_cannot_hold_is_refused(camera_at, tmp_path, to):
    fisheye = camera_at("cam01", (4.0, 0, 1.6), up=(0, -1, 0), dist=(0.1, 0, 0, 0), model="fisheye")
    with pytest.raises(CalibrationError, match="fisheye"):
        write_rig(CameraRig((fisheye,), "-y"), tmp_path / "out", to)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", sorted(set(FORMATS) - {"mvpose", "opencv", "4dassociation"}))
def test_fourteen_distortion_values_are_refused_unless_the_rest_is_zero(camera_at, tmp_path, to):
    lens = np.zeros(14)
    lens[[0, 13]] = -0.05, 0.01
    with pytest.raises(CalibrationError, match="at most 5 distortion values, it has 14"):
        write_rig(CameraRig((camera_at("cam01", (4.0, 0, 1.6), dist=lens),), "-y"), tmp_path / "out", to)
    lens[13] = 0
    write_rig(CameraRig((camera_at("cam01", (4.0, 0, 1.6), dist=lens),), "-y"), tmp_path / "out", to)
