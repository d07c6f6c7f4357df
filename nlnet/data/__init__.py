"""Video data: lists of labelled videos, exact decoding, training clips, test views.

annotations/  reads folders, lists and the official annotation files of data sets into a `VideoList`
video_list    `VideoItem` and `VideoList`: labelled videos in a fixed order
video/        decodes frames by exact number, from video files and from folders of images
clips         which frames form a clip, how frames are scaled, where crops lie: arithmetic, no I/O
protocols     the table of test protocols: clips, crops and pooling of each project
transforms    scale, crop and flip for training and testing; normalisation
dataset       data sets of training clips and of test views
batch         training samples collected into batches
views         all views of a test video, stored compactly
check         whether every video of a list can be decoded
diagnostic/   a synthetic data set for long-range dependencies
"""

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
