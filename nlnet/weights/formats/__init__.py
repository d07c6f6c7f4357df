"""Readers and writers of weight file formats; the readers are safe against malicious files.

A file that is read runs no code, and it takes no more memory and time than its own size explains.
"""
