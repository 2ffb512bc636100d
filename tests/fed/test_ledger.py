"""What a run leaves is there to go on from, or named."""

import pytest
import torch

from fed.ledger import ClientStates
from fedenhance.run_folder.checkpoints import DamagedFileError
from fedenhance.run_folder.states import load_tensors


def test_clients_get_back_their_optimizers(tmp_path):
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    states = ClientStates(tmp_path)
    states.save(("run", "a/b"), 1, {"arrays": {}, "o": optimizer.state_dict()})
    (tmp_path / "run/a%2Fb/.7.1.pt").write_bytes(b"half")  # of a killed process
    state = states.load(("run", "a/b"), 2)["o"]
    assert state["param_groups"] == optimizer.state_dict()["param_groups"]
    for own, loaded in zip(
        optimizer.state_dict()["state"].values(), state["state"].values(), strict=True
    ):
        assert all(torch.equal(own[key], loaded[key]) for key in own)
    assert load_tensors(tmp_path / "run/a%2Fb/1.pt").keys() == {"arrays", "o"}


def test_half_a_checkpoint_of_an_older_version_stops_nothing(train, tmp_path, caplog):
    train(rounds=1)
    half = tmp_path / "out/save/CKPT+half"
    half.mkdir()
    (half / "CKPT.yaml").touch()
    train(rounds=2)
    assert f"{half} is no complete checkpoint and is passed over" in caplog.text


def test_what_a_run_cannot_go_on_from_is_named(train, tmp_path):
    train(rounds=1)
    (model,) = tmp_path.glob("out/save/CKPT+*/model.ckpt")
    data = model.read_bytes()
    model.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    with pytest.raises(DamagedFileError, match=r"model.ckpt is damaged .*put .* back"):
        train(rounds=2)
    model.write_bytes(data)
    train(rounds=2)
    (model,) = tmp_path.glob("out/save/CKPT+*/model.ckpt")
    model.parent.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="save lacks the checkpoint of the best model"):
        train(rounds=3)
    state = tmp_path / "out/save/federation.pt"
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(DamagedFileError, match=r"federation.pt is damaged"):
        train(rounds=3)
