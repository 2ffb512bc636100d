"""A ServerApp does not outlive its SuperLink."""

import os
import signal
import subprocess
import sys

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
