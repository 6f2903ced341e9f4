"""What is particular to an environment: its presets, its view, its drawings; a folder each."""
