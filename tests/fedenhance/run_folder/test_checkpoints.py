"""A checkpoint counts only when it is complete, and a damaged one is named."""

import os
import signal
import sys

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.epoch_loop import EpochCounter

from benchmarks.kills import hook
from fedenhance.run_folder.checkpoints import Checkpoints, DamagedFileError


@pytest.fixture
def made(tmp_path):
    """A checkpointer of a layer and a counter; its layer is all ones."""
    layer = torch.nn.Linear(20, 20)
    torch.nn.init.ones_(layer.weight)
    recoverables = {"layer": layer, "counter": EpochCounter(9)}
    return Checkpoints(tmp_path / "save", recoverables)


def weight(checkpointer):
    return checkpointer.recoverables["layer"].weight


def test_it_saves_and_keeps_as_speechbrain_does(made, tmp_path):
    for loss in (3.0, 1.0, 2.0):
        torch.nn.init.constant_(weight(made), loss)
        made.save_and_keep_only(meta={"loss": loss}, min_keys=["loss"])
    named = made.save_checkpoint(name="mine")
    assert named == made.save_checkpoint(name="mine")._replace(meta=named.meta)
    assert (tmp_path / "save/CKPT+mine/layer.ckpt") == named.paramfiles["layer"]
    losses = {
        c.meta.get("loss") for c in Checkpointer(tmp_path / "save").list_checkpoints()
    }
    assert losses == {None, 1.0, 2.0}
    made.recover_if_possible(min_key="loss")
    assert (weight(made) == 1).all()


def die_at(number, folder):
    """Be killed when a file in a folder is changed for the n-th time."""
    seen = []

    def watch(path):
        seen.append(path)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook(folder, watch))


def test_a_kill_inside_saving_leaves_what_was_there(made, tmp_path):
    """At each file that is opened, renamed or removed, until all is done."""
    made.save_checkpoint(meta={"epoch": 1})
    for number in range(1, 100):
        child = os.fork()
        if not child:
            die_at(number, tmp_path)
            made.save_and_keep_only(meta={"epoch": 2})
            os._exit(0)
        _, status = os.waitpid(child, 0)
        later = Checkpoints(tmp_path / "save", made.recoverables)
        epochs = {c.meta["epoch"] for c in later.list_checkpoints()}
        assert epochs & {1, 2} and epochs <= {1, 2}
        later.recover_if_possible()
        if not os.WIFSIGNALED(status):
            break
        later.delete_checkpoints(
            num_to_keep=0, ckpt_predicate=lambda c: c.meta["epoch"] == 2
        )
    assert number > 8
    assert epochs == {2}


def test_what_a_kill_left_to_be_removed_goes_at_the_next_start(made, tmp_path):
    """Killed between saving and removing, and inside removing."""
    for loss in (3.0, 1.0, 2.0):
        made.save_and_keep_only(meta={"loss": loss}, min_keys=["loss"])
    for loss in (2.5, 4.0):  # of which the first is neither best nor newest
        rule = {"max_keys": [], "min_keys": ["loss"]}
        made.save_checkpoint(meta={"loss": loss, **rule})
    half = made.save_checkpoint(meta={"loss": 0.0})
    (half.path / "CKPT.yaml").unlink()
    made.recover_if_possible()
    losses = [c.meta["loss"] for c in made.list_checkpoints()]
    assert sorted(losses) == [1.0, 4.0]
    assert len(list((tmp_path / "save").glob("CKPT*"))) == 2
    assert made.find_best().meta["loss"] == 1.0


@pytest.mark.parametrize(
    ("file", "keep", "reason"),
    [
        ("CKPT.yaml", 0, "CKPT.yaml is empty"),
        ("CKPT.yaml", 30, "CKPT.yaml is cut short"),
        ("CKPT.yaml", -1, "CKPT.yaml is cut short"),
        ("layer.ckpt", 0, "layer.ckpt is empty"),
        ("layer.ckpt", 900, "layer.ckpt is cut short"),
        ("counter.ckpt", 0, "counter.ckpt is empty"),
    ],
)
def test_what_is_incomplete_is_passed_over_and_named(made, caplog, file, keep, reason):
    whole = made.save_checkpoint(meta={"epoch": 1})
    broken = made.save_checkpoint(meta={"epoch": 2})
    data = (broken.path / file).read_bytes()
    (broken.path / file).write_bytes(data[:keep])
    assert made.recover_if_possible().path == whole.path
    assert str(broken.path) in caplog.text and reason in caplog.text
    made.save_and_keep_only()


def test_a_changed_bit_is_named(made):
    checkpoint = made.save_checkpoint()
    file = checkpoint.paramfiles["layer"]
    data = bytearray(file.read_bytes())
    place = data.index(torch.ones(20).numpy().tobytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"layer.ckpt is damaged \(the checksum"):
        made.recover_if_possible()


def test_a_counter_that_is_no_number_is_named(made):
    checkpoint = made.save_checkpoint()
    checkpoint.paramfiles["counter"].write_text("x")
    with pytest.raises(DamagedFileError, match="CKPT.*is damaged"):
        made.recover_if_possible()
