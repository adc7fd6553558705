"""What cn2 raises when a file, a machine or a picture is not what it should be.

Exception
└── Cn2Error                       each message is one line: expected, got, what to do
    ├── ModelFormatError           the model file is torn, not ours, or newer than this package
    ├── BackendUnavailableError    the library or device that was asked for is not here
    ├── PluginError                a native library cannot be loaded, or is of another version
    ├── BuildError                 TensorRT cannot build an engine, or not the one asked for
    ├── InferenceError             the library failed while it ran the model
    ├── PictureError               a picture cannot be read, or is refused before decoding
    ├── AnnotationError            a COCO annotation or result file breaks the format
    ├── DependencyError            an optional package is not installed
    └── OutputError                a result cannot be written

A wrong argument (a threshold of 7, an array of floats) is a ValueError or TypeError instead.
"""

from __future__ import annotations


class Cn2Error(Exception):
    """Any error that is the input's, the machine's or the installation's, not a bug in cn2."""


class ModelFormatError(Cn2Error):
    """The model file is torn, not ours, or newer than this package."""


class BackendUnavailableError(Cn2Error):
    """The library or device that was asked for is not here."""


class PluginError(Cn2Error):
    """A native library of this package cannot be loaded, or its ABI is another one."""


class BuildError(Cn2Error):
    """TensorRT cannot build an engine of a file, or not the one that was asked for."""


class InferenceError(Cn2Error):
    """The library failed while it ran the model; the message names the file and what it said."""


class PictureError(Cn2Error):
    """A picture cannot be read, or is refused before decoding."""


class AnnotationError(Cn2Error):
    """A COCO annotation or result file breaks the format; the message names file and id."""


class DependencyError(Cn2Error):
    """An optional package is not installed; the message names the extra that brings it."""


class OutputError(Cn2Error):
    """A result cannot be written."""
