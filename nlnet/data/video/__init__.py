"""Decoding videos by exact frame number.

packets       opens a file and reads its compressed packets; `VideoError`
frame_table   which packets make which frame, and where decoding must start for it: no I/O
decode        `Video`: the frames of a file by number, through PyAV (FFmpeg)
frames        decoded frames to RGB, and stacked into one tensor
frame_folder  `FrameFolder`: a folder of numbered images with the interface of `Video`; `open_video`
"""
