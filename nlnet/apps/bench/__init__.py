"""`nlnet bench`: timings and memory of the package's algorithms beside plain implementations, on this machine.

`command.py` is the command: it runs the groups of comparisons, prints tables and writes JSON.
`side_by_side.py` is the measurement: several ways to do one thing, timed by turns, with their memory.
`roofline.py` measures the machine's limits: the fastest matrix product and the fastest copy.
`operation.py` compares the algorithms of the non-local operation with its definition (groups op and growth).
`block.py` compares a training step of the block with one of a plain block (group block).
`network.py` compares memory layouts, precisions and compilation for a whole network (group network).
`loading.py` compares data loading and testing with the decoding that they need (groups loader and test).
`videos.py` makes the videos for that.
"""
