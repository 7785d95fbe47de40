"""What computes an encoder's forward pass: torch, or on CPUs ONNX Runtime, which is faster for many convolutional networks.

Their features agree up to the rounding of sums in another order, so caches say which of them they are of. Translating a network
takes seconds to tens of them: it pays for many inputs only.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...errors import InputError, RunError, choose
from .allocator import large_blocks_kept
from .encoder import Encoder

ENGINES = ("auto", "torch", "onnx")
BATCH = 64  # inputs of a pass
FEW = 512  # inputs for which torch computes in any case
WORTH = 60.0  # seconds of torch's work below which a translation does not pay
MEASURED = 1.0  # seconds

Forward = Callable[..., Tensor]  # a batch, as Encoder.collate gives it -> features (B, C, s, s)


class OnnxForward:
    """An encoder in ONNX Runtime, on as many threads as torch would use: called like it, with a batch on the CPU.

    Raises:
        RunError: the network cannot be translated.
    """

    def __init__(self, encoder: Encoder) -> None:
        import onnxruntime

        self.names = encoder.input_names
        network: Any = encoder
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # the exporter's own deprecations
                made = torch.onnx.export(
                    network, encoder.example(2), dynamic_shapes=open_shapes(encoder), input_names=list(self.names),
                    output_names=["features"], dynamo=True, verbose=False,
                )  # fmt: skip
            assert made is not None
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3  # errors
            content = made.model_proto.SerializeToString()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the tracer raises whatever the model's code leads it into
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RunError(f"{encoder.called} cannot be translated for ONNX Runtime: {reason}") from error

    def __call__(self, *batch: Tensor) -> Tensor:
        """A batch -> features ``(B, C, s, s)``, float32."""
        given = {name: part.contiguous().numpy() for name, part in zip(self.names, batch, strict=True)}
        (features,) = self._session.run(None, given)
        return torch.from_numpy(features)


def open_shapes(encoder: Encoder) -> tuple[dict[int, Any], ...]:
    """For a translation: which dimensions of each tensor of a batch are open."""
    most = {"batch": 65536, "length": encoder.longest}
    names = list(most)[: encoder.open_dimensions]
    shape = {place: torch.export.Dim(name, min=1, max=most[name]) for place, name in enumerate(names)}
    return (shape,) * len(encoder.input_names)


# Of each encoder, with the fingerprint and the number of threads that it was translated for.
_translated: WeakKeyDictionary[Encoder, tuple[tuple[str, int], OnnxForward]] = WeakKeyDictionary()


def forward_of(
    encoder: Encoder, engine: str, device: torch.device | str = "cpu", precision: str = "float32"
) -> Forward:
    """An encoder's forward pass by an engine; it is translated once.

    Args:
        encoder: moved to the device, if torch computes.
        engine: ``torch`` or ``onnx``.
        device: of the batches.
        precision: of the arithmetic.

    Raises:
        InputError: ONNX Runtime is not there, or not for this device or precision.
        RunError: as ``OnnxForward``.
    """
    if choose(engine, ENGINES[1:], "engine") == "torch":
        return encoder.to(device)
    if reason := _unfit(device, precision):
        raise InputError(f"engine 'onnx' {reason}; --engine torch computes here")
    key = (encoder.fingerprint(), torch.get_num_threads())
    kept = _translated.get(encoder)
    if kept is None or kept[0] != key:
        kept = _translated[encoder] = (key, OnnxForward(encoder.to("cpu")))
    return kept[1]


def faster_engine(
    encoder: Encoder,
    number: int,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    say: Callable[[str], None] | None = None,
) -> str:
    """``onnx`` where ONNX Runtime is faster, as a second of each shows, and there is work enough to translate for; else ``torch``.

    Args:
        encoder: of the inputs.
        number: of inputs.
        device, precision: as in ``forward_of``.
        say: told one line, if both were measured or a translation failed.
    """
    if number <= FEW or _unfit(device, precision):
        return "torch"
    batch = encoder.example(BATCH)
    with torch.inference_mode(), large_blocks_kept():
        if number / _rate(encoder.to(device), batch, 0) < WORTH:
            return "torch"
        by_torch = _rate(encoder, batch, MEASURED)
    tell = say or (lambda line: None)
    try:
        by_onnx = _rate(forward_of(encoder, "onnx"), batch, MEASURED)
    except RunError as error:
        tell(f"{error}; torch computes")
        return "torch"
    fast, slow = ("onnx", "torch") if by_onnx > by_torch else ("torch", "onnx")
    rates = {"onnx": by_onnx, "torch": by_torch}
    names = {"onnx": "ONNX Runtime", "torch": "torch"}
    tell(f"features by {names[fast]}: {rates[fast]:.0f} {encoder.what}s/s, {names[slow]} {rates[slow]:.0f}")
    return fast


def _unfit(device: torch.device | str, precision: str) -> str | None:
    """Why ONNX Runtime cannot compute here; None if it can."""
    for package in ("onnxruntime", "onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            return f"needs {package}: pip install 'comodulation[onnx]'"
    if torch.device(device).type != "cpu":
        return f"computes on CPUs, not on {torch.device(device).type!r}"
    return None if precision == "float32" else f"computes in float32, not in {precision}"


def _rate(forward: Forward, batch: Sequence[Tensor], seconds: float) -> float:
    """Inputs a second within some seconds, one batch at least, after one that does not count."""
    forward(*batch)
    began, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds or not done:
        forward(*batch)
        done += len(batch[0])
    return done / passed
