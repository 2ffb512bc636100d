"""evaluate.py on a folder as train.py leaves it, made here in a second."""

import shutil

import numpy as np
import pytest
import soundfile
import torch

from fedenhance.commands import evaluate
from fedenhance.data.tables import read_table, write_table
from fedenhance.deploy.description import vouch
from fedenhance.deploy.trained import find_best, load_trained
from fedenhance.reports.scores import read_rows
from tests import damage

RATE = 16000
HPARAMS = """
output_folder: nowhere
data_folder: {data}
sample_rate: 16000
mixing: !new:fedenhance.data.mixing.MixtureOfMixtures
    sample_rate: !ref <sample_rate>
modules:
    separator: !new:tests.fedenhance.commands.test_evaluate.Gains
consistency: !name:fedenhance.objectives.consistency.uniform
"""


class Gains(torch.nn.Module):
    """The simplest separator: one gain per source."""

    def __init__(self):
        super().__init__()
        self.gains = torch.nn.Parameter(torch.ones(3))

    def forward(self, mixture):
        return self.gains[:, None] * mixture[:, None]


class LowPass(Gains):
    """Speech is what is left of a moving average over three samples."""

    def forward(self, mixture):
        smooth = (mixture.roll(1, -1) + 2 * mixture + mixture.roll(-1, -1)) / 4
        return torch.stack([smooth, mixture - smooth, 0 * mixture], dim=1)


def save_run(folder, data, separator="Gains", metas=({"round": 1},)):
    """A folder with checkpoints whose gains are 1, 2, ..."""
    folder.mkdir()
    text = HPARAMS.format(data=data).replace("Gains", separator)
    (folder / "hyperparams.yaml").write_text(text)
    vouch(folder)
    for i, meta in enumerate(metas):
        checkpoint = folder / "save" / f"CKPT+{i}"
        checkpoint.mkdir(parents=True)
        gains = {"gains": torch.full((3,), float(i + 1))}
        torch.save(gains, checkpoint / "separator.ckpt")
        lines = [f"{key}: {value}" for key, value in meta.items()]
        lines += ["end-of-epoch: true", f"unixtime: {i}"]
        (checkpoint / "CKPT.yaml").write_text("\n".join(lines) + "\n")
    return folder


def tone(frequency, seconds=1.0):
    time = np.arange(int(seconds * RATE)) / RATE
    return 0.1 * np.sin(2 * np.pi * frequency * time)


@pytest.fixture
def data(tmp_path):
    """Low speech and high noises, as files and in manifests."""
    folder = tmp_path / "data"
    folder.mkdir()
    soundfile.write(folder / "speech.wav", tone(200), RATE, subtype="FLOAT")
    soundfile.write(folder / "hiss.wav", tone(7000), RATE, subtype="FLOAT")
    soundfile.write(folder / "beep.wav", tone(7900), RATE, subtype="FLOAT")
    recording = tone(200) + 0.1 * tone(7000)
    soundfile.write(folder / "noisy.wav", recording, RATE, subtype="FLOAT")
    return folder


def write_manifest(path, rows):
    write_table(path, rows)
    return path


def mixture_rows():
    common = {"duration": 1.0, "spk_id": "84", "noise_class": "Hiss"}
    speech, noise = "$data_root/speech.wav", "$data_root/hiss.wav"
    return [
        # 0 dB as they are; 20 dB with a gain of 0.1 (the tones are equally loud).
        {**common, "ID": "loud", "speech": speech, "noise": noise},
        {
            **common,
            "ID": "faint",
            "speech": speech,
            "noise": noise,
            "noise_gain": 0.1,
        },
        {
            **common,
            "ID": "two",
            "speech": speech,
            "noise": noise,
            "extra": "$data_root/beep.wav",
        },
        {**common, "ID": "real", "speech": speech, "noisy": "$data_root/noisy.wav"},
    ]


@pytest.fixture
def run(tmp_path, data):
    folder = save_run(tmp_path / "run", data)
    write_manifest(folder / "test_mixtures.csv", mixture_rows())
    return folder


def test_scores_by_hand(run):
    evaluate.main([str(run), "--processes", "1"])
    rows = {row["id"]: row for row in read_rows(run / "evaluation/utterances.csv")}
    assert rows["loud"]["si_sdr_in"] == pytest.approx(0, abs=0.01)
    assert rows["faint"]["si_sdr_in"] == pytest.approx(20, abs=0.01)
    assert rows["two"]["si_sdr_in"] == pytest.approx(-3.01, abs=0.01)
    # The recording and its clean speech: noise of a tenth.
    assert rows["real"]["si_sdr_in"] == pytest.approx(20, abs=0.01)
    # Equal gains and uniform consistency: each estimate is a third of the mixture.
    for row in rows.values():
        assert row["si_sdri"] == pytest.approx(0, abs=0.01)
    assert [rows[key]["n_noises"] for key in ("loud", "two")] == ["1", "2"]
    summary = read_table(run / "evaluation" / "summary.csv")
    everything = {"grouping": "all", "group": "all", "metric": "si_sdr_in", "n": "4"}
    assert summary[0].items() >= everything.items()
    figure = run / "evaluation" / "summary_si_sdr.png"
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_moved_folder_and_other_mixtures(run, data, tmp_path, capsys):
    moved = str(shutil.move(run, tmp_path / "elsewhere"))
    manifest = write_manifest(tmp_path / "mine.csv", mixture_rows()[:2])
    out = tmp_path / "out"
    evaluate.main(
        [moved, "--test_mixtures", str(manifest), "--out", str(out), "--processes", "1"]
    )
    assert len(read_rows(out / "utterances.csv")) == 2
    assert "| all | si_sdri | 2 | 0 |" in capsys.readouterr().out


def test_data_root_can_be_given(run, data, tmp_path):
    moved = str(shutil.move(data, tmp_path / "disk"))
    arguments = [str(run), "--processes", "1"]
    evaluate.main([*arguments, "--data_root", moved])
    assert len(read_rows(run / "evaluation/utterances.csv")) == 4


def test_recordings_without_references_are_not_scored_0(run, data, tmp_path):
    rows = [
        *mixture_rows()[:1],
        {"ID": "unknown", "duration": 1.0, "noisy": "$data_root/noisy.wav"},
    ]
    manifest = write_manifest(tmp_path / "mine.csv", rows)
    (line,) = [
        line
        for line in evaluate.main(
            [str(run), "--test_mixtures", str(manifest), "--processes", "1"]
        )
        if line["grouping"] == "all" and line["metric"] == "si_sdr"
    ]
    assert (line["n"], line["failures"]) == (1, 1)
    (_, unknown) = read_rows(run / "evaluation/utterances.csv")
    assert "no clean reference" in unknown["failures"]


def test_comparison_by_hand(run, data, tmp_path, capsys):
    # Speech at 200 Hz passes the moving average; of noise at 7000 Hz, cos(7/16 pi) ** 2
    # is left: 28.4 dB less.
    other = save_run(tmp_path / "other", data, "LowPass")
    mixtures = write_manifest(tmp_path / "mixtures.csv", mixture_rows()[:2])
    for folder in (run, other):
        evaluate.main(
            [str(folder), "--test_mixtures", str(mixtures), "--processes", "1"]
        )
    out = tmp_path / "comparison"
    summary = evaluate.main(["compare", str(other), str(run), "--out", str(out)])
    (overall,) = [line for line in summary if line["grouping"] == "all"]
    expected = -40 * np.log10(np.cos(7 / 16 * np.pi))
    assert overall["mean"] == pytest.approx(expected, abs=0.1)
    assert overall["wins"] == 1.0
    assert (out / "comparison_si_sdr.png").exists()
    assert "100%" in capsys.readouterr().out


def test_scoring_is_the_command_that_may_be_left_out(capsys):
    for argv in (["folder"], ["score", "folder"], ["--device", "cpu", "folder"]):
        options = evaluate.parse(argv)
        assert (options.command, str(options.folder)) == ("score", "folder")
    options = evaluate.parse(["compare", "a", "b"])
    assert (options.command, str(options.out)) == ("compare", "comparison")
    for argv in ([], ["compare", "a"]):
        with pytest.raises(SystemExit):
            evaluate.parse(argv)
    assert "the following arguments are required: b" in capsys.readouterr().err


def test_comparison_asks_for_scores(run):
    with pytest.raises(FileNotFoundError, match="run python evaluate.py"):
        evaluate.main(["compare", str(run), str(run)])


@pytest.mark.parametrize(
    ("metas", "gain"),
    [
        ([{"round": 1}, {"round": 2}], 2),
        ([{"si_sdri": 9.0, "loss": 0.0}, {"si_sdri": 3.0, "loss": -5.0}], 1),
        ([{"loss": -5.0}, {"loss": 1.0}], 1),
    ],
)
def test_the_best_model_is_loaded(tmp_path, data, metas, gain):
    folder = save_run(tmp_path / "run", data, metas=metas)
    trained = load_trained(folder)
    assert trained.separator.gains.tolist() == [gain] * 3
    assert trained(torch.randn(2, 100)).shape == (2, 3, 100)


def test_folders_that_hold_no_model_are_named(tmp_path, data):
    with pytest.raises(FileNotFoundError, match="no hyperparams.yaml"):
        load_trained(tmp_path)
    folder = save_run(tmp_path / "run", data, metas=())
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        load_trained(folder)
    assert find_best(folder / "save") is None


def test_damaged_mixtures_are_named_and_counted(run, data, tmp_path, caplog, capsys):
    rows = mixture_rows()[:1]
    rows[0].pop("duration")  # as long as its file
    for path in damage.write(data):
        rows.append({"ID": path.name, "noisy": str(path)})
    manifest = write_manifest(tmp_path / "mine.csv", rows)
    evaluate.main([str(run), "--test_mixtures", str(manifest), "--processes", "1"])
    number = len(rows)
    told = f"{number - 1} of {number} mixtures are damaged and left out"
    assert told in capsys.readouterr().out
    assert len(read_rows(run / "evaluation/utterances.csv")) == 1
    for row in rows[1:]:
        assert row["noisy"] in caplog.text


@pytest.fixture
def files(tmp_path):
    """Speech, speech with a tenth of noise, and with a hundredth, as files."""
    noise = np.random.default_rng(0).normal(0, 0.1, RATE)
    for folder, gain in (("references", 0), ("noisy", 0.1), ("enhanced", 0.01)):
        (tmp_path / folder / "day").mkdir(parents=True)
        for i, name in enumerate(("a.wav", "day/b.flac")):
            signal = tone(200 + 100 * i) + gain * noise
            soundfile.write(tmp_path / folder / name, signal, RATE)
    return tmp_path


def test_files_are_paired_by_name(files, capsys):
    (files / "enhanced/day/b.flac").rename(files / "enhanced/day/b.wav")
    soundfile.write(files / "enhanced/c.wav", tone(200), RATE)
    words = [f"--{k}={files / k}" for k in ("enhanced", "references", "noisy")]
    evaluate.main([*words, "--metrics", "si_sdr", "--processes", "1"])
    rows = read_rows(files / "enhanced/evaluation/utterances.csv")
    assert [row["id"] for row in rows] == ["a", "day/b"]
    for row in rows:
        assert row["si_sdri"] == pytest.approx(20, abs=1)
    assert "left out c: not in" in capsys.readouterr().out


def test_without_noisy_files_there_is_no_improvement(files):
    words = [f"--{k}={files / k}" for k in ("enhanced", "references")]
    summary = evaluate.main([*words, "--metrics", "si_sdr", "--processes", "1"])
    assert {line["metric"] for line in summary} == {"si_sdr"}


def test_files_that_cannot_be_pairs_are_told(files, tmp_path, capsys):
    words = [f"--{k}={files / k}" for k in ("enhanced", "references")]
    soundfile.write(files / "enhanced/a.wav", tone(200, 2.0), RATE)
    evaluate.main([*words, "--metrics", "si_sdr", "--processes", "1"])
    assert "left out a: enhanced 2.00 s, references 1.00 s" in capsys.readouterr().out
    with pytest.raises(ValueError, match="si_sdr needs --references"):
        evaluate.main([words[0], "--metrics", "si_sdr"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no recordings in"):
        evaluate.main([words[0], f"--references={tmp_path / 'empty'}"])
    with pytest.raises(SystemExit):
        evaluate.main(["--metrics", "si_sdr"])
    assert "name one: an output folder" in capsys.readouterr().err
