"""A folder belongs to one experiment, and to one process at a time."""

import json
import multiprocessing
import os
import signal

import pytest

from fedenhance.commands import train
from fedenhance.run_folder import record
from fedenhance.run_folder.commands import of_now
from fedenhance.run_folder.record import claimed, digests, locked
from fedenhance.training.settings import read_command

YAML = """
seed: 1
output_folder: !ref results/<seed>
save_folder: !ref <output_folder>/save
manifest_folder: !ref <output_folder>/manifests
n_clients: 4
p_supervised: 0
learning_rate: 0.001
maximize: si_sdri
weighting: !name:fed.weighting.by_examples
rounds: 2
live: []
runtime: process
train_dataloader_opts: {batch_size: 4, num_workers: 0, extra: null}
federation:
    rounds: !ref <rounds>
    n_clients: !ref <n_clients>
    sinks: !ref <live>
    maximize: !ref <maximize>
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Run train.py with what stands for training.

    Each round adds to rounds.csv which settings trained it; a run that finds a state
    goes on from it, whatever made that.
    """
    path = tmp_path / "experiment.yaml"
    path.write_text(YAML)

    def run(command, claim):
        folder = command.folder
        (folder / "save").mkdir(exist_ok=True)
        state, table = folder / "save/federation.pt", folder / "rounds.csv"
        values = {**DEFAULTS, **command.values, **command.run_opts}
        text = " ".join(str(values[key]) for key in MATTERING)
        text = text.replace("valid_", "") + str(
            values["train_dataloader_opts"]["extra"]
        )
        values["manifest_folder"] = folder / "manifests"
        claim.check_data(digests(values), folder / "manifests")
        rows = state.read_text().splitlines() if state.exists() else []
        rows += [text] * (values["rounds"] - len(rows))
        state.write_text("\n".join(rows))
        table.write_text("\n".join(rows))
        (folder / "hyperparams.yaml").write_text(text)
        return rows

    monkeypatch.setattr(train, "run", run)

    def start(*options, folder="out", yaml=path):
        place = ["--output_folder", str(tmp_path / folder)] if folder else []
        return train.main([str(yaml), *place, *options])

    return start


MATTERING = (
    *("seed", "n_clients", "p_supervised", "learning_rate", "maximize", "weighting"),
    *("precision", "grad_accumulation_factor"),
)
DEFAULTS = {"precision": "fp32", "grad_accumulation_factor": 1}


def snapshot(folder):
    """All files of a folder, with what is in them."""
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_refusal_names_what_differs_once_and_two_ways_on(start, tmp_path):
    start("--p_supervised", "0")
    with pytest.raises(
        ValueError,
        match="out holds another experiment: n_clients is 4 there, not 2; p_supervised "
        r"is 0 there, not 1 \(of .*experiment.yaml\)\. Give another --output_folder, "
        "or --restart",
    ):
        start("--p_supervised", "1", "--n_clients", "2")
    start("--p_supervised", "1", "--n_clients", "2", folder="other")


def test_another_yaml_is_refused_with_its_name(start, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(YAML.replace("by_examples", "uniform"))
    start()
    with pytest.raises(ValueError, match=r"weighting is '!name:fed.weighting.by_exam"):
        start(yaml=other)


def test_a_run_may_grow_and_not_shrink(start):
    assert len(start()) == 2
    assert len(start("--rounds", "3", "--device", "cpu", "--noprogressbar")) == 3
    with pytest.raises(ValueError, match="rounds is 3 there, not 2"):
        start()


def test_restart_removes_what_the_run_left_and_nothing_else(start, tmp_path):
    start()
    mine = tmp_path / "out/notes.txt"
    mine.write_text("mine")
    (tmp_path / "out/figures").mkdir()
    rows = start("--p_supervised", "1", "--restart")
    assert rows == start("--p_supervised", "1", folder="other")
    assert mine.read_text() == "mine"
    assert not (tmp_path / "out/figures").exists()


def test_settings_can_be_mended_until_something_is_trained(
    start, tmp_path, monkeypatch
):
    stand_in = train.run

    def fail(command, claim):
        raise ValueError("5 clients")

    monkeypatch.setattr(train, "run", fail)
    with pytest.raises(ValueError, match="5 clients"):
        start("--n_clients", "5")
    monkeypatch.setattr(train, "run", stand_in)
    start("--n_clients", "4")


def test_other_data_are_refused(start, tmp_path):
    start()
    (tmp_path / "out/manifests").mkdir()
    table = tmp_path / "out/manifests/train.csv"
    table.write_text("ID\na\n")
    start()
    table.write_text("ID\nb\n")
    with pytest.raises(ValueError, match="train.csv in .*manifests is not what it was"):
        start()


def test_tables_and_noises_that_lie_elsewhere_are_data_too(start, tmp_path):
    noises = tmp_path / "noises"
    noises.mkdir()
    table = tmp_path / "mine.csv"
    table.write_text("ID\na\n")
    yaml = tmp_path / "mine.yaml"
    yaml.write_text(f"{YAML}test_csv: [{table}]\nnoise_folder: {noises}\n")
    start(yaml=yaml)
    start(yaml=yaml)
    (noises / "hiss.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"experiment: \S+/noises is not what it was"):
        start(yaml=yaml)
    (noises / "hiss.wav").unlink()
    table.write_text("ID\nb\n")
    with pytest.raises(ValueError, match=r"experiment: \S+/mine.csv is not what it w"):
        start(yaml=yaml)


def test_audio_that_is_replaced_under_the_same_manifest_is_other_data(start, tmp_path):
    audio, told = tmp_path / "a.wav", tmp_path / "out/run.json"
    audio.write_bytes(b"RIFF")
    (tmp_path / "mine.csv").write_text("ID;noisy\na;$data_root/a.wav\n")
    yaml = tmp_path / "mine.yaml"
    own = f"train_csv: {tmp_path}/mine.csv\ndata_folder: {tmp_path}\n"
    yaml.write_text(YAML + own)
    start(yaml=yaml)
    start(yaml=yaml)
    audio.write_bytes(b"RIFF and more")
    before = told.read_text()
    with pytest.raises(ValueError, match=r"audio in \S+/manifests is not what it was"):
        start(yaml=yaml)
    assert told.read_text() == before
    record = json.loads(before)
    del record["data"]["audio"]  # as older versions have it
    told.write_text(json.dumps(record))
    start(yaml=yaml)
    audio.unlink()
    with pytest.raises(ValueError, match="audio in"):
        start(yaml=yaml)


def test_testing_finishes_no_run(start, tmp_path):
    with pytest.raises(ValueError, match="out holds no model that could be tested"):
        start("--test_only")
    start()
    told = tmp_path / "out/run.json"
    for rounds, finished in ((2, True), (3, False)):
        start("--test_only", "--rounds", str(rounds))
        assert json.loads(told.read_text())["finished"] is finished


def test_a_debug_run_leaves_a_real_one_as_it_is(start, tmp_path):
    start("--debug", "--rounds", "1")
    assert not (tmp_path / "out/save").exists()
    start()
    before = snapshot(tmp_path / "out/save")
    assert len(start("--debug", "--rounds", "3")) == 3
    assert snapshot(tmp_path / "out/save") == before
    told = json.loads((tmp_path / "out/debug/run.json").read_text())
    assert told["debug"]
    assert len(start("--debug", "--rounds", "1")) == 1  # not resumed


def test_the_record_says_what_a_run_is(start, tmp_path):
    start("--p_supervised", "0.5")
    told = json.loads((tmp_path / "out/run.json").read_text())
    assert told["metric"] == "maximize si_sdri"
    assert told["settings"]["p_supervised"] == 0.5
    assert told["settings"]["federation.n_clients"] == 4
    assert told["sources"] == [str(tmp_path / "experiment.yaml")]
    assert told["code"] == [record.version()]
    assert told["finished"] and not told["debug"]


def test_new_code_is_told_and_recorded(start, tmp_path, monkeypatch, caplog):
    start()
    monkeypatch.setattr(record, "version", lambda: "newer")
    start("--rounds", "3")
    assert "Going on with other code" in caplog.text
    assert json.loads((tmp_path / "out/run.json").read_text())["code"][1:] == ["newer"]


def test_a_run_older_than_records_is_told_by_its_hyperparams(start, tmp_path):
    start()
    (tmp_path / "out/run.json").unlink()
    command = read_command([str(tmp_path / "experiment.yaml")])
    with pytest.raises(ValueError, match="holds a model, and no run.json"):
        (tmp_path / "out/hyperparams.yaml").unlink()
        start()
    text = YAML.replace("!ref results/<seed>", str(tmp_path / "out"))
    (tmp_path / "out/hyperparams.yaml").write_text(text)
    with pytest.raises(ValueError, match="n_clients is 4 there, not 2"):
        start("--n_clients", "2")
    start()
    assert command.settings


def hold(folder, held):
    """Hold the lock of a folder until killed."""
    with locked(folder):
        held.set()
        signal.pause()


def test_one_process_at_a_time_and_a_lock_dies_with_its_process(start, tmp_path):
    start()
    context = multiprocessing.get_context("fork")
    held = context.Event()
    other = context.Process(target=hold, args=(tmp_path / "out", held))
    other.start()
    assert held.wait(60)
    with pytest.raises(ValueError, match=rf"out is in use: process {other.pid} trains"):
        start()
    with pytest.raises(ValueError, match=rf"process {other.pid}"):
        start("--restart")
    other.kill()
    other.join()
    start()


def test_what_trains_for_a_run_leaves_its_folder_to_it(start, tmp_path):
    argv = [str(tmp_path / "experiment.yaml"), "--output_folder", str(tmp_path / "out")]
    with claimed(read_command(argv)):
        assert os.environ[record.WORKER] == "1"
        start("--n_clients", "2")  # as a process of a client would
    assert record.WORKER not in os.environ
    told = json.loads((tmp_path / "out/run.json").read_text())
    assert told["settings"]["n_clients"] == 4


def test_networks_that_said_their_statistics_are_not_frozen_say_what_they_say_now():
    said = {"models.frozen_statistics": False, "a.masknet.frozen_statistics": False}
    assert of_now({"frozen_statistics": False, **said}) == {"frozen_statistics": False}
    assert of_now({"models.frozen_statistics": True})
