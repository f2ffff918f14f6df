import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run():
    """A function that runs a script in short, and gives what it prints."""

    def run(script, *options, cwd):
        command = [sys.executable, str(ROOT / script), "--quick", *options]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
