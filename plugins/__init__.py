"""Loader of the native libraries; they come with a later version."""
