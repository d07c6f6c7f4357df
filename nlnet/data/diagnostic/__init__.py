"""The diagnostic: a synthetic data set whose labels can only be read by relating two distant places or moments.

A clip shows two digits, one on a red and one on a green tile, and a cue tile of one of these colours. The label is the
digit on the tile with the cue's colour, so no network can find it from one item alone.

task    makes the clips and stills: pure functions of (spec, split, index)
bounds  the accuracy that a network can reach without relating items, computed
files   writes the data set as .mp4 videos and .png images in class folders
"""
