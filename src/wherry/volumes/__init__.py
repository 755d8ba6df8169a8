"""Volumes of the local driver: directories, or mounts described by options, that outlive containers."""
