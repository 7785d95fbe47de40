"""The cache of `tests/data/features/conftest.py`: sizes and files."""

ROWS, BLOCK = 160, 64
ROW_BYTES = 2 * 192 * 2 * 2
FILES = ("data.bin", "journal.jsonl", "identity.json")


def the_file(cache, name):
    """The file of that name of the only cache of features in a folder."""
    (path,) = cache.glob(f"features/*/{name}")
    return path
