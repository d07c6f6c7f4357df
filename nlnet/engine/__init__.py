"""Training and testing of networks on videos, from a configuration to a run directory.

config/          the configuration of a run
runs/            run directories, checkpoints, provenance, atomic writes, locks
training/        the training loop and its parts
evaluation/      multi-view testing, metrics, files of scores
network.py       the configured network: built, loaded from a checkpoint, prepared for a test
distributed.py   the processes of a run: one, or several under torchrun
signals.py       Ctrl-C and SIGTERM
"""
