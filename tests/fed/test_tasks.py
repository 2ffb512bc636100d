"""Tasks are asked for, and a ServerApp does not outlive its SuperLink."""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import httpx
import pytest

from fed import tasks
from tests.fed.deployed import ROOT

CHILD = """
import os, signal, time
from fed.tasks import end_with
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as training has it
end_with(os.getppid())
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


def test_a_process_ends_with_its_parent_though_it_cannot_be_interrupted():
    command, pipe = [sys.executable, "-c", PARENT], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, cwd=ROOT, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
        try:
            # The pipe ends when nobody holds it, which the child does.
            parent.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.kill(child, signal.SIGKILL)
            raise


@pytest.mark.parametrize("status, raised", [(503, False), (401, True)])
def test_a_server_that_is_not_ready_is_asked_again(monkeypatch, status, raised):
    """One that does not know the secret is not."""
    response = httpx.Response(status, request=httpx.Request("POST", "http://a"))

    class Client:
        def AcquireTask(self, question):
            response.raise_for_status()

    monkeypatch.setattr(tasks, "connected", lambda *place: nullcontext(Client()))
    asked = tasks.tasks("kind", "a", None, b"secret", lambda: True)
    if raised:
        with pytest.raises(httpx.HTTPStatusError):
            next(asked)
    else:
        assert next(asked) is None
