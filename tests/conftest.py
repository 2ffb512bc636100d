"""One thread and a quiet environment for every test; a corpus of a few seconds."""

import contextlib
import gc
import logging
import os
import random
import sys
import tempfile

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Not the key of who runs the tests.
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp()

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402

# absl, which the accountant of privacy brings, closes the standard error that it was
# first imported with, unless it is the process's own; pytest's capture is not.
with contextlib.suppress(ImportError), contextlib.redirect_stderr(sys.__stderr__):
    import absl.logging  # noqa: F401

RATE = 8000
SPLITS = {"train": ["a", "b", "c", "d"], "valid": ["e"], "test": ["f"]}


def pytest_configure():
    """Leave the other cores alone; doctests outside tests/ are covered as well."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    """Let no test depend on the tests before it."""
    gc.unfreeze()  # commands freeze what they have imported
    logging.disable(logging.NOTSET)  # benchmarks leave it off
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory):
    """Manifests of tones in noise: four rows a speaker, half a second each.

    Returns
    -------
    Path
        Folder with train.csv, valid.csv and test.csv, and the audio beside them.
    """
    folder = tmp_path_factory.mktemp("tiny")
    generator = np.random.default_rng(0)
    time = np.arange(RATE // 2) / RATE
    for split, speakers in SPLITS.items():
        lines = ["ID,duration,spk_id,speech,noise,noise_class"]
        for index, speaker in enumerate(speakers):
            for row in range(4):
                name = f"{speaker}{row}"
                tone = 0.1 * np.sin(2 * np.pi * (200 + 40 * index) * time)
                noise = generator.normal(0, 0.1, len(time))
                soundfile.write(folder / f"{name}_speech.wav", tone, RATE)
                soundfile.write(folder / f"{name}_noise.wav", noise, RATE)
                files = f"$data_root/{name}_speech.wav,$data_root/{name}_noise.wav"
                lines.append(f"{name},0.5,{speaker},{files},Hiss")
        (folder / f"{split}.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def fake_ffmpeg(tmp_path, monkeypatch):
    """A program that copies what it is given, and refuses what is text."""
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "source = sys.argv[sys.argv.index('-i') + 1].removeprefix('file:')\n"
        "data = open(source, 'rb').read()\n"
        "if data[:4] != b'RIFF':\n"
        "    sys.exit(f'{source}: Invalid data found')\n"
        "open(sys.argv[-1], 'wb').write(data)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    from fedenhance.data import folders

    folders.ffmpeg.cache_clear()
    yield str(program)
    folders.ffmpeg.cache_clear()
