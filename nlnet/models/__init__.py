"""The paper's video networks: C2D and I3D, their sizes and names, what they cost. `nlnet.zoo` builds them by name."""
