import logging
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from mvpose.detect import mediapipe, mmpose
from mvpose.detect.choose import choose_detector
from mvpose.detect.mmpose_checkpoint import cached_weights, fetch_weights, is_reachable
from mvpose.errors import DetectionError

NOWHERE = "http://127.0.0.1:9"  # the discard port, where nothing listens


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No cached weights, and every connection refused."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, NOWHERE)
    monkeypatch.setenv("no_proxy", "")
    return tmp_path


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server of ``/weights.pth``, and of ``/broken.pth`` which breaks off half-way."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(b"abcdef" if self.path == "/weights.pth" else b"abc")

        def log_message(self, *args):
            pass

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_an_unknown_engine_is_refused_with_the_names_of_the_known():
    with pytest.raises(DetectionError, match=r"'openpose'.*auto, mmpose, mediapipe"):
        choose_detector("openpose")


def test_a_checkpoint_is_not_ignored_by_mediapipe(tmp_path):
    with pytest.raises(DetectionError, match="takes no checkpoint"):
        choose_detector("mediapipe", checkpoint=tmp_path / "weights.pth")


@pytest.mark.skipif(not mediapipe.is_installed(), reason="mediapipe or ai-edge-litert is not installed")
def test_auto_falls_back_and_says_why(offline, caplog):
    with caplog.at_level(logging.INFO, logger="mvpose"):
        assert choose_detector("auto").name == "mediapipe"
    (record,) = caplog.records
    assert "mediapipe, because mmpose" in record.getMessage()


@pytest.mark.skipif(not mmpose.is_installed(), reason="mmpose is not installed")
def test_mmpose_without_weights_says_what_to_fetch_and_where_to_put_it(offline):
    with pytest.raises(DetectionError) as error:
        choose_detector("mmpose")
    assert mmpose.POSE_WEIGHTS_URL in str(error.value)
    assert str(offline) in str(error.value)


def test_weights_are_fetched_once(server):
    url = f"{server}/weights.pth"
    assert is_reachable(url)
    path = fetch_weights(url)
    assert path == cached_weights(url)
    assert path.read_bytes() == b"abcdef"
    path.write_bytes(b"kept")
    assert fetch_weights(url).read_bytes() == b"kept"


def test_a_broken_download_leaves_nothing_behind(server):
    url = f"{server}/broken.pth"
    with pytest.raises(DetectionError, match=r"broken\.pth cannot be downloaded"):
        fetch_weights(url)
    assert list(cached_weights(url).parent.iterdir()) == []


def test_what_nobody_serves_is_not_reachable(offline):
    assert not is_reachable(f"{NOWHERE}/weights.pth")
