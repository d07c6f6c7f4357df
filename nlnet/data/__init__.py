"""Videos: which frames, decoded exactly, made into clips; lists of labelled videos; training and test data sets."""

from nlnet.data.annotations.class_names import read_classes
from nlnet.data.annotations.read import Format, read_videos
from nlnet.data.annotations.rows import Missing
from nlnet.data.batch import Batch, Failure, Sample, collate
from nlnet.data.check import Check, check_videos
from nlnet.data.dataset import EvalViews, TrainClips
from nlnet.data.transforms import EvalTransform, TrainTransform, normalize
from nlnet.data.video.decode import Video
from nlnet.data.video.frame_folder import FrameFolder, open_video
from nlnet.data.video.packets import VideoError
from nlnet.data.video_list import Label, VideoItem, VideoList
from nlnet.data.views import Views

__all__ = [
    "Batch",
    "Check",
    "EvalTransform",
    "EvalViews",
    "Failure",
    "Format",
    "FrameFolder",
    "Label",
    "Missing",
    "Sample",
    "TrainClips",
    "TrainTransform",
    "Video",
    "VideoError",
    "VideoItem",
    "VideoList",
    "Views",
    "check_videos",
    "collate",
    "normalize",
    "open_video",
    "read_classes",
    "read_videos",
]
