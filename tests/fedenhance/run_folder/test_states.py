"""What a run goes on from: tensors and plain values, checked when they are read."""

import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from fedenhance.run_folder.checkpoints import DamagedFileError
from fedenhance.run_folder.states import load, load_tensors, pack, save

STATE = {
    "arrays": {"w": np.arange(300, dtype=np.float32).reshape(3, 100), "n": np.int64(3)},
    "numbers": {"lr": np.array([0.5]), "scalar": np.array(2)},
    "rows": [{"round": 1, "loss": np.float64(0.25), "metric": None}],
    "strategy": [{"m_t": {"w": np.zeros(2)}}, {"momentum_vector": [np.ones(1)]}],
    "kinds": (True, "text", {0: (0.9, 0.999)}),
}


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and all(map(equal, a, b))
    return np.array_equal(a, b) and getattr(a, "dtype", 0) == getattr(b, "dtype", 0)


def test_what_is_saved_comes_back(tmp_path):
    save(tmp_path / "s.pt", STATE)
    back = load(tmp_path / "s.pt")
    assert (back["arrays"].pop("n"), back["rows"].pop()["loss"]) == (3, 0.25)
    assert equal({**STATE, "arrays": {"w": STATE["arrays"]["w"]}, "rows": []}, back)


def test_many_tensors_are_a_few_records_and_keep_types_and_shapes(tmp_path):
    made = {
        f"{kind}.{i}": torch.full((i, 2), i).to(getattr(torch, kind))
        for i in range(50)
        for kind in ("float32", "int64", "bool", "bfloat16")
    }
    save(tmp_path / "s.pt", {"state": made, "step": torch.tensor(3.0)})
    with zipfile.ZipFile(tmp_path / "s.pt") as archive:
        assert len([n for n in archive.namelist() if "/data/" in n]) == 4
    back = load_tensors(tmp_path / "s.pt")
    assert back["step"].shape == () and back["step"] == 3
    assert list(back["state"]) == list(made)
    for name, tensor in made.items():
        torch.testing.assert_close(back["state"][name], tensor, rtol=0, atol=0)


def test_large_tensors_are_not_copied_and_all_kinds_come_back(tmp_path):
    large = torch.arange(70_000.0).reshape(7, 10_000)
    assert pack({"w": large})["state"]["w"].data_ptr() == large.data_ptr()
    base, shared = torch.arange(6.0).reshape(2, 3), torch.zeros(3)
    state = {
        "large": large,
        "turned": large.T,
        "non-contiguous": base.T,
        "one of three": base[1],
        "sparse": torch.eye(3).to_sparse(),
        "conjugated": torch.tensor([1 + 2j]).conj(),
        "shared": [shared, (shared, None)],
        "empty": torch.zeros(0, 4),
        "after": torch.tensor(True),
    }
    save(tmp_path / "s.pt", state)
    back = load_tensors(tmp_path / "s.pt")
    assert list(back) == list(state)
    for one, other in zip(tree_leaves(back), tree_leaves(state), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    "make",
    [
        torch.optim.SGD,
        partial(torch.optim.SGD, momentum=0.9),
        torch.optim.Adagrad,
        partial(torch.optim.Adam, foreach=True),
        partial(torch.optim.Adam, fused=True, amsgrad=True),
        partial(torch.optim.LBFGS, max_iter=3),
    ],
    ids=["SGD", "momentum", "Adagrad", "foreach", "fused", "LBFGS"],
)
def test_an_optimizer_goes_on_as_if_it_had_not_been_saved(tmp_path, make):
    reached = []
    for saved in (False, True):
        torch.manual_seed(0)
        layer, target = torch.nn.Linear(3, 2), torch.ones(2)

        def closure(layer=layer, target=target):
            layer.zero_grad()
            loss = (layer(torch.ones(3)) - target).square().sum()
            loss.backward()
            return loss

        optimizer = make(layer.parameters(), lr=0.1)
        for turn in range(4):
            if saved and turn == 2:
                save(tmp_path / "s.pt", {"o": optimizer.state_dict()})
                optimizer = make(layer.parameters(), lr=0.1)
                optimizer.load_state_dict(load_tensors(tmp_path / "s.pt")["o"])
            optimizer.step(closure)
        reached.append(layer.weight.detach().clone())
    assert torch.equal(*reached)


def test_files_of_versions_that_joined_nothing_are_read(tmp_path):
    torch.save({"joined": True, "w": torch.ones(3)}, tmp_path / "s.pt")
    assert equal(load(tmp_path / "s.pt"), {"joined": True, "w": np.float32([1, 1, 1])})


def test_what_is_no_data_is_named_and_not_saved(tmp_path):
    with pytest.raises(TypeError, match=r"state\.rows\.0\.f is a builtin_function"):
        save(tmp_path / "s.pt", {"rows": [{"f": print}]})
    assert not list(tmp_path.iterdir())


def test_any_damage_is_named_or_harmless(tmp_path):
    path = tmp_path / "s.pt"
    save(path, STATE)
    data, before = path.read_bytes(), load(path)
    generator, harmless = np.random.default_rng(0), 0
    for _ in range(300):
        changed = bytearray(data)
        changed[generator.integers(len(data))] ^= 1 << int(generator.integers(8))
        path.write_bytes(changed)
        try:
            assert equal(load(path), before)
            harmless += 1  # of what fills gaps
        except DamagedFileError as error:
            assert str(error).startswith(f"{path} is damaged (")
            assert len(str(error).splitlines()) == 1
    assert harmless < 200
    for size in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(DamagedFileError, match=r"s\.pt is damaged"):
            load(path)


def test_files_that_could_hold_programs_are_not_read(tmp_path):
    torch.save({"arrays": {"w": np.ones(3)}}, tmp_path / "s.pt", pickle_protocol=5)
    with pytest.raises(ValueError, match=r"s\.pt may be of an older version") as error:
        load(tmp_path / "s.pt")
    assert len(str(error.value).splitlines()) == 1
