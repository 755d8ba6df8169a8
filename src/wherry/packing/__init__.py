"""Trees of files to tars and back, by descriptor: layers, docker cp, export and commit."""
