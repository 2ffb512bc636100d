"""The benchmark of recognition asks train.py for what it says it measures."""

from benchmarks import recognition


def finished(folder, words):
    (folder / "wer_train.txt").parent.mkdir(parents=True)
    (folder / "wer_train.txt").write_text(f"%WER {words} [ 1 / 4, 0 ins, 0 del, 1 sub")
    (folder / "wer_test.txt").write_text("%WER 80.00 [ 4 / 5, 0 ins, 0 del, 4 sub ]")
    (folder / "minutes.txt").write_text("3.50")
    (folder / "train_log.txt").write_text("round: 1 - x\nround: 12 - x\nstage: test\n")


def test_finished_runs_are_read_not_repeated(tmp_path, capsys):
    for kind, words in (("federated", "25.00"), ("centralised", "20.00")):
        finished(tmp_path / "out" / kind / "1", words)
    table = tmp_path / "recognition.csv"
    recognition.main(
        ["--seeds", "1", "--out", str(tmp_path / "out"), "--csv", str(table)]
    )
    assert table.read_text().splitlines() == [
        "training,seed,epochs,minutes,train_WER,test_WER",
        "federated,1,12,3.5,25,80",
        "centralised,1,12,3.5,20,80",
    ]
    assert "centralised     1      12      3.5         20        80" in (
        capsys.readouterr().out
    )


def test_the_centralised_run_knows_nothing_of_fed():
    options = recognition.KINDS["centralised"]
    assert dict(zip(options[::2], options[1::2], strict=True)) == {
        "--federation": "null",
        "--partition": "null",
        "--schedule": "null",
        "--weighting": "null",
    }
