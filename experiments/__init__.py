"""Command lines, presets, logs, checkpoints and figures: all that touches the host."""
