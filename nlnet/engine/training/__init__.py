"""Training, from a configuration and video files to checkpoints.

train.py             the training loop
setup.py             everything that the loop needs, built and checked before it starts
learner.py           network and optimiser: forward, backward, update
loss.py              the loss, and its mean between two log lines
schedule.py          the learning rate of every iteration
optimizer.py         SGD or AdamW, parameter groups, frozen norms
batch_norms.py       precise batch-norm statistics, empty micro-batches
videos.py            the lists of training and validation videos, and whether they have changed
sampler.py           which video with which random seed stands at each position of training
loader.py            batches of clips from worker processes
initial_weights.py   `init.weights` loaded into the configured network
saving.py            training state, validation, checkpoints
callbacks.py         callbacks of the training loop, and the log of a run
"""
