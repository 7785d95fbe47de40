"""What a node must have in common with the command: the difference is named."""

import os

import pytest

from comodulation.processes import sight
from comodulation.processes.agreement import END, disagreement, expected


def test_a_file_and_a_folder_are_known_by_what_is_in_them(tmp_path):
    """Size, beginning and end of a file; the names in a folder. The middle of a large file is not read."""
    large = tmp_path / "large"
    large.write_bytes(os.urandom(3 * END))
    before = sight(large)
    assert before == sight(large)
    for place, seen in ((0, True), (3 * END - 1, True), (END + END // 2, False)):
        with open(large, "rb+") as file:
            file.seek(place)
            old = file.read(1)
            file.seek(place)
            file.write(bytes([old[0] ^ 1]))
        assert (sight(large) != before) == seen
        before = sight(large)
    large.write_bytes(large.read_bytes() + b"x")
    assert sight(large)["bytes"] == 3 * END + 1
    folder = tmp_path / "folder"
    folder.mkdir()
    empty = sight(folder)
    (folder / "a.png").touch()
    assert (empty["entries"], sight(folder)["entries"]) == (0, 1)
    assert sight(tmp_path / "none") == {"is": "absent"}


def test_what_differs_is_named(tmp_path):
    path = tmp_path / "data.npy"
    path.write_bytes(b"12345")
    wanted = expected([path])
    assert disagreement(wanted) is None
    path.write_bytes(b"123456")
    assert disagreement(wanted) == f"sees another {path}: bytes 6, this command 5; give all nodes the same files"
    path.unlink()
    assert (
        disagreement(wanted)
        == f"sees another {path}: is 'absent', this command 'a file'; give all nodes the same files"
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("torch", "1.0", "of torch, this command 1.0; install the same release on every node"),
        (
            "comodulation",
            "0123",
            "has other sources of comodulation, this command 0123; install the same release on every node",
        ),
        ("python", "3.0.0", "of python, this command 3.0.0"),
    ],
)
def test_another_version_is_named(name, value, said):
    wanted = expected([])
    wanted["code"][name] = value
    assert said in str(disagreement(wanted))
