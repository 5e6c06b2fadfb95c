"""Compares the circumstances of two runs, and decides whether their numbers may be divided.

Two latencies are comparable where the machine, the limits it sets a process, the libraries and the work of one call
are the same. Runs of earlier versions record less: they are compared by what both runs record, and by their options
instead of the work of one call.
"""

from __future__ import annotations

from mlflow_compress import registry, words
from mlflow_compress.errors import CompressError
from mlflow_compress.records import Run
from mlflow_compress.reporting import hardware_names
from mlflow_compress.reporting.footnotes import Note
from mlflow_compress.words import DEVICES

_WORK, _RUNTIME = "work", "runtime"
_OPTION = "option."  # prefix of the params that hold a family's options
_MACHINE_ONLY = (_WORK, _RUNTIME)  # all other circumstances belong to the machine and its libraries
_OF_PROCESSOR = ("threads", "cores", "cpu_flags")  # add nothing where the processor itself differs
_EXPORTS = ("tensorrt", "onnx")  # prefixes of methods whose engines allocate GPU memory outside torch


def of(run: Run, device: str) -> dict[str, str]:
    """Return the recorded circumstances of a run on a device, by name; leave out what was not recorded."""
    texts = {name: _recorded(run, name) for name in words.CIRCUMSTANCES.get(device, {})}
    return {name: text for name, text in texts.items() if text}


def hardware(run: Run, device: str) -> str:
    """Return the hardware of a device's numbers; empty where the run does not record it."""
    parts = {name: run.tags.get(f"compress.env.{name}", "") for name in words.HARDWARE.get(device, ())}
    return ", ".join(f"{text} {name}" if name == "threads" else text for name, text in parts.items() if text)


def surroundings(run: Run, device: str) -> str:
    """Return all that must be the same for two runs of any models before their numbers of a device are compared."""
    hardware_facts = words.HARDWARE.get(device, ())
    other_facts = [
        f"{name} {text}" for name, text in of(run, device).items() if name not in (*hardware_facts, *_MACHINE_ONLY)
    ]
    return ", ".join(filter(None, (hardware(run, device), *other_facts)))


def work(run: Run) -> str:
    """Return what one timed call of a run does; empty where it is not recorded."""
    return _recorded(run, _WORK)


def apart(own: Run, original: Run, device: str, language: str) -> Note | None:
    """Return a note that explains why numbers of a device can't be divided by the original's; None where they can."""
    device_name = DEVICES.get(device, device)
    differing = _differing(own, original, device)
    if differing:
        differences = tuple(_difference(name, own, original, device, language) for name in differing)
        return Note("hardware", device_name, differences)
    is_older = [not work(run) for run in (own, original)]
    return (
        Note("measure_again", device_name, (words.OLDER[is_older[0]][language],))
        if is_older[0] != is_older[1]
        else None
    )


def counts_other_memory(own: Run, original: Run) -> bool:
    """Return whether the GPU memory peaks of two runs are from different allocators: torch sees only its own."""
    sources = [run.tags.get("compress.vram_source", "") for run in (own, original)]
    if all(sources):
        return sources[0] != sources[1]
    return _is_exported(own) != _is_exported(original)


def _recorded(run: Run, name: str) -> str:
    return run.tags.get("compress.work" if name == _WORK else f"compress.env.{name}", "")


def _differing(own: Run, original: Run, device: str) -> list[str]:
    """Return the names of the circumstances in which two runs differ.

    Ignore a circumstance that an earlier version did not record for one of them.
    """
    hardware_facts = words.HARDWARE.get(device, ())
    are_complete = bool(work(own)) and bool(work(original))
    differing = []
    for name in words.CIRCUMSTANCES.get(device, {}):
        own_value, original_value = _recorded(own, name), _recorded(original, name)
        if name in hardware_facts:
            # Unknown hardware counts as the same only within a team.
            is_other = own_value != original_value or (own_value == "" and own.said("team") != original.said("team"))
        elif name == _WORK and not are_complete:
            is_other = bool(_other_options(own, original))
        elif not are_complete and not (own_value and original_value):
            is_other = False
        elif name == _RUNTIME:
            is_other = own_value.partition(" ")[0] == original_value.partition(" ")[0] and own_value != original_value
        elif name == _WORK:
            is_other = own_value.partition(":")[0] != original_value.partition(":")[0]
        else:
            is_other = own_value != original_value
        if is_other:
            differing.append(name)
    return [name for name in differing if name not in _OF_PROCESSOR or "cpu_model" not in differing]


def _other_options(own: Run, original: Run) -> list[str]:
    """Return the names of the params with different values of an option that changes the work of one call."""
    shared = sorted(name for name in own.params.keys() & original.params.keys() if name.startswith(_OPTION))
    return [
        name
        for name in shared
        if own.params[name] != original.params[name] and _changes_call(own.said("family"), name.removeprefix(_OPTION))
    ]


def _changes_call(family: str, option: str) -> bool:
    """Return whether an option of a family may change what one timed call does, as far as this installation knows."""
    options: tuple[str, ...] | None
    try:
        options = registry.find("families", family).call_options
    except CompressError:  # from a plugin that is not installed
        return True
    return options is None or option in options


def _difference(name: str, own: Run, original: Run, device: str, language: str) -> str:
    own_value, original_value = _recorded(own, name), _recorded(original, name)
    if name == _WORK and not (own_value and original_value):
        names = _other_options(own, original)
        own_value, original_value = (
            ", ".join(f"{param.removeprefix(_OPTION)}={run.params[param]}" for param in names)
            for run in (own, original)
        )
    elif name == _WORK and own_value.partition(":")[2] != original_value.partition(":")[2]:
        own_value, original_value = (text.partition(":")[2].strip() for text in (own_value, original_value))
    if name == "cpu_flags":
        own_value, original_value = _less(own_value, original_value), _less(original_value, own_value)
    if name.endswith("_model"):
        own_value, original_value = hardware_names.short(own_value), hardware_names.short(original_value)
    unknown = words.footnote("unknown", language)
    circumstance = words.CIRCUMSTANCES[device][name][language]
    return words.footnote(
        "difference", language, what=circumstance, own=own_value or unknown, other=original_value or unknown
    )


def _less(text: str, other: str) -> str:
    """Return the words that the other text does not have."""
    return " ".join(word for word in text.split() if word not in other.split()) or "-"


def _is_exported(run: Run) -> bool:
    """Return whether an engine other than torch runs the model, for a run without a recorded source of its memory."""
    return run.said("method").rpartition("+")[2].startswith(_EXPORTS)
