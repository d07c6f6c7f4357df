"""Readers of labelled videos: folders, lists, and the official annotation files of data sets.

read                 `read_videos`: the table of formats, recognising a format, reading
format               `AnnotationFormat`: the description of one format, an entry of the table
folders              videos in class folders, without an annotation file
lists                text files with a line for each video: PySlowFast, mmaction2, the paper's release
kinetics             Kinetics-400, -600 and -700
ucf_hmdb             UCF101 and HMDB51
something_something  Something-Something V2
charades             Charades
class_names          files of class names, and the class numbers of names
locate               searches the folders of a data set for the videos that a file names
rows                 helpers of the readers: text, JSON and CSV files; from rows to a `VideoList`
"""
