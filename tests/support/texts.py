"""A text encoder of a few thousand numbers, in the files of transformers and of sentence-transformers, and texts to classify."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

WORDS = {
    "weather": ("rain", "sun", "wind", "snow", "cloud", "storm"), "food": ("bread", "soup", "apple", "rice", "cake", "salt"),
    "travel": ("train", "ticket", "hotel", "border", "ship", "map"),
}  # fmt: skip
OTHERS = ("the", "a", "is", "we", "now", "very", "see")
LONGEST = 16


def write_encoder(
    folder: Path, modes: tuple[str, ...] | None = ("mean_tokens",), *, normalize: bool = False, seed: int = 0
) -> Path:
    """A BERT of two layers with random weights; ``modes`` of pooling None: without the files of sentence-transformers."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *OTHERS, *(word for own in WORDS.values() for word in own)]
    letters = [chr(place) for place in range(97, 123)]
    words = dict.fromkeys([*words, *letters, *(f"##{letter}" for letter in letters)])  # each once: "a" is a word too
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), model_max_length=LONGEST)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if modes is None:
        return folder
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    modules = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LONGEST, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir()
    said = {f"pooling_mode_{mode}": mode in modes for mode in POOLINGS}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **said}))
    if normalize:
        (folder / "2_Normalize").mkdir()
    return folder


POOLINGS = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def write_texts(path: Path, rows: int = 240, seed: int = 0) -> Path:
    """A table of texts: a topic by its words, and whether the text asks."""
    rng = np.random.default_rng(seed)
    lines = ["text,topic,asks"]
    for _ in range(rows):
        topic, asks = list(WORDS)[rng.integers(3)], bool(rng.integers(2))
        words = [*rng.choice(WORDS[topic], 3), *rng.choice(OTHERS, rng.integers(1, 5))]
        rng.shuffle(words)
        lines.append(f'"{" ".join(words)}{" see we" if asks else ""}",{topic},{"yes" if asks else "no"}')
    path.write_text("\n".join(lines) + "\n")
    return path
