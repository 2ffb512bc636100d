"""The page in a browser gives what PyTorch gives.

Where chromium is, and onnxruntime-web: ``npm pack onnxruntime-web@1.22.0``, unpacked to
the folder that ORT_WEB names.
"""

import base64
import functools
import http.server
import os
import queue
import re
import shutil
import subprocess
import threading
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from fedenhance.deploy.trained import load_trained
from tests.fedenhance.deploy.test_live import exported, noise, run  # noqa: F401

DEMO = Path(__file__).parents[2] / "docs" / "demo"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ORT_WEB = os.environ.get("ORT_WEB", "")


#: Sends the page as it is once it has an answer.
REPORT = """<script>
setInterval(() => {
  const failed = /^This failed/.test(document.getElementById("status").textContent);
  if (failed || document.getElementById("clean").hasAttribute("src"))
    fetch("/done", { method: "POST", body: document.documentElement.outerHTML });
}, 200);
</script>
"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and keeps what is posted."""

    def log_message(self, *args):
        pass

    def do_POST(self):
        self.server.posted.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()


@pytest.fixture
def served(tmp_path):
    """A folder, where it is served, and what was posted there."""
    handler = functools.partial(Handler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.posted = queue.Queue()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}", server.posted
    server.shutdown()
    server.server_close()
    thread.join()


def write_wav(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.astype("<i2").tobytes())


def sound(page, name):
    """The samples of a player of the page."""
    found = re.search(rf'id="{name}"[^>]*src="data:audio/wav;base64,([^"]+)"', page)
    assert found, re.search(r'role="status">([^<]*)', page)[1]
    return np.frombuffer(base64.b64decode(found[1])[44:], "<i2") / 32767


@pytest.mark.skipif(
    not (CHROMIUM and Path(ORT_WEB, "ort.wasm.min.mjs").is_file()),
    reason="needs chromium, and ORT_WEB with onnxruntime-web's files",
)
def test_the_page_gives_what_pytorch_gives(served, run, exported):  # noqa: F811
    folder, address, posted = served
    (folder / "index.html").write_text((DEMO / "index.html").read_text() + REPORT)
    shutil.copy(exported, folder / "live.onnx")
    (folder / "ort").symlink_to(Path(ORT_WEB).resolve())
    noisy = (noise(4000)[0].numpy() * 32768).round()
    write_wav(folder / "noisy.wav", noisy)
    browser = subprocess.Popen(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"),
            *(f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0"),
            f"{address}/index.html?ort={address}/ort/&audio=noisy.wav",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        page = posted.get(timeout=100).decode()
    finally:
        browser.terminate()
        browser.wait()
    np.testing.assert_allclose(sound(page, "noisy"), noisy / 32768, atol=1e-4)
    mixture = torch.from_numpy(noisy / 32768).float().unsqueeze(0)
    expected = load_trained(run)(mixture)[0, 0].numpy()
    np.testing.assert_allclose(sound(page, "clean"), expected, atol=1e-4)
    assert "real-time factor" in page


def test_the_page_is_one_file_that_names_one_version_of_onnxruntime():
    page = (DEMO / "index.html").read_text()
    outside = set(re.findall(r"https?://[^\"\s]+", page))
    assert outside == {"https://cdn.jsdelivr.net/npm/onnxruntime-web@1.22.0/dist/"}
