"""Videos in class folders, without any annotation file: files, still images, or folders of frames."""

from collections.abc import Sequence
from pathlib import Path

from nlnet.data.annotations.class_names import near
from nlnet.data.video_list import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoItem, VideoList


def read_folders(source: Path, *, classes: Sequence[str] | None = None, frames: bool = False) -> VideoList:
    """The videos below a folder.

    Classes are the names of the folders in `source`, in alphabetical order (or `classes`, in that order); videos may
    lie deeper. Hidden files are passed over, and images too where there are videos. A folder with videos and no class
    folders has no labels.

    In a tree of images alone, those right in class folders are videos of one frame. Where they all lie deeper,
    `CLASS/VIDEO/000001.jpg`, each folder that holds images is a video; with `frames` each such folder is one
    wherever it lies, `VIDEO/000001.jpg` without labels and `000001.jpg` one video included.
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
            raise ValueError(
                f"{source} holds images in class folders and deeper ({mixed[0]}, …); are they still images, or "
                "frames of videos? data.format=frames takes every folder with images for a video"
            )
    if not chosen:
        raise ValueError(f"{source} holds no video; expected files ending in {', '.join(VIDEO_SUFFIXES)}")
    loose = [p for p in chosen if p.parent == source]
    if len(loose) == len(chosen):
        items = tuple(VideoItem(p, None) for p in chosen)
        return VideoList(items, tuple(classes or ()), source, f"{layout} without labels")
    if loose:
        raise ValueError(
            f"{source} holds both class folders and {len(loose)} videos beside them ({loose[0].name}, …); "
            "move those into a class folder"
        )
    return _labelled(source, chosen, classes, layout)


def _frame_folders(images: list[Path], source: Path) -> list[Path]:
    """The folders that hold images; one inside another is refused."""
    folders = sorted({p.parent for p in images})
    for outer in folders:
        inner = next((p for p in folders if outer in p.parents), None)
        if inner is not None:
            raise ValueError(
                f"{outer} holds images and so does {inner} in it; a folder of frames holds nothing else"
            )
    return folders


def _labelled(source: Path, chosen: list[Path], classes: Sequence[str] | None, layout: str) -> VideoList:
    folder_of = {p: p.relative_to(source).parts[0] for p in chosen}
    used = set(folder_of.values())
    names = tuple(classes) if classes is not None else tuple(sorted(used))
    present = sorted(p.name for p in source.iterdir() if p.is_dir() and not _hidden(Path(p.name)))
    empty = [name for name in present if name not in used]
    if empty and classes is None:
        raise ValueError(
            f"{source}: no videos in class folder {', '.join(empty[:3])}{' …' if len(empty) > 3 else ''} "
            f"({len(empty)} of {len(present)}); remove it, or give the classes in order"
        )
    for name in sorted(used - set(names)):
        raise ValueError(f"{source / name} is not one of the {len(names)} classes{near(name, names)}")
    number = {name: k for k, name in enumerate(names)}
    items = tuple(VideoItem(p, number[folder_of[p]]) for p in chosen)
    return VideoList(items, names, source, f"{layout} in class folders")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
