"""The compiled loops of disk."""
