"""Small corpora on disk, and a file server that misbehaves on demand."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile

LABELS = {
    "Rain": "Rain,Water",
    "Bark": "Bark,Dog,Domestic_animals_and_pets,Animal",
    "Speech": "Speech,Human_voice",
}


def wave(seconds, rate, seed=0):
    rng = np.random.default_rng(seed)
    return 0.1 * rng.standard_normal(round(seconds * rate))


def write(path, seconds, rate, seed=0, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = wave(seconds, rate, seed)
    if channels > 1:
        samples = np.stack([samples] * channels, axis=1)
    soundfile.write(path, samples, rate)


def write_truth(root, part, rows, encoding="utf-8"):
    folder = root / "FSD50K" / "FSD50K.ground_truth"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["fname,labels,mids"] + [f'{name},"{labels}",""' for name, labels in rows]
    (folder / f"{part}.csv").write_text("\n".join(lines) + "\n", encoding=encoding)


def make_corpus(root, reverse=False):
    """A corpus of seconds: 2 + 1 + 1 speakers, 10 + 4 clips, two of them voices.

    Utterances last 9 s (two whole chunks), clips 8.5 or 3 s (two chunks, or one that is
    padded). ``reverse`` creates the files in the other order.
    """
    files = []
    for subset, speakers in (
        ("train-clean-100", (19, 103)),
        ("dev-clean", (84,)),
        ("test-clean", (61,)),
    ):
        for speaker in speakers:
            for number in range(3):
                name = f"{speaker}-7-{number:04d}.flac"
                path = root / "LibriSpeech" / subset / str(speaker) / "7" / name
                files.append((path, 9.0, 16000, speaker * 10 + number))
    tables = {"dev": [], "eval": []}
    for part, first, count in (("dev", 100, 10), ("eval", 200, 4)):
        for clip in range(first, first + count):
            label = ("Rain", "Bark")[clip % 2] if clip % 10 else "Speech"
            tables[part].append((clip, LABELS[label]))
            path = root / "FSD50K" / f"FSD50K.{part}_audio" / f"{clip}.wav"
            files.append((path, 3.0 if clip % 3 == 0 else 8.5, 44100, clip))
    for path, seconds, rate, seed in reversed(files) if reverse else files:
        write(path, seconds, rate, seed)
    for part, rows in tables.items():
        write_truth(root, part, rows)
    names = sorted({label for labels in LABELS.values() for label in labels.split(",")})
    vocabulary = root / "FSD50K" / "FSD50K.ground_truth" / "vocabulary.csv"
    vocabulary.write_text("".join(f"{i},{n},/m/{i}\n" for i, n in enumerate(names)))
    return root


@pytest.fixture(scope="session")
def shared_corpus(tmp_path_factory):
    """A corpus that no test changes."""
    return make_corpus(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def corpus(tmp_path):
    """A corpus of one's own."""
    return make_corpus(tmp_path / "data")


class FileServer(ThreadingHTTPServer):
    """Serves ``files``; ``drop_after``, ``ranges``, ``stall`` and ``down`` spoil it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.requests = {}, []
        self.drop_after = []  # bytes after which the next answers end
        self.ranges = True
        self.stall = 0.0  # seconds of silence in the first answer
        self.down = 0  # answers of 503 before the first good one

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_):
        """Lost clients are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
        server, name = self.server, self.path.strip("/")
        wanted = self.headers.get("Range")
        server.requests.append((name, wanted))
        if server.down:
            server.down -= 1
            return self.send_error(503)
        if name not in server.files:
            return self.send_error(404)
        body, start = server.files[name], 0
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            place = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.send_header("Content-Range", place)
        self.end_headers()
        stop = start + server.drop_after.pop(0) if server.drop_after else len(body)
        self.wfile.write(body[start:stop])
        self.wfile.flush()
        if server.stall:
            stall, server.stall = server.stall, 0.0
            time.sleep(stall)
        self.close_connection = True

    def log_message(self, *_):
        """No lines in the output of the tests."""


@pytest.fixture
def server():
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)
