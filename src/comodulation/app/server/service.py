"""A run served on localhost: one page and a JSON API. Nothing is written to disk.

The network answers one request at a time, so that concurrent requests get the answers of sequential ones; uploads are read
and decoded meanwhile, and kept at the size of the network's input. Every error is a JSON object with one sentence under ``error``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import anyio.to_thread
import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from torch import Tensor

from ...data.features import features_of
from ...errors import InputError, RunError, choose
from ...evaluation import stored_temperature as stored_temperature
from ...evaluation import temperature_note
from ...networks.methods import Comodulation, Inspection, answers, inspect
from ...runs import Run, content_id, describe, metrics_by_task
from .connections import bounded_protocol, descriptors
from .guard import LOCAL_NAMES, Guarded, refusal
from .page import page, page_policy
from .uploads import FORMATS, MAX_BYTES, MAX_PIXELS, UploadError, Uploads

DEVIATIONS = tuple(step / 10 for step in range(-30, 31))
MOST_DEVIATIONS, WIDEST = 201, 6.0
NEURONS = 8  # decoder neurons of which activity is given, unless asked otherwise
OUTPUTS = 6  # outputs of which probabilities are given for every value of the modulator
SHOWN = ("balanced_accuracy", "accuracy", "majority", "nll", "ece", "count")  # metrics of a task
UPLOADING, ENDING = 5.0, 60  # seconds after Ctrl-C for uploads to come in, and for requests to be answered

T = TypeVar("T")


class Service:
    """A run with its network, which answers about images.

    Args:
        run: finished. Its network is loaded here, so that what is wrong with it is known before anything is served.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.family, self.method, self.metrics = run, run.family, run.method, run.metrics
        self.temperature = run.temperature

    def describe(self) -> dict[str, Any]:
        """What is served: method, tasks, metrics, modulator, limits."""
        split = "test" if "test" in self.metrics else "validation"
        measured = self.metrics[split]
        by_task = metrics_by_task(self.metrics, split)
        modulation = self.method.head.modulation
        return {
            "method": self.method.name,
            "input": self.run.encoder.what,
            "backbone": self.run.config.encoder.name,
            "image_size": self.run.encoder.about().get("image_size"),
            "kind": self.family.kind,
            "readout": self.run.config.readout,
            "tasks": [
                {
                    "name": name,
                    "classes": self.family.answers(task),
                    **{key: by_task.get(name, {}).get(key) for key in SHOWN},
                }
                for task, name in enumerate(self.family.tasks)
            ],
            "metrics": {"split": split, **{name: measured[name] for name in ("accuracy", "nll", "ece", "count")}},
            "temperature": self.temperature,
            "confidence": temperature_note(self.metrics, split),
            "modulator": {
                "sigma": modulation.std,
                **{name: getattr(modulation, name) for name in ("link", "level", "estimator", "encoder", "beta")},
            }
            if isinstance(self.method, Comodulation)
            else None,
            "limits": {"bytes": MAX_BYTES, "pixels": MAX_PIXELS, "formats": FORMATS},
        }

    def predict(self, prepared: Tensor, tasks: Sequence[str]) -> dict[str, Any]:
        """Answers to tasks (none named: all of them) about one preprocessed input, from one pass of the encoder and one batch
        of the decoder."""
        ids = self.run.task_ids(tasks)
        features, sample = self._features(prepared)
        found = answers(self.method, features, torch.tensor(ids), sample, self.temperature or 1.0)
        described = (
            describe(self.family, task, row, self.run.decision(task)) for task, row in zip(ids, found, strict=True)
        )
        return {
            "temperature": self.temperature,
            "tasks": {self.family.tasks[task]: answer for task, answer in zip(ids, described, strict=True)},
        }

    def mechanism(self, prepared: Tensor, task: str, deviations: Sequence[float], neurons: int) -> dict[str, Any]:
        """One preprocessed input under one task, with the modulator at several values, in standard deviations."""
        number = self.family.task_id(task)
        features, sample = self._features(prepared)
        values = torch.tensor(deviations, dtype=torch.float64)
        seen = inspect(self.method, features, number, values, sample, self.temperature or 1.0)
        return {
            "task": task,
            "temperature": self.temperature,
            "answer": describe(self.family, number, seen.answer, self.run.decision(number)),
            "encoder_gains": None if seen.encoder_gains is None else _listed(seen.encoder_gains),
            "decoder_gains": None if seen.decoder_gains is None else _listed(seen.decoder_gains),
            "modulator": self._modulator(seen, number, neurons),
        }

    def _modulator(self, seen: Inspection, task: int, neurons: int) -> dict[str, Any] | None:
        if (m := seen.modulated) is None:
            return None
        # The neurons that follow the modulator most in this image, and the outputs that are probable at any value of it: the task's
        # own, and what room they leave to those of other tasks, which an open readout may answer.
        followers = m.slope.argsort(descending=True, stable=True)[:neurons]
        own = list(self.family.own_targets(task))
        highest = torch.cat([m.probabilities, seen.answer[None]]).amax(0).tolist()
        others = [place for place in range(len(highest)) if place not in own] if self.family.kind == "classes" else []
        own, others = (sorted(places, key=lambda place: -highest[place]) for places in (own, others))
        likely = torch.tensor([*own, *others][:OUTPUTS])
        likely = likely[seen.answer[likely].argsort(descending=True, stable=True)]
        names = self.family.targets
        return {
            "sigma": m.std,
            "deviations": m.deviations.tolist(),
            "coupling": _listed(m.coupling),
            "factors": _listed(m.factors),
            "neurons": followers.tolist(),
            "decoder_activity": _listed(m.decoder_activity[:, followers]),
            "slope": _listed(m.slope[followers]),
            "outputs": [names[place] for place in likely],
            "own": [int(place) in own for place in likely],
            "answer": _listed(seen.answer[likely]),
            "probabilities": _listed(m.probabilities[:, likely]),
        }

    def prepare(self, given: Any) -> Tensor:
        """An image, a text or an embedding as the encoder takes it, which is all that is kept of it."""
        return self.run.encoder.preprocess(given)

    def _features(self, prepared: Tensor) -> tuple[Tensor, int]:
        """Features of a preprocessed input, ``(1, C, H, W)``, and the number that stands for its content."""
        encoder = self.run.encoder
        features = features_of(encoder, encoder.collate([prepared]), self.run.config.precision, encoder.kept)
        return features, content_id(prepared)


def _listed(values: Tensor) -> Any:
    """A tensor as nested lists of numbers of six digits, which is what float32 holds and a third of the length."""
    if values.ndim > 1:
        return [_listed(row) for row in values]
    return [float(f"{value:.6g}") for value in values.tolist()]


def make_app(service: Service, uploads: Uploads | None = None) -> FastAPI:
    """The page and the API, without the checks of ``Guarded``."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    network, uploads = anyio.CapacityLimiter(1), uploads or Uploads()

    async def answer(request: Request, work: Callable[[Tensor], T]) -> T:
        prepared = await uploads.prepared(request, service.run.encoder.what, service.prepare)
        return await anyio.to_thread.run_sync(work, prepared, limiter=network)

    @app.get("/")
    async def index() -> HTMLResponse:
        return HTMLResponse(page(), headers={"Content-Security-Policy": page_policy()})

    @app.get("/api/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/api/run")
    async def run() -> JSONResponse:
        return JSONResponse(_finite(service.describe()))

    @app.post("/api/predict")
    async def predict(request: Request) -> JSONResponse:
        given = _query(request, ("task",))
        for task in given["task"]:
            service.family.task_id(task)  # before the upload is read
        return JSONResponse(await answer(request, lambda prepared: service.predict(prepared, given["task"])))

    @app.post("/api/mechanism")
    async def mechanism(request: Request) -> JSONResponse:
        given = _query(request, ("task", "modulator", "neurons"))
        task = _one(given, "task")
        service.family.task_id(task)
        deviations = _deviations(given["modulator"])
        neurons = _neurons(given, service.method.head.decoder_channels)
        return JSONResponse(
            await answer(request, lambda prepared: service.mechanism(prepared, task, deviations, neurons))
        )

    _answer_errors(app)
    return app


def _answer_errors(app: FastAPI) -> None:
    """Every error is one sentence."""

    @app.exception_handler(InputError)
    async def bad_input(_: Request, error: InputError) -> JSONResponse:
        return refusal(error.status if isinstance(error, UploadError) else 400, str(error))

    @app.exception_handler(HTTPException)
    async def bad_address(request: Request, error: HTTPException) -> JSONResponse:
        known = sorted({getattr(route, "path", "") for route in app.routes})
        return refusal(
            error.status_code, f"{request.method} {request.scope['path']}: {error.detail}; known: {', '.join(known)}"
        )

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return refusal(500, str(error) if isinstance(error, RunError) else "the server failed; its log says how")


def _query(request: Request, known: tuple[str, ...]) -> dict[str, list[str]]:
    """Values of the query by name. Raises InputError for a name that is not known."""
    for name in request.query_params:
        choose(name, known, "query parameter")
    return {name: request.query_params.getlist(name) for name in known}


def _one(given: dict[str, list[str]], name: str) -> str:
    if len(given[name]) != 1:
        raise InputError(f"give one {name} in the address, as ?{name}=...; got {len(given[name])}")
    return given[name][0]


def _deviations(texts: list[str]) -> Sequence[float]:
    if not texts:
        return DEVIATIONS
    if len(texts) > MOST_DEVIATIONS:
        raise InputError(f"at most {MOST_DEVIATIONS} values of the modulator at once, got {len(texts)}")
    values = [_number(text, "modulator") for text in texts]
    for value in values:
        if not abs(value) <= WIDEST:
            raise InputError(f"modulator must be from -{WIDEST:g} to {WIDEST:g} standard deviations, got {value:g}")
    return values


def _neurons(given: dict[str, list[str]], most: int) -> int:
    if not given["neurons"]:
        return min(NEURONS, most)
    number = _number(_one(given, "neurons"), "neurons")
    if number not in range(1, most + 1):
        raise InputError(f"neurons must be a whole number from 1 to {most}, got {number:g}")
    return int(number)


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{name} must be a number, got {text!r}") from None


def _finite(value: Any) -> Any:
    """The same with None in place of numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready, and at its end gives up uploads that do not come in."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], uploads: Uploads) -> None:
        super().__init__(config)
        self.ready, self.uploads = ready, uploads

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(UPLOADING, self.uploads.end)
        await super().shutdown(sockets)


def _worth_saying(record: logging.LogRecord) -> bool:
    """Not: that requests were cancelled by a second Ctrl-C; and no line for each client where there are too many."""
    cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not cancelled and "out of system resource" not in record.getMessage()


def serve(run: Run, listening: socket.socket, *, allow_remote: bool = False, ready: Callable[[str], None]) -> None:
    """Serve a run until Ctrl-C, which lets requests that are at hand be answered; a second one does not.

    Args:
        run: finished.
        listening: from ``bind``.
        allow_remote: answer requests whatever name they are addressed to.
        ready: called with the address once requests are answered.

    Raises:
        InputError: a run that cannot be loaded.
    """
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    hosts = None if allow_remote else frozenset((*LOCAL_NAMES, host))
    uploads = Uploads()
    app = Guarded(make_app(Service(run), uploads), hosts)
    most, burst = descriptors()
    config = uvicorn.Config(
        app, http=bounded_protocol(most), loop="asyncio", backlog=burst, log_level="error", access_log=False,
        server_header=False, ws="none", lifespan="off", timeout_graceful_shutdown=ENDING,
    )  # fmt: skip
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(_worth_saying)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a wrong form is the sender's to know about
    with contextlib.suppress(KeyboardInterrupt):
        _Server(config, lambda: ready(address), uploads).run(sockets=[listening])
