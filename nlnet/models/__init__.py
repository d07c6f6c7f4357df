"""The paper's video networks, C2D and I3D: their layers, names and costs. `nlnet.zoo` builds them by name."""
