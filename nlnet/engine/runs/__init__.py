"""Run directories and the files in them.

directory.py      a run directory: configuration, metrics, checkpoints, training state
checkpoint.py     weights with their configuration and classes, as .safetensors files
provenance.py     commit, machine and versions behind a result
atomic_write.py   a file appears complete or not at all
lock.py           one process at a time trains in a run directory
"""
