"""An encoder's forward pass outside torch: translated once for ONNX Runtime or OpenVINO, called like the encoder itself.

Nothing is fetched or reported, and nothing is written to disk.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import RunError
from .encoder import Encoder

TOLERANCE = 1e-3  # of a translation in float32, in standard deviations of the features
_BFLOAT16 = {"amx_bf16", "avx512_bf16"}  # instructions, as Linux names them
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # as OpenVINO names them


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
            raise _untranslated(encoder, "ONNX Runtime", error, 0) from error

    def __call__(self, *batch: Tensor) -> Tensor:
        """A batch -> features ``(B, C, s, s)``, float32."""
        given = {name: part.contiguous().numpy() for name, part in zip(self.names, batch, strict=True)}
        (features,) = self._session.run(None, given)
        return torch.from_numpy(features)


class OpenVinoForward:
    """An encoder in OpenVINO, on as many threads as torch would use: called like it, with a batch on the CPU.

    It is made from a trace, which is there in a second where an export takes ten. A trace holds what the network's code did for
    one batch, so it is compared with the network on a batch of another shape.

    Args:
        encoder: in memory of the CPU.
        precision: of the arithmetic, ``float32``, or ``bfloat16`` where ``bfloat16_here``. The features are float32.

    Raises:
        RunError: the network cannot be translated.
    """

    def __init__(self, encoder: Encoder, precision: str = "float32") -> None:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        network: Any = encoder
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # the tracer's, of values that it takes for constant: seen to below
                traced = torch.jit.trace(network, encoder.example(2), check_trace=False, strict=False)
            frontend, decoder = FrontEndManager().load_by_framework("pytorch"), TorchScriptPythonDecoder(traced)
            model = frontend.convert(frontend.load(decoder))  # which does not keep the decoder alive by itself
            for place, part in zip(model.inputs, encoder.example(2), strict=True):
                given = [-1 if at < encoder.open_dimensions else size for at, size in enumerate(part.shape)]
                place.get_node().set_partial_shape(openvino.PartialShape(given))
            model.validate_nodes_and_infer_types()
            settings = {
                "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],  # by itself it takes the fastest
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                "ENABLE_CPU_PINNING": False,  # other processes have the same cores
            }
            self._core = _openvino()
            self._request = self._core.compile_model(model, "CPU", settings).create_infer_request()
            self._check(encoder, precision)
        except Exception as error:  # the tracer raises whatever the model's code leads it into
            raise _untranslated(encoder, "OpenVINO", error, -1) from error

    def __call__(self, *batch: Tensor) -> Tensor:
        """A batch -> features ``(B, C, s, s)``, float32."""
        given = [part.contiguous().numpy() for part in batch]
        return torch.from_numpy(self._request.infer(given, share_inputs=True)[0])

    def _check(self, encoder: Encoder, precision: str) -> None:
        batch = encoder.example(3)
        if encoder.open_dimensions > 1:
            batch = tuple(part[:, : part.shape[1] // 2 + 1] for part in batch)
        with torch.no_grad():
            exact, found = encoder(*batch), self(*batch)
        if precision == "float32" and not (found - exact).abs().max() <= TOLERANCE * exact.std() + 1e-6:
            raise ValueError("its features are not those of torch")


def _openvino() -> Any:
    """OpenVINO's core, one for all encoders that are alive.

    Its plugin gives the thread a stack for signals, and takes it back with the core. Of two cores, the one made first and gone
    first leaves a stack that is no longer there: the next Ctrl-C would end Python with a segmentation fault. It does not live
    longer than the encoders, because its threads are missing in a copy of the process, which then waits for them.
    """
    import openvino

    global _last_core
    core = _last_core()
    if core is None:
        core = openvino.Core()
        _last_core = weakref.ref(core)
    return core


_last_core: Callable[[], Any] = lambda: None  # noqa: E731


def open_shapes(encoder: Encoder) -> tuple[dict[int, Any], ...]:
    """For a translation: which dimensions of each tensor of a batch are open."""
    most = {"batch": 65536, "length": encoder.longest}
    names = list(most)[: encoder.open_dimensions]
    shape = {place: torch.export.Dim(name, min=1, max=most[name]) for place, name in enumerate(names)}
    return (shape,) * len(encoder.input_names)


def bfloat16_here() -> bool:
    """Whether this processor computes in bfloat16 by itself, as far as Linux says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    return any(not _BFLOAT16.isdisjoint(line.split()) for line in lines if line.startswith("flags"))


def _untranslated(encoder: Encoder, label: str, error: Exception, line: int) -> RunError:
    """The error of a translation; ``line``: of what the engine says, where it says why."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[line]
    return RunError(f"{encoder.called} cannot be translated for {label}: {reason}")
