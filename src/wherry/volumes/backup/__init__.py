"""Backups of volumes: see `archive` for the format."""
