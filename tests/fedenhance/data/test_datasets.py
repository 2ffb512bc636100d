"""Datasets and batches of clients."""

import pickle
import shutil
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from speechbrain.dataio.dataloader import make_dataloader

from fedenhance.data.audio import Segment
from fedenhance.data.datasets import collate, dataio_prepare, training_set
from fedenhance.data.manifests import load_manifest
from fedenhance.data.mixing import MixtureOfMixtures


def by_speaker(rows):
    clients = {}
    for key, row in rows.items():
        clients.setdefault(row["spk_id"], []).append(key)
    return clients


def test_half_of_the_recordings_are_examples(hparams):
    datasets = dataio_prepare(hparams)
    assert {name: len(data) for name, data in datasets.items()} == {
        "train": 8,
        "valid": 4,
        "test": 4,
    }


def test_items_carry_sources_and_group(hparams):
    item = dataio_prepare(hparams)["train"][0]
    assert item["sources"].shape == (3, 4000)
    assert item["group"] in ("supervised", "unsupervised")


def test_supervised_clients_are_whole_clients(hparams):
    hparams["partition"] = by_speaker
    rows = dataio_prepare(hparams)["train"].data
    groups = {}
    for row in rows.values():
        groups.setdefault(row["client"], set()).add(row["group"])
    assert all(len(group) == 1 for group in groups.values())
    assert sorted(next(iter(group)) for group in groups.values()) == [
        "supervised",
        "supervised",
        "unsupervised",
        "unsupervised",
    ]


def test_the_training_set_says_whose_its_examples_are(hparams):
    assert list(dataio_prepare(hparams)["train"].clients) == ["all"]
    hparams["partition"] = lambda rows: {"9": ["b0", "b3", "a3", "a0"], "8": ["c0"]}
    hparams["client_groups"] = {"supervised": 1.0}
    data = dataio_prepare(hparams)["train"]
    # In the order of the manifest; a2, a3 ... are noise alone, and d0 is nobody's.
    assert data.clients == {"9": ["a0", "b0"], "8": ["c0"]}
    assert data.data_ids == ["a0", "b0", "c0"]


def test_a_client_draws_its_own_noises_only(hparams, monkeypatch):
    hparams["partition"] = by_speaker
    drawn = {}

    def spy(self, example_id, speech, noise, noisy, pool):
        drawn[example_id] = {segment.path.rsplit("/", 1)[1][0] for segment in pool}
        return torch.zeros(3, 1)

    monkeypatch.setattr(MixtureOfMixtures, "__call__", spy)
    data = dataio_prepare(hparams)["train"]
    for index in range(len(data)):
        data[index]
    assert drawn == {key: {key[0]} for key in drawn}


def test_the_new_epoch_draws_new_mixtures(hparams):
    data = dataio_prepare(hparams)["train"]
    first = data[0]["sources"]
    hparams["mixing"].epoch = 1
    assert not torch.equal(first, data[0]["sources"])


def test_test_mixtures_do_not_depend_on_the_seed(hparams, tmp_path):
    first = dataio_prepare(hparams)["test"]
    written = (tmp_path / "test_mixtures.csv").read_bytes()
    second = dataio_prepare({**hparams, "seed": 1})["test"]
    assert written == (tmp_path / "test_mixtures.csv").read_bytes()
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a["sources"], b["sources"])


def test_written_mixtures_are_the_ones_tested(hparams, tmp_path):
    data = dataio_prepare(hparams)["test"]
    assert load_manifest(tmp_path / "test_mixtures.csv", "").keys() == data.data.keys()


def rows_of_one_client(tiny_corpus, **changes):
    rows = load_manifest(tiny_corpus / "train.csv", tiny_corpus)
    rows = {key: rows[key] for key in ("a0", "a1")}
    for row in rows.values():
        row.update(client="7", group="unsupervised", **changes)
    return rows


def test_a_client_without_noises_is_named(tiny_corpus):
    with pytest.raises(ValueError, match="client 7 has no isolated noise"):
        training_set(rows_of_one_client(tiny_corpus), MixtureOfMixtures())


def test_a_noise_folder_serves_every_client(tiny_corpus):
    mixing = MixtureOfMixtures(sample_rate=8000, segment=0.5)
    data = training_set(rows_of_one_client(tiny_corpus), mixing, tiny_corpus)
    assert data[0]["sources"][2].abs().max() > 0


def test_a_client_without_recordings_is_named(tiny_corpus):
    with pytest.raises(ValueError, match="client 7 has no noisy recordings"):
        training_set(
            rows_of_one_client(tiny_corpus, speech=None),
            MixtureOfMixtures(),
            tiny_corpus,
        )


def test_real_clients_need_no_reference(tiny_corpus, hparams, tmp_path):
    """Noisy recordings alone and a folder of noises: no clean part anywhere."""
    folder, noises = tmp_path / "real", tmp_path / "noises"
    for path in (folder, noises):
        path.mkdir()
    shutil.copy(tiny_corpus / "a0_noise.wav", noises)
    noise = f"n,0.5,x,,{noises}/a0_noise.wav\n"
    for split in ("train", "valid", "test"):
        lines = "".join(f"r{i},0.5,x,$data_root/a{i}_speech.wav,\n" for i in range(2))
        (folder / f"{split}.csv").write_text(
            "ID,duration,spk_id,noisy,noise\n" + lines + noise, encoding="utf-8"
        )
    hparams.update(manifest_folder=str(folder), noise_folder=str(noises))
    datasets = dataio_prepare(hparams)
    assert [row["group"] for row in datasets["train"].data.values()] == [
        "unsupervised"
    ] * 2
    assert datasets["valid"][0]["sources"][:, :10].abs().amax(-1)[1] == 0


def test_damaged_recordings_are_left_out_and_counted(hparams, caplog):
    data = dataio_prepare(hparams)["train"]
    keys = list(data.data_ids)
    data.data[keys[0]]["speech"] = Segment("/lost.wav", 0, 0)
    loader = make_dataloader(data, batch_size=4, collate_fn=collate)
    batch = next(iter(loader))
    assert batch.id == keys[1:4]
    assert batch.skipped == [keys[0]]
    assert "lost.wav" in caplog.text


def test_a_batch_of_damaged_recordings_is_empty():
    batch = collate([{"id": "r1", "sources": None}, {"id": "r2", "sources": None}])
    assert len(batch) == 0
    assert batch.skipped == ["r1", "r2"]


@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_processes_that_persist_draw_anew_in_each_epoch(hparams, start):
    def epochs(**options):
        data, drawn = dataio_prepare(hparams)["train"], []
        loader = make_dataloader(data, batch_size=4, collate_fn=collate, **options)
        for epoch in (1, 2):
            hparams["mixing"].epoch = epoch
            drawn.append(torch.cat([batch.sources.data for batch in loader]))
        return torch.stack(drawn)

    here = epochs()
    assert not torch.equal(here[0], here[1])
    options = {"persistent_workers": True, "multiprocessing_context": start}
    workers = 2 if start == "fork" else 1  # each of the others imports everything
    assert torch.equal(epochs(num_workers=workers, **options), here)


def test_processes_of_any_kind_read_for_evaluation(hparams):
    data = dataio_prepare(hparams)["valid"]
    data.data[data.data_ids[0]]["speech"] = Segment("/lost.wav", 0, 0)
    here, there = (
        next(iter(make_dataloader(dataset, batch_size=4, collate_fn=collate)))
        for dataset in (data, pickle.loads(ForkingPickler.dumps(data)))
    )
    assert torch.equal(here.sources.data, there.sources.data)
    assert here.skipped == there.skipped == [data.data_ids[0]]


def test_a_clients_own_recordings_are_not_trained_on(hparams):
    hparams |= {"partition": by_speaker, "own_share": 0.5}
    sets = dataio_prepare(hparams)
    own, trained = sets["own"], set(sets["train"].data_ids)
    assert own.clients.keys() == sets["train"].clients.keys()
    for client, keys in own.clients.items():
        assert keys and {own.data[key]["spk_id"] for key in keys} == {client}
    assert not {key.rpartition("-")[0] for key in own.data_ids} & trained
    # Each as it is and with another noise, which is none of training.
    assert {own.data[key]["n_noises"] for key in own.data_ids} == {1, 2}
    assert set(own[0]) >= {"sources", "group", "n_noises"}


def test_too_few_recordings_to_hold_some_out_are_told_by_client(hparams):
    hparams |= {"partition": lambda rows: {"9": ["b0", "b3"]}, "own_share": 0.2}
    with pytest.raises(ValueError, match="client 9 has 1 recordings; to hold some out"):
        dataio_prepare(hparams)
