"""The compiled loops of wire: scan lines, keep the key cache, write answers.

Bytes are read eight at a time, so every array of bytes goes on for at least 8 bytes behind what is
looked at.
"""
