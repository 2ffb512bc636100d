"""Laws of the verification of a prepared corpus."""

import pytest

from fedenhance.recipes.LibriFSD50K import prepare, verify


@pytest.fixture
def prepared(corpus, tmp_path):
    folder = tmp_path / "manifests"
    prepare.prepare(corpus, folder, built_in_corpus=None)
    return corpus, folder


def problems(corpus, folder):
    return [fault.problem for fault in verify.verify(corpus, folder)]


def edit(folder, split, old, new):
    path = folder / f"{split}.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("storage", ["files", "packed"])
def test_a_sound_corpus_has_no_faults(storage, corpus, tmp_path):
    prepare.prepare(corpus, tmp_path, built_in_corpus=None, storage=storage)
    assert verify.main([str(corpus), str(tmp_path)]) == 0
    assert (tmp_path / "verify.csv").read_text() == "split,item,problem\n"


def test_a_changed_manifest(prepared):
    edit(prepared[1], "test", "61-7-0000_0", "61-7-9999_0")
    assert problems(*prepared) == ["changed since the preparation"]


def test_a_missing_manifest(prepared):
    (prepared[1] / "valid.csv").unlink()
    assert problems(*prepared) == ["missing manifest"]


def test_an_unfinished_preparation(prepared):
    (prepared[1] / "prepare.json").unlink()
    assert problems(*prepared) == ["missing: the preparation did not finish"]


def test_a_lost_row(prepared):
    path = prepared[1] / "test.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert problems(*prepared) == ["changed since the preparation"]


def test_a_missing_file(prepared):
    (prepared[0] / "LibriSpeech/test-clean/61/7/61-7-0000.flac").unlink()
    (problem,) = problems(*prepared)
    assert problem.startswith("unreadable")


def test_a_cut_file(prepared):
    path = prepared[0] / "LibriSpeech/test-clean/61/7/61-7-0000.flac"
    path.write_bytes(path.read_bytes()[:20_000])
    assert problems(*prepared)


def test_a_chunk_that_is_short_and_not_marked(prepared):
    edit(prepared[1], "test", ",61,", ",61,")
    path = prepared[1] / "test.csv"
    path.write_text(path.read_text().replace(",0,64000,", ",0,63999,", 1))
    assert "63999 frames instead of 64000, and not marked as padded" in problems(
        *prepared
    )


def test_speakers_in_two_splits(prepared):
    edit(prepared[1], "valid", ",84,", ",61,")
    assert "spk_id is also in valid" in problems(*prepared)


def test_human_voices_by_the_tables_of_fsd50k(prepared):
    truth = prepared[0] / "FSD50K/FSD50K.ground_truth/eval.csv"
    truth.write_text(truth.read_text().replace("Bark,Dog", "Bark,Laughter"))
    assert set(problems(*prepared)) == {"human voice: Laughter"}
    assert verify.main([str(prepared[0]), str(prepared[1])]) == 1
