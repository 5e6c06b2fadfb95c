"""Hostile TorchScript, files `.ts`: code that torch runs when it loads them, or when they are called."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch


class _Opens(torch.nn.Module):
    """Writes a byte into a file, when its state is set or when it is called."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place, self.byte = place, torch.zeros(1, dtype=torch.uint8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file(self.place, True, 1, dtype=torch.uint8).fill_(65)


class _Restored(_Opens):
    @torch.jit.export
    def __getstate__(self) -> tuple[str, torch.Tensor, bool]:
        return self.place, self.byte, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor, bool]) -> None:
        self.place, self.training = state[0], state[2]
        self.byte = torch.from_file(state[0], True, 1, dtype=torch.uint8).copy_(state[1])


def _saved(net: torch.nn.Module, path: Path, was: str = "", becomes: str = "") -> Path:
    """Save a scripted module, with a piece of its code replaced."""
    torch.jit.save(torch.jit.script(net), str(path))
    if was:
        with zipfile.ZipFile(path) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        changed = False
        writer = torch._C.PyTorchFileWriter(str(path))
        for name, content in records.items():
            record = name.partition("/")[2]
            if record.endswith(".py"):
                changed |= was.encode() in content
                content = content.replace(was.encode(), becomes.encode())
            if record not in ("version", "byteorder") and not record.startswith(".data/"):
                writer.write_record(record, content, len(content))
        writer.write_end_of_file()
        assert changed
    return path


def _marker(command: str) -> str:
    return command.removeprefix("touch ")


def state_that_writes(folder: Path, command: str) -> Path:
    """Write a module that writes into a file when it is loaded."""
    return _saved(_Restored(_marker(command)), folder / "model.ts")


def call_that_writes(folder: Path, command: str) -> Path:
    """Write a module that writes into a file when it is called."""
    return _saved(_Opens(_marker(command)), folder / "model.ts")


def call_that_saves(folder: Path, command: str) -> Path:
    """Write a module that saves a tensor in a file when it is called, by an operator under another name."""
    saving = f't = torch\n    t.save(input, "{_marker(command)}")\n    return input'
    return _saved(torch.nn.Identity(), folder / "model.ts", "return input", saving)


def operator_named_by_a_text(folder: Path, command: str) -> Path:
    """Write a module that saves a tensor in a file by an operator that it looks up."""
    saving = f'getattr(torch, "sa" "\\166e")(input, "{_marker(command)}")\n    return input'
    return _saved(torch.nn.Identity(), folder / "model.ts", "return input", saving)


def default_that_is_computed(folder: Path, command: str) -> Path:
    """Write a module whose argument has a default that torch computes at loading."""
    computed = f'input: Tensor=torch.from_file("{_marker(command)}", True, 1, dtype=0)'
    return _saved(torch.nn.Identity(), folder / "model.ts", "input: Tensor", computed)


def operator_of_torchvision(folder: Path, command: str) -> Path:
    """Write a module that writes a file by an operator of torchvision's, under another name."""
    writing = f'o = ops\n    return o.image.write_file("{_marker(command)}", torch.to(input, 0))'
    return _saved(torch.nn.Identity(), folder / "model.ts", "return input", writing)


def no_archive(folder: Path, command: str) -> Path:
    """Write a file that is not an archive."""
    (folder / "model.ts").write_bytes(b"\x80\x02." * 100)
    return folder / "model.ts"
