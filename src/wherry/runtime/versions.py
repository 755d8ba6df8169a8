"""The versions that the stand-alone runtime tells of itself."""

VERSION = "0.1.0"
OCI_VERSION = "1.2.1"
