"""`nlnet demo`: train three networks on diagnostic videos, to show that a non-local block relates distant positions.

command.py    `nlnet demo`: makes the videos, trains and tests the networks, prints the result
attention.py  measures how much attention the cue of a video pays to the digit of its colour
report.py     report.json, report.md and the pictures
"""
