"""Videos of panels side by side, each with a caption, as MP4 and as GIF."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from experiments.spec.errors import UserError

FORMATS = ("mp4", "gif")
_PACKAGES = {"mp4": "imageio_ffmpeg", "gif": "PIL"}  # captions need the latter, too
_GAP = 10  # pixels around panels
_PAPER, _INK, _FAINT = (255, 255, 255), (33, 37, 41), (95, 101, 108)
_GIF_STRIDE, _GIF_WIDTH, _GIF_COLORS = 2, 480, 48


class Caption(NamedTuple):
    """The words above a panel."""

    title: str
    value: str  # to the right of the title
    subtitle: str  # below it


# ------------------------------------------------------------------ pictures


def check_packages(formats: Sequence[str]) -> None:
    """Raises a UserError if something that a video needs is not installed."""
    needed = dict.fromkeys(["PIL", *(_PACKAGES[name] for name in formats)])
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise UserError(f"videos need {' and '.join(missing)}: pip install 'roml-jax[video]'")


def grid(
    panels: Sequence[Sequence[tuple[UInt8[np.ndarray, "h w 3"], Caption]]],
) -> UInt8[np.ndarray, "H W 3"]:
    """Panels in rows and columns, each below its caption.

    Args:
      panels: rows of ``(picture, caption)``; all pictures are of one size.

    Returns:
      One picture; its sides are even numbers of pixels, as video formats want them.
    """
    from PIL import Image, ImageDraw

    height, width = panels[0][0][0].shape[:2]
    room = _caption_height(width)
    whole_width = _GAP + len(panels[0]) * (width + _GAP)
    whole_height = _GAP + len(panels) * (room + height + _GAP)
    size = (whole_width + whole_width % 2, whole_height + whole_height % 2)
    whole = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(whole)
    for i, row in enumerate(panels):
        for j, (picture, caption) in enumerate(row):
            corner = (_GAP + j * (width + _GAP), _GAP + i * (room + height + _GAP))
            _write(draw, caption, corner, width)
            whole.paste(Image.fromarray(picture), (corner[0], corner[1] + room))
    return np.asarray(whole)


def _text_size(width: int) -> int:
    """Pixels of a line of a caption: less in small panels."""
    return int(np.clip(width // 22, 9, 18))


def _caption_height(width: int) -> int:
    return 3 * _text_size(width)


def _write(draw: Any, caption: Caption, corner: tuple[int, int], width: int) -> None:
    """Title and value in the first line, the subtitle in the second."""
    (left, top), size = corner, _text_size(width)
    value = _font(size)
    room = width - draw.textlength(caption.value, value) - size
    title, font = _fit(draw, caption.title, room, size, bold=True)
    draw.text((left, top + size), title, _INK, font, anchor="ls")
    draw.text((left + width, top + size), caption.value, _INK, value, anchor="rs")
    subtitle, font = _fit(draw, caption.subtitle, width, size)
    draw.text((left, top + round(2.3 * size)), subtitle, _FAINT, font, anchor="ls")


def _fit(draw: Any, text: str, room: float, size: int, bold: bool = False) -> tuple[str, Any]:
    """A text and its font: smaller, then cut off, if there is no room for it."""
    smallest = min(size, 8)
    while draw.textlength(text, _font(size, bold)) > room and size > smallest:
        size -= 1
    font = _font(size, bold)
    while len(text) > 1 and draw.textlength(text, font) > room:
        text = text[:-2].rstrip(" ,") + "…"
    return text, font


@functools.cache
def _font(size: int, bold: bool = False) -> Any:
    """The font that comes with matplotlib."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


# ------------------------------------------------------------------ files


@contextlib.contextmanager
def open_video(path: Path, fps: float) -> Iterator[_Mp4 | _Gif]:
    """A video that appears whole, at the end of the context, or not at all.

    Args:
      path: of the file, ``.mp4`` or ``.gif``. A GIF has every second picture only, is at most
        480 pixels wide, and has few colours.
      fps: pictures per second that are added.

    Yields:
      Something to ``add`` pictures to, all of one size.

    Raises:
      UserError: there is no encoder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    writer = _Mp4(partial, fps) if path.suffix == ".mp4" else _Gif(partial, fps)
    try:
        yield writer
        writer.close()
        partial.replace(path)
    finally:
        writer.stop()
        partial.unlink(missing_ok=True)


class _Mp4:
    """H.264, which every browser plays."""

    def __init__(self, path: Path, fps: float) -> None:
        import imageio_ffmpeg

        try:
            with _forking():
                imageio_ffmpeg.get_ffmpeg_exe()
        except RuntimeError as error:
            told = "there is no ffmpeg for MP4 here: install one, or choose --format gif"
            raise UserError(told) from error
        self._path, self._fps = path, fps
        self._pipe: Any = None

    def add(self, picture: np.ndarray) -> None:
        if self._pipe is None:
            self._pipe = self._start(picture.shape[1], picture.shape[0])
        self._pipe.send(np.ascontiguousarray(picture))

    def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _start(self, width: int, height: int) -> Any:
        import imageio_ffmpeg

        pipe: Any = imageio_ffmpeg.write_frames(
            str(self._path),
            (width, height),
            fps=self._fps,
            quality=None,
            macro_block_size=2,
            output_params=["-crf", "20", "-movflags", "+faststart"],
        )
        with _forking():
            pipe.send(None)
        return pipe


@contextlib.contextmanager
def _forking() -> Iterator[None]:
    """Without JAX's warning of forks: what follows ours is ffmpeg, and none of JAX."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
        yield


class _Gif:
    """The pictures are held, each a byte per pixel, until all are written."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps, self._count = path, fps, 0
        self._kept: list[Any] = []

    def add(self, picture: np.ndarray) -> None:
        from PIL import Image

        self._count += 1
        if (self._count - 1) % _GIF_STRIDE:
            return
        image = Image.fromarray(picture)
        if image.width > _GIF_WIDTH:
            height = round(image.height * _GIF_WIDTH / image.width)
            image = image.resize((_GIF_WIDTH, height), Image.Resampling.LANCZOS)
        if self._kept:  # one palette for all, and no dots, so that what stands still stays equal
            image = image.quantize(palette=self._kept[0], dither=Image.Dither.NONE)
        else:
            image = image.quantize(_GIF_COLORS, kmeans=3, dither=Image.Dither.NONE)
        self._kept.append(image)

    def close(self) -> None:
        first, *rest = self._kept
        milliseconds = 1000 * _GIF_STRIDE / self._fps
        first.save(
            self._path,
            "GIF",
            save_all=True,
            append_images=rest,
            duration=max(20, 10 * round(milliseconds / 10)),  # browsers slow down shorter ones
            loop=0,
            optimize=False,
        )

    def stop(self) -> None:
        self._kept = []
