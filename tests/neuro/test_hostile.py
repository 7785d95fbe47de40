"""Recordings that would open other files, or take far more memory than they have bytes; and those of no neurons or times."""

import zipfile

import numpy as np
import pytest

from comodulation.errors import InputError
from comodulation.neuro.analysis import analyse_recording
from comodulation.neuro.reading import read_recording
from comodulation.neuro.recording import Recording, count_spikes
from support.nwb_sessions import WINDOW, nwb_session

h5py = pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return nwb_session(tmp_path_factory.mktemp("plain") / "plain.nwb")


@pytest.fixture
def altered(plain, tmp_path):
    """Read a copy of the session in which something was changed."""

    def read(change):
        path = tmp_path / "s.nwb"
        path.write_bytes(plain.read_bytes())
        with h5py.File(path, "a") as file:
            change(file)
        return read_recording(path, **WINDOW)

    return read


def replaced(file, name, make):
    """Put another dataset in the place of one, with its attributes."""
    old = file[name]
    attributes, length = dict(old.attrs), len(old)
    del file[name]
    group, _, key = name.rpartition("/")
    made = make(file[group], key, length)
    made.attrs.update(attributes)
    if f"{name}_index" in file:
        file[f"{name}_index"].attrs["target"] = made.ref


def test_values_in_other_files(altered, plain, tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(1e5).tobytes())

    def external(group, key, length):
        return group.create_dataset(key, (length,), "f8", external=[(str(secret), 0, 8 * length)])

    def virtual(group, key, length):
        layout = h5py.VirtualLayout((length,), "f8")
        layout[:] = h5py.VirtualSource(str(plain), "units/spike_times", (length,))
        return group.create_virtual_dataset(key, layout)

    def linked(file):
        file["acquisition/raw"] = h5py.ExternalLink(str(plain), "/units")

    for make in (external, virtual):
        with pytest.raises(InputError, match="'/units/spike_times' keeps values in another file, which is not opened"):
            altered(lambda file, make=make: replaced(file, "units/spike_times", make))
    with pytest.raises(InputError, match=r"'/acquisition/raw' lies in another file .*which is not opened"):
        altered(linked)


@pytest.mark.parametrize("column", ["units/spike_times", "units/id", "intervals/trials/stimulus"])
def test_tables_that_declare_more_than_is_stored(altered, column):
    def sparse(group, key, length):
        return group.create_dataset(key, (10**12,), "f8", chunks=(10**5,))

    def compressed(group, key, length):
        made = group.create_dataset(key, (10**9,), "f8", chunks=(10**6,), compression="gzip")
        made[: 10**6] = 0
        return made

    for make in (sparse, compressed):
        with pytest.raises(
            InputError, match=rf"'/{column}' would take [0-9,]+ bytes of memory where [0-9,]+ are stored"
        ):
            altered(lambda file, make=make: replaced(file, column, make))


def test_a_single_value_that_is_never_stored(altered):
    def text(file):
        del file["session_description"]
        file.create_dataset("session_description", (), h5py.string_dtype(length=2**31 - 1))

    with pytest.raises(InputError, match="'/session_description' would take 2,147,483,647 bytes"):
        altered(text)


# What is compressed as spikes are, and links within a file, are no attack.
def test_files_that_are_only_unusual(altered, plain):
    def unusual(file):
        times = file["units/spike_times"][:]
        replaced(
            file, "units/spike_times",
            lambda group, key, length: group.create_dataset(key, data=times, chunks=(64,), compression="gzip"),
        )  # fmt: skip
        file["acquisition/again"] = h5py.SoftLink("/units/spike_times")
        file["acquisition/nowhere"] = h5py.SoftLink("/nothing")

    np.testing.assert_array_equal(altered(unusual).counts, read_recording(plain, **WINDOW).counts)


def test_tables_that_do_not_hold_together(altered):
    def text(group, key, length):
        return group.create_dataset(key, data=np.array(["1.5"] * length, object), dtype=h5py.string_dtype())

    def pairs(group, key, length):
        return group.create_dataset(key, data=np.zeros((length, 2)))

    def index(file):
        file["units/spike_times_index"][3] = 0

    for change, message in (
        (lambda file: replaced(file, "units/spike_times", text), "unit 0 must be times in seconds, got text"),
        (lambda file: replaced(file, "units/spike_times", pairs), "unit 0 must be times in seconds, got float64 of shape"),
        (lambda file: replaced(file, "intervals/trials/start_time", text), "'start_time' of the trials table holds no times"),
        (index, "has an index that does not ascend to its"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            altered(change)


def test_arrays_larger_than_memory(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("counts.npy", bytes(1000))
        archive.filelist[0].file_size = 2**31 + 1  # what the file declares, and what would be unpacked
    with pytest.raises(InputError, match=r"bomb.npz would take 2,147,483,649 bytes of memory, at most 2,147,483,648"):
        read_recording(path)


def test_counts_larger_than_memory():
    with pytest.raises(
        InputError, match="100000 trials of 10000 bins and 2 neurons would be more than the 268,435,456 counts"
    ):
        count_spikes([[0.1], [0.2]], np.arange(1e5), 0.01, 10_000)


def test_labels_larger_than_memory():
    with pytest.raises(InputError, match="condition must be labels of at most 1000 characters, got one of 5000"):
        Recording.of(np.ones((2, 3)), ["a", "b" * 5000])


def test_recordings_of_nothing(tmp_path):
    nothing = Recording.of(np.zeros((20, 2, 0)), [0, 1] * 10, name="night")
    with pytest.raises(InputError, match="night has no neurons"):
        analyse_recording(nothing)
    silent = Recording.of(np.zeros((20, 2, 4)), [0, 1] * 10, name="night").active()
    with pytest.raises(InputError, match="night has no neurons; 4 of 4 neurons are left out, which fire fewer than 25"):
        analyse_recording(silent)
    with pytest.raises(InputError, match="none"):
        analyse_recording(Recording.of(np.zeros((0, 2, 9)), []))
