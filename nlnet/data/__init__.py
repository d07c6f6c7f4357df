"""Videos: which frames, decoded exactly, made into clips; lists of labelled videos; training and test data sets."""

from nlnet.data.annotations import VideoItem, VideoList, read_videos
from nlnet.data.check import Check, check_videos
from nlnet.data.dataset import Batch, Failure, Sample, TestViews, TrainClips, Views, collate
from nlnet.data.decode import Video, VideoError
from nlnet.data.transforms import TestTransform, TrainTransform, normalize

__all__ = [
    "Batch",
    "Check",
    "Failure",
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
    "read_videos",
]
