"""`nlnet report`: a page on one training run, with pictures of its training, its non-local blocks and its test.

command.py   `nlnet report`: reads the run and writes report.md, report.json and the pictures
analysis.py  what is computed for it: smoothed curves, confusion matrix, hardest videos, states of blocks
figures.py   the pictures
page.py      report.md
"""
