"""What computes a backbone's forward pass: torch, or on CPUs ONNX Runtime, which is faster for many convolutional networks.

Their features agree up to the rounding of sums in another order, so caches say which of them they are of. Translating a network
takes seconds to tens of them: it pays for many images only.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...errors import InputError, RunError, choose
from .allocator import large_blocks_kept
from .backbone import Backbone

ENGINES = ("auto", "torch", "onnx")
BATCH = 64  # images of a pass
FEW = 512  # images for which torch computes in any case
WORTH = 60.0  # seconds of torch's work below which a translation does not pay
MEASURED = 1.0  # seconds

Forward = Callable[[Tensor], Tensor]  # uint8 images (B, 3, S, S) -> features (B, C, s, s)


class OnnxForward:
    """A backbone in ONNX Runtime, on as many threads as torch would use: called like it, with images on the CPU.

    Raises:
        RunError: the network cannot be translated.
    """

    def __init__(self, backbone: Backbone) -> None:
        import onnxruntime

        size = backbone.image_size
        example = (torch.zeros(2, 3, size, size, dtype=torch.uint8),)
        batch = torch.export.Dim("batch", min=1, max=65536)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # the exporter's own deprecations
                made = torch.onnx.export(
                    backbone, example, dynamic_shapes=({0: batch},), input_names=["images"], output_names=["features"],
                    dynamo=True, verbose=False,
                )  # fmt: skip
            assert made is not None
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3  # errors
            content = made.model_proto.SerializeToString()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the tracer raises whatever the model's code leads it into
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RunError(
                f"backbone {backbone.settings.name!r} cannot be translated for ONNX Runtime: {reason}"
            ) from error

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 images ``(B, 3, S, S)`` -> features ``(B, C, s, s)``, float32."""
        (features,) = self._session.run(None, {"images": images.contiguous().numpy()})
        return torch.from_numpy(features)


# Of each backbone, with the fingerprint and the number of threads that it was translated for.
_translated: WeakKeyDictionary[Backbone, tuple[tuple[str, int], OnnxForward]] = WeakKeyDictionary()


def forward_of(
    backbone: Backbone, engine: str, device: torch.device | str = "cpu", precision: str = "float32"
) -> Forward:
    """A backbone's forward pass by an engine; it is translated once.

    Args:
        backbone: moved to the device, if torch computes.
        engine: ``torch`` or ``onnx``.
        device: of the images.
        precision: of the arithmetic.

    Raises:
        InputError: ONNX Runtime is not there, or not for this device or precision.
        RunError: as ``OnnxForward``.
    """
    if choose(engine, ENGINES[1:], "engine") == "torch":
        return backbone.to(device)
    if reason := _unfit(device, precision):
        raise InputError(f"engine 'onnx' {reason}; --engine torch computes here")
    key = (backbone.fingerprint(), torch.get_num_threads())
    kept = _translated.get(backbone)
    if kept is None or kept[0] != key:
        kept = _translated[backbone] = (key, OnnxForward(backbone.to("cpu")))
    return kept[1]


def faster_engine(
    backbone: Backbone,
    number: int,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    say: Callable[[str], None] | None = None,
) -> str:
    """``onnx`` where ONNX Runtime is faster, as a second of each shows, and there is work enough to translate for; else ``torch``.

    Args:
        backbone: of the images.
        number: of images.
        device, precision: as in ``forward_of``.
        say: told one line, if both were measured or a translation failed.
    """
    if number <= FEW or _unfit(device, precision):
        return "torch"
    images = torch.zeros(BATCH, 3, backbone.image_size, backbone.image_size, dtype=torch.uint8)
    images.random_(0, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), large_blocks_kept():
        if number / _rate(backbone.to(device), images, 0) < WORTH:
            return "torch"
        by_torch = _rate(backbone, images, MEASURED)
    tell = say or (lambda line: None)
    try:
        by_onnx = _rate(forward_of(backbone, "onnx"), images, MEASURED)
    except RunError as error:
        tell(f"{error}; torch computes")
        return "torch"
    fast, slow = ("onnx", "torch") if by_onnx > by_torch else ("torch", "onnx")
    rates = {"onnx": by_onnx, "torch": by_torch}
    names = {"onnx": "ONNX Runtime", "torch": "torch"}
    tell(f"features by {names[fast]}: {rates[fast]:.0f} images/s, {names[slow]} {rates[slow]:.0f}")
    return fast


def _unfit(device: torch.device | str, precision: str) -> str | None:
    """Why ONNX Runtime cannot compute here; None if it can."""
    for package in ("onnxruntime", "onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            return f"needs {package}: pip install 'comodulation[onnx]'"
    if torch.device(device).type != "cpu":
        return f"computes on CPUs, not on {torch.device(device).type!r}"
    return None if precision == "float32" else f"computes in float32, not in {precision}"


def _rate(forward: Forward, images: Tensor, seconds: float) -> float:
    """Images a second within some seconds, one batch at least, after one that does not count."""
    forward(images)
    began, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds or not done:
        forward(images)
        done += len(images)
    return done / passed
