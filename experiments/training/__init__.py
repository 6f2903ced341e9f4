"""One run on this machine: device, loop, checkpoints, files."""
