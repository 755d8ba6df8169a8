"""The file system of a container as one who does not live in it sees it: for docker cp, export and the like."""
