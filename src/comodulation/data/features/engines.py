"""What computes an encoder's forward pass: torch, or on CPUs ONNX Runtime or OpenVINO, which are faster for many networks.

Their features agree up to the rounding of sums in another order, so caches say which of them they are of. Translating a network
takes seconds to tens of them: it pays for many inputs only.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...errors import InputError, RunError, choose
from .allocator import large_blocks_kept
from .encoder import Encoder
from .translations import OnnxForward, OpenVinoForward, bfloat16_here

ENGINES = ("auto", "torch", "onnx", "openvino")
BATCH = 64  # inputs of a pass
FEW = 512  # inputs for which torch computes in any case
MEASURED = 1.0  # seconds

Forward = Callable[..., Tensor]  # a batch, as Encoder.collate gives it -> features (B, C, s, s)


@dataclass(frozen=True)
class _Translation:
    """How a network gets to an engine besides torch.

    Attributes:
        label: of the engine, for people. packages: that it needs. precisions: that it computes in.
        worth: seconds of torch's work below which a trial does not pay.
        make: from an encoder and a precision.
    """

    label: str
    packages: tuple[str, ...]
    precisions: tuple[str, ...]
    worth: float
    make: Callable[[Encoder, str], Forward]


# In the order of their trials; the first that can be had is the only one. OpenVINO takes a tenth of the time to translate, and no
# network measured is more than 10% faster in ONNX Runtime (benchmarks/RESULTS.md).
_TRANSLATIONS = {
    "openvino": _Translation(
        "OpenVINO", ("openvino",), ("float32", "bfloat16"), 15.0, lambda *given: OpenVinoForward(*given)
    ),
    "onnx": _Translation(
        "ONNX Runtime",
        ("onnxruntime", "onnx", "onnxscript"),
        ("float32",),
        60.0,
        lambda encoder, _: OnnxForward(encoder),
    ),
}

# Of each encoder, by engine, with the fingerprint, number of threads and precision that it was translated for.
_translated: WeakKeyDictionary[Encoder, dict[str, tuple[tuple[str, int, str], Forward]]] = WeakKeyDictionary()

# Of each encoder, the engine that a trial has found, with its fingerprint, the device and the precision.
_found: WeakKeyDictionary[Encoder, tuple[tuple[str, str, str], str]] = WeakKeyDictionary()


def forward_of(
    encoder: Encoder, engine: str, device: torch.device | str = "cpu", precision: str = "float32"
) -> Forward:
    """An encoder's forward pass by an engine; it is translated once.

    Args:
        encoder: moved to the device, if torch computes.
        engine: ``torch``, ``onnx`` or ``openvino``.
        device: of the batches.
        precision: of the arithmetic.

    Raises:
        InputError: the engine is not there, or not for this device or precision.
        RunError: the network cannot be translated.
    """
    if choose(engine, ENGINES[1:], "engine") == "torch":
        return encoder.to(device)
    if reason := _unfit(engine, device, precision):
        raise InputError(f"engine {engine!r} {reason}; take --engine torch")
    key = (encoder.fingerprint(), torch.get_num_threads(), precision)
    kept = _translated.setdefault(encoder, {})
    if engine not in kept or kept[engine][0] != key:
        kept[engine] = (key, _TRANSLATIONS[engine].make(encoder.to("cpu"), precision))
    return kept[engine][1]


def faster_engine(
    encoder: Encoder,
    number: int,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    say: Callable[[str], None] | None = None,
) -> str:
    """The faster engine, as a second of torch and of one other shows, where there is work enough for a trial; later calls take what
    was found.

    Args:
        encoder: of the inputs.
        number: of inputs.
        device, precision: as in ``forward_of``.
        say: told one line, if both were measured, and one on each translation that failed.
    """
    of = (encoder.fingerprint(), str(device), precision)
    if (known := _found.get(encoder)) is not None and known[0] == of:
        return known[1]
    able = [engine for engine in _TRANSLATIONS if not _unfit(engine, device, precision)]
    if number <= FEW or not able:
        return "torch"
    tell = say or (lambda line: None)
    batch = encoder.example(BATCH)

    def rate(engine: str, seconds: float) -> float:
        forward = forward_of(encoder, engine, device, precision)
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, precision == "bfloat16"),
            large_blocks_kept(),
        ):
            return _rate(forward, batch, seconds)

    rates = {"torch": rate("torch", 0)}
    for engine in able:
        if number / rates["torch"] < _TRANSLATIONS[engine].worth:
            continue
        rates["torch"] = rate("torch", MEASURED)
        try:
            rates[engine] = rate(engine, MEASURED)
        except RunError as error:
            tell(f"{error}; torch computes")
            continue
        fast, slow = sorted(rates, key=rates.__getitem__, reverse=True)
        tell(f"features by {_label(fast)}: {rates[fast]:.0f} {encoder.what}s/s, {_label(slow)} {rates[slow]:.0f}")
        _found[encoder] = (of, fast)
        return fast
    return "torch"


def _label(engine: str) -> str:
    return _TRANSLATIONS[engine].label if engine in _TRANSLATIONS else engine


def _unfit(engine: str, device: torch.device | str, precision: str) -> str | None:
    """Why an engine besides torch cannot compute here; None if it can."""
    for package in _TRANSLATIONS[engine].packages:
        if importlib.util.find_spec(package) is None:
            return f"needs {package}: pip install 'comodulation[{engine}]'"
    if torch.device(device).type != "cpu":
        return f"computes on CPUs, not on {torch.device(device).type!r}"
    if precision not in _TRANSLATIONS[engine].precisions:
        return f"computes in float32, not in {precision}"
    if precision == "bfloat16" and not bfloat16_here():
        return "computes in bfloat16 on processors that have its instructions (AMX or AVX-512), and this one has not"
    return None


def _rate(forward: Forward, batch: Sequence[Tensor], seconds: float) -> float:
    """Inputs a second within some seconds, one batch at least, after one that does not count."""
    forward(*batch)
    began, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds or not done:
        forward(*batch)
        done += len(batch[0])
    return done / passed
