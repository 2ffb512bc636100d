"""Errors of any command end in one line that says what to do."""

import gc
import sys

import pytest

from fedenhance import __main__ as program
from fedenhance.commands import enhance


def ended(monkeypatch, capsys, error, *words):
    """What the command says and how it ends when something raises an error."""

    def fail(argv):
        raise error

    monkeypatch.setattr(enhance, "main", fail)
    with pytest.raises(SystemExit) as end:
        program.start("enhance", list(words))
    return str(end.value)


def test_an_error_is_one_line(monkeypatch, capsys):
    said = ended(monkeypatch, capsys, ValueError("no such thing"))
    assert said == "fedenhance enhance: no such thing (--traceback shows where)"
    with pytest.raises(ValueError):
        program.start("enhance", ["--traceback"])


def test_a_command_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fedenhance", "enhanse"])
    with pytest.raises(SystemExit, match="there is no command enhanse"):
        program.main()


def test_garbage_is_collected_again_once_all_is_imported(monkeypatch):
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    frozen = []
    with program.importing():
        assert not gc.isenabled()
    assert gc.isenabled() and not frozen  # nothing was new
    with pytest.raises(ImportError), program.importing():
        monkeypatch.setitem(sys.modules, "new", sys)
        raise ImportError
    assert gc.isenabled() and not frozen
    with program.importing():
        monkeypatch.setitem(sys.modules, "newer", sys)
    assert frozen
