"""Programs that can't import this package, in processes forked from one with torch and transformers.

Each program runs like a user's own: a process with its own arguments, in which importing `mlflow_compress` fails.
Importing torch and transformers takes seconds, and dozens of tests start such a program.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

_SERVER = """
import json, os, sys, traceback
sys.modules["mlflow_compress"] = None  # importing it fails
import torch, safetensors.torch, transformers
import transformers.masking_utils, transformers.modeling_utils  # what every model imports
from transformers import AutoFeatureExtractor, AutoModelForCausalLM, AutoTokenizer

def run(code, arguments, output):
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<outsider>", "exec"), {"__name__": "__main__"})

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        status = 1
        try:
            run(*json.loads(line))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Done(NamedTuple):
    """Exit code and output of a program."""

    returncode: int
    output: str


def run(code: str, *arguments: str) -> Done:
    """Run a program's code with arguments, and wait until it ends."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output")
        server.stdin.write(json.dumps([code, arguments, str(output)]) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, "the process that forks programs has ended"
        return Done(int(answer), output.read_text(encoding="utf-8", errors="replace") if output.exists() else "")


@functools.cache
def _server() -> subprocess.Popen[str]:
    """Start the process that forks; it ends when its input is closed, at the end of the tests' process."""
    command = [sys.executable, "-c", _SERVER]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
