"""The contexts of a model of libcn2: each thread that calls it gets one of its own."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref

from .libcn2 import Handle, Libcn2


class Contexts:
    """The contexts of a model, each used by one thread at a time; they end with the model."""

    def __init__(self, library: Libcn2, model: ctypes.c_void_p) -> None:
        self._library = library
        self._model: ctypes.c_void_p | None = model
        self._idle: list[ctypes.c_void_p] = []
        self._lock = threading.Lock()

    def check_open(self) -> None:
        """Raise ValueError once it is closed."""
        if self._model is None:
            raise ValueError("this detector is closed; open the model again")

    @contextmanager
    def borrow(self) -> Iterator[ctypes.c_void_p]:
        """A context for one call: one that is idle, or a new one."""
        with self._lock:
            context = self._idle.pop() if self._idle else self._create()
        try:
            yield context
        finally:
            with self._lock:
                if self._model is None:
                    self._library.context_destroy(context)
                else:
                    self._idle.append(context)

    def _create(self) -> ctypes.c_void_p:
        self.check_open()
        context = Handle()
        self._library.context_create(self._model, byref(context))
        return context

    def close(self) -> None:
        """Close the model; contexts that are borrowed end when they come back."""
        with self._lock:
            model, self._model = self._model, None
            while self._idle:
                self._library.context_destroy(self._idle.pop())
            self._library.model_close(model)
