"""Lists of experiments: what is trained, what is skipped, what is said."""

import shlex
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import yaml

from fedenhance.based_yaml import PACKAGE
from fedenhance.commands import experiments
from fedenhance.run_folder.record import claimed
from fedenhance.training.settings import read_command
from tests.test_yaml import top_level

LISTS = sorted(PACKAGE.glob("recipes/*/experiments.yaml"))


def finish(command):
    """Leave what a run of train.py leaves, in short."""
    with claimed(read_command(command[len(experiments.TRAIN) :])) as claim:
        (claim.folder / "save").mkdir(exist_ok=True)
        (claim.folder / "save" / "federation.pt").touch()


@pytest.fixture
def listed(tmp_path):
    """A list with a sweep, and with an experiment of another YAML file."""
    path = tmp_path / "corpus" / "experiments.yaml"
    path.parent.mkdir()
    path.write_text(
        "hparams: hparams/fedenhance.yaml\n"
        "options: {rounds: 2}\n"
        "experiments:\n"
        "  plain: {n_clients: 4, initial_model: '{results}/other/{seed}'}\n"
        "  sweep: {each: {selected_clients: [[0], [1, 2]]}}\n"
        "  other: {hparams: hparams/centralized.yaml, before: make.data here --fast}\n"
    )
    return path


@pytest.fixture
def trained(monkeypatch):
    """Folders that were trained, with what each run returned; nothing is run."""
    done, codes = [], {}

    class Finished:
        def __init__(self, command, check, env, **where):
            self.returncode = 0
            folder = command[command.index("--output_folder") + 1]
            done.append("/".join(folder.split("/")[-2:]))
            self.returncode = codes.get(done[-1], 0)
            if not self.returncode:
                finish(command)

    def main(arguments):
        done.append(" ".join(["make.data", *arguments]))

    modules = {"make.data": SimpleNamespace(main=main)}
    monkeypatch.setattr(experiments, "import_module", modules.get)
    monkeypatch.setattr(experiments.subprocess, "run", Finished)
    monkeypatch.setattr(experiments, "tell", lambda folders, path: None)
    return done, codes


def run(listed, *argv):
    results = listed.parent.parent / "results"
    experiments.main([str(listed), *argv, "--results", str(results)])


def test_a_sweep_is_written_out_and_options_are_for_one_yaml(listed):
    assert experiments.read_list(listed) == {
        "plain": (
            "hparams/fedenhance.yaml",
            {"rounds": 2, "n_clients": 4, "initial_model": "{results}/other/{seed}"},
            None,
        ),
        "sweep_0": (
            "hparams/fedenhance.yaml",
            {"rounds": 2, "selected_clients": [0]},
            None,
        ),
        "sweep_1_2": (
            "hparams/fedenhance.yaml",
            {"rounds": 2, "selected_clients": [1, 2]},
            None,
        ),
        "other": ("hparams/centralized.yaml", {}, "make.data here --fast"),
    }


def test_an_unknown_experiment_is_named(listed):
    with pytest.raises(ValueError, match="no experiment plane; it has plain, sweep"):
        experiments.read_list(listed, ["plane"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: {each: {p_supervised: [0, 1], average: [0]}}", "two runs are named a_0"),
        ("a_0: {}, a: {each: {p_supervised: [0]}}", "two runs are named a_0"),
        ("a: {rounds: 1}, a: {rounds: 2}", "a stands there twice"),
        ("a: {each: {data_folder: abc}}", "needs a list of values of data_folder"),
        ("a: {each: {p_supervised: []}}", "needs a list of values of p_supervised"),
        ("a: {each: 3}", "each, of a, must be a mapping, not 3"),
        ("a: [rounds, 3]", r"a must be a mapping, not \['rounds', 3\]"),
        ("a: {seed: 7}", "a has seed, which --seeds says for all runs"),
        ("a: {output_folder: x}", "a has output_folder, which --results says"),
        ("a/b: {}", "'a/b' is no name of a folder"),
        ("..: {}", "'..' is no name of a folder"),
        ("a: {}}\noption: {rounds: 3", "has a key option; did you mean options"),
        ("a: {}}\noptions: [3", None),
    ],
)
def test_nothing_of_a_list_is_lost_without_a_word(tmp_path, text, told):
    path = tmp_path / "list.yaml"
    head = "hparams: hparams/fedenhance.yaml\n"
    end = "]" if told is None else "}"
    path.write_text(f"{head}experiments: {{{text}{end}\n")
    with pytest.raises(ValueError, match=told or "options must be a mapping") as error:
        experiments.read_list(path)
    assert str(error.value).startswith(str(path))


def test_what_lists_leave_out_is_said_or_empty(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("options:\nexperiments: {8: }\n")
    with pytest.raises(ValueError, match="8 has no hparams, and neither has the list"):
        experiments.read_list(path)
    path.write_text("hparams: h.yaml\noptions:\nexperiments: {8: {each: }}\n")
    assert experiments.read_list(path) == {"8": ("h.yaml", {}, None)}


def test_paths_reach_train_as_they_are_and_name_one_folder(tmp_path):
    places = ["/a/clips #2", "/b/clips: new", "/c/it's, ü"]
    path = tmp_path / "list.yaml"
    sweep = {"each": {"data_folder": places}}
    listed = {"hparams": "hparams/fedenhance.yaml", "experiments": {"a": sweep}}
    path.write_text(yaml.safe_dump(listed, allow_unicode=True))
    for name, (hparams, own, _) in experiments.read_list(path).items():
        assert "/" not in name
        command = experiments.command_of(hparams, own, tmp_path / name / "1", 1, [])
        values = read_command(command[len(experiments.TRAIN) :]).values
        assert values["data_folder"] == places.pop(0)
    with pytest.raises(ValueError, match="live is .*other braces twice"):
        experiments.command_of(hparams, {"live": "[{a: 1}]"}, tmp_path, 1, [])


def test_commands_name_seed_folder_and_earlier_results(listed, capsys, trained):
    run(listed, "plain", "--seeds", "7", "--dry_run", "--device", "cuda")
    results = listed.parent.parent / "results"
    command = shlex.split(capsys.readouterr().out)
    assert command[len(experiments.TRAIN) :] == [
        *(str(PACKAGE / "hparams/fedenhance.yaml"), "--seed", "7"),
        *("--output_folder", str(results / "plain" / "7"), "--rounds", "2"),
        *("--n_clients", "4", "--initial_model", str(results / "other" / "7")),
        *("--device", "cuda"),
    ]
    assert trained[0] == []


def test_what_is_finished_is_skipped_and_what_failed_is_run_again(listed, trained):
    done, codes = trained
    codes["sweep_0/1"] = 1
    with pytest.raises(ValueError, match="failed .*sweep_0/1"):
        run(listed, "--seeds", "1")
    made = "make.data here --fast"
    assert done == [made, "plain/1", "sweep_0/1", "sweep_1_2/1", "other/1"]
    codes.clear()
    run(listed, "--seeds", "1", "2")
    second = ["plain/2", "sweep_0/2", "sweep_1_2/2", "other/2"]
    assert done[5:] == [made, "sweep_0/1", *second]


def test_another_experiment_in_the_same_folder_is_refused(listed, trained):
    run(listed, "plain", "--seeds", "1")
    with pytest.raises(ValueError, match="plain/1 holds .*: batch_size is 4 th"):
        run(listed, "plain", "--seeds", "1", "--batch_size", "2")


def test_done_is_what_has_the_same_settings_and_enough_rounds(listed, trained):
    done, _ = trained
    run(listed, "plain", "--seeds", "1")
    run(listed, "plain", "--seeds", "1", "--p_supervised", "0.0", "--device", "cpu")
    assert done == ["plain/1"]
    listed.write_text(listed.read_text().replace("{rounds: 2}", "{rounds: 3}"))
    run(listed, "plain", "--seeds", "1")
    assert done == ["plain/1"] * 2


def test_what_was_interrupted_is_not_done(listed, trained):
    run(listed, "plain", "--seeds", "1")
    record = listed.parent.parent / "results/plain/1/run.json"
    record.write_text(
        record.read_text().replace('"finished": true', '"finished": false')
    )
    run(listed, "plain", "--seeds", "1")
    assert trained[0] == ["plain/1"] * 2


@pytest.fixture
def several(listed, monkeypatch):
    """Runs a list in two jobs: `after` starts from what `late` trains."""
    text = listed.read_text().replace("{results}/other", "{results}/late")
    begun = "{initial_model: '{results}/late/{seed}/package'}"
    after = f"  late: {{rounds: 1}}\n  after: {begun}\n"
    listed.write_text(text + after)
    monkeypatch.setattr(experiments, "tell", lambda folders, path: None)
    results = listed.parent.parent / "results"
    argv = [str(listed), "sweep", "late", "after", "--seeds", "1", "--jobs", "2"]

    def start(run):
        monkeypatch.setattr(experiments.subprocess, "run", run)
        experiments.main([*argv, "--results", str(results)])

    return start, results


def name_of(command):
    return command[command.index("--output_folder") + 1].split("/")[-2]


def test_several_at_once_wait_for_what_they_start_from(several, monkeypatch):
    start, results = several
    both, after_started, order = threading.Barrier(2, timeout=10), threading.Event(), []

    def run(command, check, env, stdout, stderr):
        assert env["OMP_NUM_THREADS"] == "3"
        stdout.write(b"trained")
        if (name := name_of(command)) in ("sweep_0", "sweep_1_2"):
            both.wait()
        elif name == "late":
            assert not after_started.wait(0.5)
        else:
            after_started.set()
        order.append(name)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(experiments, "processors", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    start(run)
    assert order[2:] == ["late", "after"]
    assert (results / "late" / "1" / "output.txt").read_bytes() == b"trained"


def test_nothing_starts_from_a_run_that_failed(several, caplog):
    start, results = several

    def run(command, **where):
        return SimpleNamespace(returncode=name_of(command) == "late")

    with pytest.raises(ValueError, match="output.txt there.*late/1, .*after/1"):
        start(run)
    assert not (results / "after").exists()
    assert "after/1 is not started: it needs" in caplog.text


def test_nothing_starts_after_an_interruption(several):
    start, results = several
    interrupted, running = threading.Event(), threading.Barrier(2, timeout=10)

    def run(command, **where):
        running.wait()
        interrupted.wait(10)
        return SimpleNamespace(returncode=0)

    class Pool(ThreadPoolExecutor):
        """Lets the runs that are under way end once the others are given up."""

        def shutdown(self, wait=True, *, cancel_futures=False):
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            interrupted.set()
            super().shutdown(wait=wait)

    def result(self, timeout=None):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return taken(self, timeout)

    taken = Future.result
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "ThreadPoolExecutor", Pool)
        patch.setattr(Future, "result", result)
        with pytest.raises(KeyboardInterrupt):
            start(run)
    assert not (results / "late").exists() and not (results / "after").exists()


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.parent.name)
def test_every_option_of_a_list_is_a_key_of_its_yaml(path):
    for name, (hparams, options, _) in experiments.read_list(path).items():
        assert options.keys() <= top_level(PACKAGE / hparams).keys(), name
        if "iid" in name:
            assert options["n_clients"] == 1, name


def test_the_built_in_corpus_has_the_same_experiments_at_its_size():
    """Its 4, 8 and 16 clients are the paper's 16, 64 and 256."""
    full, mini = (
        yaml.safe_load((PACKAGE / "recipes" / corpus / "experiments.yaml").read_text())
        for corpus in ("LibriFSD50K", "MiniLibriFSD50K")
    )
    sizes = {"c16": "c4", "c64": "c8", "c256": "c16"}
    names = {
        "_".join(sizes.get(part, part) for part in name.split("_"))
        for name in full["experiments"]
    }
    assert names == mini["experiments"].keys() - {"pretraining"}
