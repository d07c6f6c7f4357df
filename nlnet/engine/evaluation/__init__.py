"""Testing a network on videos: from a video file to scores, metrics and files of scores.

evaluate.py       multi-view testing: the scores of every video of a list
video_views.py    the views of a single video, and the scores of one view
video_scores.py   the scores of a test, and the metrics computed from them
metrics.py        rank of the right class, average precision
score_files.py    the file that stores the scores of a test
rescore.py        saved scores on fewer views, with another aggregate, or fused with those of other runs
"""
