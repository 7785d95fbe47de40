from .guard import LOCAL_NAMES, Guarded, bind
from .service import Service, make_app, serve
from .uploads import FORMATS, MAX_PIXELS, UploadError, multipart_image, open_image

__all__ = [
    "FORMATS",
    "LOCAL_NAMES",
    "MAX_PIXELS",
    "Guarded",
    "Service",
    "UploadError",
    "bind",
    "make_app",
    "multipart_image",
    "open_image",
    "serve",
]
