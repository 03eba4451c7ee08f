"""Point operations: sampling, neighbours, voxels, boxes and sparse convolution.

Each is defined by plain torch code that runs on any device and has a faster backend with the same
results behind the same function. All are deterministic.
"""
