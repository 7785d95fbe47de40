from .files_of_rows import Block, blocks_of, row_files, rows_of
from .picture_lists import listed_pictures, write_picture_list

__all__ = ["Block", "blocks_of", "listed_pictures", "row_files", "rows_of", "write_picture_list"]
