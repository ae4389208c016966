"""Jobs for the simulated card's `run_ptx` example: any PTX, its launch, and arrays in and out."""

import os
import pathlib
import subprocess

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]


def runner():
    """The built example; `RUN_PTX` names another."""
    if "RUN_PTX" in os.environ:
        return os.environ["RUN_PTX"]
    built = ROOT / "target" / "debug" / "examples" / "run_ptx"
    subprocess.run(["cargo", "build", "-q", "-p", "narrowgauge-sim", "--example", "run_ptx"], cwd=ROOT, check=True)
    return str(built)


class Job:
    """One launch. Statements are those that `run_ptx` documents."""

    def __init__(self, folder, ptx, entry=None):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "kernel.ptx").write_text(ptx)
        self.lines = ["module kernel.ptx"]
        if entry:
            self.say("entry", entry)
        self.outputs = {}

    def say(self, *words):
        self.lines.append(" ".join(str(w) for w in words))

    def launch(self, grid, threads, shared=0, cluster=(1, 1, 1), schedule=("eager", 0)):
        self.say("grid", *grid)
        self.say("block", *(threads if isinstance(threads, tuple) else (threads, 1, 1)))
        self.say("cluster", *cluster)
        self.say("shared", shared)
        self.say("schedule", *schedule)

    def buffer(self, name, array):
        """Device memory with an array's bytes."""
        np.ascontiguousarray(array).tofile(self.folder / f"{name}.bin")
        self.say("buffer", name, f"{name}.bin")

    def output(self, name, shape, dtype):
        """Uninitialised device memory that is read back."""
        array = np.empty(shape, dtype)
        self.say("buffer", name, array.nbytes)
        self.say("output", name, f"{name}.out")
        self.outputs[name] = (shape, dtype)

    def update(self, name, array):
        """Device memory with an array's bytes, read back."""
        self.buffer(name, array)
        self.say("output", name, f"{name}.out")
        self.outputs[name] = (array.shape, array.dtype)

    def param(self, *words):
        self.say("param", *words)

    def run(self):
        """Runs it; the outputs by name, and what the card counted and warned of."""
        path = self.folder / "job"
        path.write_text("\n".join(self.lines) + "\n")
        done = subprocess.run([runner(), str(path)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        arrays = {
            name: np.fromfile(self.folder / f"{name}.out", dtype).reshape(shape)
            for name, (shape, dtype) in self.outputs.items()
        }
        return arrays, done.stdout + done.stderr
