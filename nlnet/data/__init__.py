"""Videos: which frames, decoded exactly, made into clips; lists of labelled videos; training and test data sets."""

from nlnet.data.annotations import Format, read_videos
from nlnet.data.batch import Batch, Failure, Sample, collate
from nlnet.data.check import Check, check_videos
from nlnet.data.classnames import read_classes
from nlnet.data.dataset import TestViews, TrainClips
from nlnet.data.decode import Video, VideoError
from nlnet.data.framefolder import FrameFolder, open_video
from nlnet.data.rows import Missing
from nlnet.data.transforms import TestTransform, TrainTransform, normalize
from nlnet.data.videolist import Label, VideoItem, VideoList
from nlnet.data.views import Views

__all__ = [
    "Batch",
    "Check",
    "Failure",
    "Format",
    "FrameFolder",
    "Label",
    "Missing",
    "Sample",
    "TestTransform",
    "TestViews",
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
