"""The formats without an annotation file: videos, still images or folders of frames in class folders."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nlnet.data.annotations.class_names import class_hint
from nlnet.data.annotations.format import AnnotationFormat
from nlnet.data.annotations.rows import Missing
from nlnet.data.video_list import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoItem, VideoList
from nlnet.errors import AnnotationError


def read_folders(
    source: Path,
    *,
    root: Path | None = None,
    classes: Sequence[str] | None = None,
    missing: Missing = "error",
    frames: bool = False,
) -> VideoList:
    """Read the videos below a folder, with the names of the class folders as labels.

    Classes are the names of the folders in `source` in alphabetical order, or `classes`; videos may lie deeper. Hidden
    files are ignored, and so are images if there are videos. A folder with videos and no class folders has no labels.

    In a tree of images alone, images directly in class folders are videos of one frame. If all images lie deeper,
    `CLASS/VIDEO/000001.jpg`, each folder that holds images is a video. With `frames`, every folder that holds images is
    a video at any depth: also `VIDEO/000001.jpg` (no labels) and `000001.jpg` (one video).

    `root` and `missing` are accepted but not used, since no file names the videos.
    """
    files = sorted(p for p in source.rglob("*") if p.is_file() and not _hidden(p.relative_to(source)))
    videos = [p for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    if frames:
        chosen, layout = _frame_folders(images, source), "folders of frames"
        if chosen == [source]:
            return VideoList((VideoItem(source, None),), tuple(classes or ()), source, layout)
    elif videos:
        chosen, layout = videos, "videos"
    elif images and all(len(p.relative_to(source).parts) > 2 for p in images):
        chosen, layout = _frame_folders(images, source), "folders of frames"
    else:
        chosen, layout = images, "images"
        if mixed := [p for p in images if len(p.relative_to(source).parts) > 2]:
            raise AnnotationError(
                f"{source} holds images both in class folders and deeper ({mixed[0]}, …), so they may be still images "
                "or frames of videos; to read every folder with images as a video, set data.format=frames"
            )
    if not chosen:
        raise AnnotationError(
            f"{source} holds no video; expected files ending in {', '.join(VIDEO_SUFFIXES)}"
        )
    loose = [p for p in chosen if p.parent == source]
    if len(loose) == len(chosen):
        items = tuple(VideoItem(p, None) for p in chosen)
        return VideoList(items, tuple(classes or ()), source, f"{layout} without labels")
    if loose:
        raise AnnotationError(
            f"{source} holds both class folders and {len(loose)} videos beside them ({loose[0].name}, …); "
            "move those into a class folder"
        )
    return _labelled(source, chosen, classes, layout)


def _frame_folders(images: list[Path], source: Path) -> list[Path]:
    """The folders that hold images. Raises AnnotationError if one lies inside another."""
    folders = sorted({p.parent for p in images})
    for outer in folders:
        inner = next((p for p in folders if outer in p.parents), None)
        if inner is not None:
            raise AnnotationError(
                f"{outer} holds images, and so does {inner} inside it; a folder of frames must not contain another"
            )
    return folders


def _labelled(source: Path, chosen: list[Path], classes: Sequence[str] | None, layout: str) -> VideoList:
    """The videos in class folders, with the number of their class folder as label."""
    folder_of = {p: p.relative_to(source).parts[0] for p in chosen}
    used = set(folder_of.values())
    names = tuple(classes) if classes is not None else tuple(sorted(used))
    present = sorted(p.name for p in source.iterdir() if p.is_dir() and not _hidden(Path(p.name)))
    # an empty class folder would be missing from the classes, and all numbers after it would shift
    empty = [name for name in present if name not in used]
    if empty and classes is None:
        raise AnnotationError(
            f"{source}: no videos in class folder {', '.join(empty[:3])}{' …' if len(empty) > 3 else ''} "
            f"({len(empty)} of {len(present)} class folders); remove it, or give the class names as data.classes"
        )
    for name in sorted(used - set(names)):
        raise AnnotationError(
            f"{source / name} is not one of the {len(names)} classes{class_hint(name, names)}"
        )
    number = {name: k for k, name in enumerate(names)}
    items = tuple(VideoItem(p, number[folder_of[p]]) for p in chosen)
    return VideoList(items, names, source, f"{layout} in class folders")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


FOLDERS = AnnotationFormat(
    title="a folder of class folders of videos, images or folders of frames",
    read=read_folders,
    recognises=lambda source, first_line: source.is_dir(),
    source="folder",
)
FRAMES = AnnotationFormat(
    title="a folder in which every folder with images is a video",
    read=partial(read_folders, frames=True),
    source="folder",
)
