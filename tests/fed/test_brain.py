"""What is added to a Brain, and how its arrays travel."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from speechbrain import Stage

from fed.arrays import copy_into, get_arrays, pack, set_arrays, to_record, view
from fed.brain import batch_size, scalars
from fed.loading import restrict
from tests.fed import recipe
from tests.fed.conftest import joined


@pytest.fixture
def data():
    return recipe.datasets({"train_size": 16})


def test_server_weights_survive_fit_and_evaluate(brain, data):
    arrays = {name: np.ones_like(a) for name, a in get_arrays(brain).items()}
    set_arrays(brain, arrays)
    brain.validate(data["valid"], {"batch_size": 4})
    brain.test(data["test"], {"batch_size": 4})
    for name, array in get_arrays(brain).items():
        assert (array == 1).all(), name


def test_every_client_starts_from_a_clean_brain(brain, data):
    def update(dataset):
        set_arrays(brain, start)
        torch.manual_seed(0)
        brain.local_update(dataset, {"batch_size": 4}, 1, 1)
        return get_arrays(brain)

    class Fails(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            raise OSError("disk")

    start = get_arrays(brain)
    first = update(data["train"])
    with pytest.raises(OSError, match="disk"):
        update(Fails())
    again = update(data["train"])
    assert all((first[name] == again[name]).all() for name in first)


class Keeps(recipe.Regression):
    """Has an optimizer that is made once, before ``fit()``."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.optimizer = torch.optim.Adam(self.modules.parameters(), 0.1)

    def init_optimizers(self):
        """Make no other."""


def test_no_client_has_the_moments_of_another(data):
    keeps = joined(Keeps)
    start, updates = get_arrays(keeps), []
    for _ in range(2):
        set_arrays(keeps, start)
        keeps.local_update(data["train"], {"batch_size": 4}, 1, 1)
        updates.append(get_arrays(keeps))
    assert all((updates[0][n] == updates[1][n]).all() for n in start)
    moments = keeps.optimizer.state
    keeps.validate(data["valid"], {"batch_size": 4})
    assert not moments  # of as many bytes as two models


def test_modules_are_compiled_once_and_keep_their_names(data, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **how: compiled.append((self, how))
    )
    brain = joined(compile=True, compile_mode="reduce-overhead")
    start = get_arrays(brain)
    for _ in range(2):
        brain.local_update(data["train"], {"batch_size": 4}, 1, 1)
    assert [module for module, _ in compiled] == list(brain.modules.values())
    assert compiled[0][1]["mode"] == "reduce-overhead"
    assert get_arrays(brain).keys() == start.keys()


def test_compiled_modules_train_and_evaluate(data, monkeypatch):
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda self, mode, **how: compile_module(self, backend="eager", **how),
    )
    arrays = []
    for compiled in (False, True):
        brain = joined(compile=compiled)
        for _ in range(2):
            brain.local_update(data["train"], {"batch_size": 4}, 1, 1)
        assert brain.validate(data["valid"], {"batch_size": 4})["loss"] > 0
        arrays.append(get_arrays(brain))
    for name, array in arrays[0].items():
        np.testing.assert_allclose(arrays[1][name], array, atol=1e-6)


def test_a_module_to_compile_that_is_not_there_is_named(data):
    brain = joined(compile=True, compile_module_keys=["net"])
    with pytest.raises(ValueError, match="there is no module net"):
        brain.local_update(data["train"], {"batch_size": 4}, 1, 1)


def test_totals_add_up_over_epochs(data):
    class Counts(recipe.Regression):
        def on_stage_end(self, stage, stage_loss, epoch=None):
            super().on_stage_end(stage, stage_loss, epoch)
            self.train_stats = {"hours": 2.0, "share": 0.5}

    brain = joined(Counts)
    for _ in range(2):
        totals = ["hours", "skipped"]
        metrics = brain.local_update(
            data["train"], {"batch_size": 4}, 1, 3, totals=totals
        )
        assert (metrics["hours"], metrics["share"]) == (6.0, 0.5)


def test_evaluation_leaves_loader_options_alone(brain, data):
    options = {"batch_size": 4}
    brain.test(data["test"], options)
    assert options == {"batch_size": 4}


def test_arrays_are_checked_by_name(brain):
    arrays = get_arrays(brain)
    arrays["model.0.wieght"] = arrays.pop("model.0.weight")
    with pytest.raises(ValueError, match=r"model\.0\.wieght.*missing model\.0\.weight"):
        set_arrays(brain, arrays)


def test_arrays_are_checked_by_shape(brain):
    arrays = get_arrays(brain)
    arrays["model.0.bias"] = arrays["model.0.bias"][:3]
    with pytest.raises(ValueError, match=r"model\.0\.bias of shape \(3,\)"):
        set_arrays(brain, arrays)


@pytest.mark.parametrize("order", ["C", "F"])
def test_viewed_arrays_are_those_that_were_sent(order):
    array = np.asarray(np.random.default_rng(0).normal(size=(3, 5)), order=order)
    sent = {"w": array, "n": np.array(3), "empty": np.zeros((0, 2), "float32")}
    for name, seen in view(to_record(sent)).items():
        assert np.array_equal(seen, sent[name])
        assert seen.dtype == sent[name].dtype


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "float16"])
@pytest.mark.parametrize("shape", [(), (0, 2), (3,), (4, 5)])
def test_arrays_are_packed_as_flower_packs_them(shape, dtype):
    array = np.ones(shape, dtype).T
    ours, flowers = pack(array), Array(np.ascontiguousarray(array))
    if shape == ():
        flowers = Array(array)
    for field in ("dtype", "shape", "stype", "data"):
        assert getattr(ours, field) == getattr(flowers, field)
    assert np.array_equal(ours.numpy(), array)


def test_python_objects_are_not_packed():
    with pytest.raises(ValueError, match="Object arrays"):
        pack(np.array([{}]))


def test_truncated_arrays_are_refused():
    whole = Array(np.zeros(8))
    short = Array(whole.dtype, whole.shape, whole.stype, whole.data[:20])
    with pytest.raises(ValueError, match="w is shorter"):
        view(ArrayRecord({"w": short}))


@pytest.mark.parametrize(
    "batch", [torch.zeros(3, 2), (torch.zeros(3, 2), torch.zeros(3)), {"x": [1, 2, 3]}]
)
def test_batches_of_any_kind_are_counted(batch):
    assert batch_size(batch) == 3


def test_scalars_are_what_can_be_averaged():
    stats = {"a": 1, "b": torch.tensor(2.0), "c": [3.0, 5.0], "d": "text", "e": True}
    assert scalars(stats) == {"a": 1.0, "b": 2.0, "c": 4.0}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_arrays_arrive_together_and_one_by_one(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    arrays = {"w": np.random.rand(2, 3), "n": np.array(3), "b": np.random.rand(4)}
    arrays["w"], arrays["b"] = np.float32(arrays["w"]).T, np.float32(arrays["b"])
    tensors = {n: torch.tensor(np.zeros_like(a)).to(device) for n, a in arrays.items()}
    copy_into(tensors, arrays)
    for name, array in arrays.items():
        assert np.array_equal(tensors[name].numpy(force=True), array)


@pytest.mark.parametrize("size", [1, 3, 5, 16])
def test_losses_are_means_over_examples_whatever_the_batch(brain, data, size):
    brain.modules.eval()
    means = []
    for name in ("valid", "test"):
        items = [data[name][i] for i in range(16)]
        inputs, targets = (torch.stack([x[k] for x in items]) for k in KEYS)
        with torch.no_grad():
            means.append(float((brain.modules.model(inputs) - targets).square().mean()))
    options = {"batch_size": size}
    assert brain.validate(data["valid"], options)["loss"] == pytest.approx(means[0])
    assert brain.test(data["test"], options)["loss"] == pytest.approx(means[1])


KEYS = ("inputs", "targets")


def test_the_loss_of_no_examples_is_no_number(data):
    class Evaluated(recipe.Regression):
        def on_stage_end(self, stage, stage_loss, epoch=None):
            assert np.isnan(stage_loss) or stage == Stage.TRAIN

    brain, nothing = joined(Evaluated), restrict(data["valid"], [])
    assert np.isnan(brain.validate(nothing, {})["loss"])
    assert np.isnan(brain.test(nothing, {})["loss"])
