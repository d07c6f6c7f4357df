"""`nlnet attend`: figures and animations of where the non-local blocks of a trained network look in a video.

`command.py` is the command: it chooses positions and blocks, and writes all files.
`video_attention.py` runs the network on one view of a video and returns class scores and attention maps.
`attention_map.py` is one attention map, and its heat map over the clip's frames.
`figures.py` draws the figure: frames in rows, a star at the query, arrows to the strongest keys (matplotlib).
`animation.py` makes the GIF and the MP4 in which the clip plays beside its heat maps.
"""
