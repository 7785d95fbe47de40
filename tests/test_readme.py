"""The README's Python runs as written."""

import re
from pathlib import Path

import torch

README = Path(__file__).parent.parent / "README.md"


def test_python_blocks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 2
    torch.manual_seed(0)
    network: dict[str, object] = {}
    exec(blocks[0], network)
    assert network["answers"].shape == (20 * 4, 1000)
    assert torch.equal(network["base"], network["model"](network["images"]))
    names: dict[str, object] = {}
    exec(blocks[1], names)
    assert names["logits"].shape == (8, 100)
    assert names["gains"].shape == (8, 256)
    assert (tmp_path / "adapter.safetensors").stat().st_size < 20 * 4096


def test_commands_and_files_exist():
    text = README.read_text()
    root = README.parent
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (root / target).exists(), target
    makefile = (root / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", text, re.MULTILINE):
        assert f"\n{target}:" in makefile
