"""Places in a bucket, fsspec's memory and a folder by its address: used like paths, with errors of one line."""

import contextlib

import pytest

from comodulation.errors import InputError, RunError
from comodulation.files import input_path, read_json, replacing, write_json
from comodulation.places import in_bucket, local_copy, move, place, reached

pytest.importorskip("upath")


@pytest.fixture(params=["memory", "file"])
def bucket(request, tmp_path):
    """An empty folder."""
    found = place(f"memory://tests{tmp_path}" if request.param == "memory" else f"file://{tmp_path}/bucket")
    assert in_bucket(found)
    return found


def test_paths_stay_paths(tmp_path):
    assert place(str(tmp_path)) == tmp_path
    assert not in_bucket(place("~/a:/b"))
    assert local_copy(tmp_path) is tmp_path
    assert input_path(str(tmp_path)) == tmp_path


def test_a_file_comes_about_whole_or_not_at_all(bucket):
    write_json(bucket / "deep" / "a.json", {"value": 1})
    assert read_json(bucket / "deep" / "a.json") == {"value": 1}
    with contextlib.suppress(RunError), replacing(bucket / "deep" / "b") as partial:
        partial.write_bytes(b"half")
        raise RunError("the power failed")
    move(bucket / "deep" / "a.json", bucket / "deep" / "c.json")
    assert [path.name for path in (bucket / "deep").iterdir()] == ["c.json"]


def test_a_copy_is_of_what_is_there_now(bucket):
    """It is made once, and again when the file has changed; a folder comes with what is in it."""
    write_json(bucket / "a.json", 1)
    copy = local_copy(bucket / "a.json")
    assert not in_bucket(copy)
    assert (copy.name, read_json(copy)) == ("a.json", 1)
    assert local_copy(bucket / "a.json") == copy
    write_json(bucket / "a.json", [1, 2])
    assert read_json(local_copy(bucket / "a.json")) == [1, 2]
    write_json(bucket / "inner" / "b.json", 3)
    assert read_json(input_path(str(bucket)) / "inner" / "b.json") == 3


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nope://a/b", "nope:// is no kind of address that fsspec knows, such as s3:// or gs://"),
        ("memory://tests/absent.csv", "no such file or folder: memory://tests/absent.csv"),
    ],
)
def test_addresses_that_lead_nowhere(address, message):
    with pytest.raises(InputError, match=message):
        input_path(address)


def test_packages_that_are_missing(monkeypatch):
    import fsspec

    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    monkeypatch.setattr("upath.core.get_filesystem_class", missing)
    with pytest.raises(InputError, match="'s3://a/b' needs a package for s3://: Install s3fs to access S3"):
        place("s3://a/b")
    monkeypatch.setitem(__import__("sys").modules, "upath", None)
    with pytest.raises(InputError, match=r"needs universal-pathlib: pip install 'comodulation\[remote\]'"):
        place("memory://a/b")


def test_what_a_service_says_is_one_line(bucket, tmp_path):
    with pytest.raises(RunError, match=r"^cannot reach \S+: PermissionError: no rights$"), reached(bucket):
        raise PermissionError("no rights\nmore of it")
    with pytest.raises(PermissionError), reached(tmp_path):
        raise PermissionError("no rights")
