"""Whole processes beside one another: each run is a Python of its own, which tells its seconds and its memory."""

import json
import os
from pathlib import Path
import resource
import subprocess
import sys
import time

BORN = time.perf_counter()  # a child imports this first


def run(script: str, *words: str, python: str = sys.executable, **environment: str) -> dict[str, float]:
    """The figures that `script` tells when it is run with these words, and `process`: its seconds from start to end.

    `python` is the interpreter, of another environment where a peer needs one.
    """

    start = time.perf_counter()
    done = subprocess.run([python, script, *words], capture_output=True, text=True, env=os.environ | environment)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{Path(script).name} {' '.join(words)}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1]) | {"process": seconds}


def tell(**figures: float) -> None:
    """What a child says at its end: figures, and the most memory that it has taken, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    print(json.dumps(figures | {"memory": peak}))


def now() -> float:
    """Seconds since the child began to import."""
    return time.perf_counter() - BORN


def transformers_model(path: str):
    """transformers' model of a GGUF file or of a folder, float32, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_grad_enabled(False)
    file = Path(path)
    folder, options = (file, {}) if file.is_dir() else (file.parent, {"gguf_file": file.name})
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    return model.eval(), tokenizer
