"""The inputs of a probe: the user's own where given, else pictures made here; always two of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ProbeError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from ..request import ProbeRequest

_SIZE = (320, 240)
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")


def pictures(request: ProbeRequest) -> tuple[Image, Image]:
    """Return two pictures of the same size, the first the user's where the manifest names one."""
    first = _open(Path(request.image)) if request.image else _paint(*_SIZE, 0)
    return first, _paint(*first.size, 1)


def clips(request: ProbeRequest, count: int) -> tuple[list[Image], list[Image]]:
    """Return two clips of so many frames, the first from the user's video file or folder of frames."""
    first = (
        _read_clip(Path(request.video), count) if request.video else [_paint(*_SIZE, i) for i in range(count)]
    )
    return first, [_paint(*first[0].size, count + 3 * i) for i in range(count)]


def check_video(request: ProbeRequest) -> None:
    """Raise ProbeError when the user's video is not there; its frames are read when their number is known."""
    if request.video and not Path(request.video).exists():
        raise ProbeError(f"the input `{request.video}` does not exist", "input")


def points(request: ProbeRequest, size: tuple[int, int]) -> list[list[float]]:
    """Return the user's points, else the middle of the picture; raises ProbeError for one outside."""
    width, height = size
    for x, y in request.points:
        if not (0 <= x < width and 0 <= y < height):
            raise ProbeError(
                f"the point ({x:g}, {y:g}) lies outside the picture of {width}x{height} pixels", "input"
            )
    return [[x, y] for x, y in request.points] or [[width / 2, height / 2]]


def _open(path: Path) -> Image:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except FileNotFoundError as error:
        raise ProbeError(f"the input `{path}` does not exist", "input") from error
    except UnidentifiedImageError as error:
        raise ProbeError(f"the input `{path}` is not a picture", "input") from error


def _paint(width: int, height: int, number: int) -> Image:
    """Return a picture with a slope of colour and a disc; another number gives another picture."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[0:height, 0:width]
    slopes = (x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height))
    pixels = np.stack([slopes[(number + channel) % 3] for channel in range(3)], axis=2).astype(np.uint8)
    centre = (width * (2 + number % 5) // 8, height * (6 - number % 4) // 8)
    pixels[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < (height // 5) ** 2] = (255, 40 * (number % 6), 60)
    return Image.fromarray(pixels)


def _read_clip(path: Path, count: int) -> list[Image]:
    if path.is_dir():
        frames = sorted(file for file in path.iterdir() if file.suffix.lower() in _PICTURES)
        if not frames:
            raise ProbeError(f"the input `{path}` holds no pictures", "input")
        return [_open(frames[index]) for index in spread(len(frames), count)]
    return _read_video(path, count)


def _read_video(path: Path, count: int) -> list[Image]:
    import cv2

    capture = cv2.VideoCapture(str(path))
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    if total < 1:
        raise ProbeError(f"the input `{path}` is not a video that OpenCV can read", "input")
    frames = []
    for index in spread(total, count):
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        read, frame = capture.read()
        if not read:
            raise ProbeError(f"frame {index} of the input `{path}` cannot be read", "input")
        frames.append(_from_bgr(frame))
    capture.release()
    return frames


def _from_bgr(frame: np.ndarray) -> Image:
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))


def spread(total: int, count: int) -> list[int]:
    """Return the indices of `count` frames spread evenly over `total`, repeated where there are fewer."""
    return [index * (total - 1) // max(count - 1, 1) for index in range(count)]
