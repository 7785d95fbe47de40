from .picture_lists import listed_pictures, write_picture_list
from .row_files import Block, blocks_of, row_files, rows_of

__all__ = ["Block", "blocks_of", "listed_pictures", "row_files", "rows_of", "write_picture_list"]
