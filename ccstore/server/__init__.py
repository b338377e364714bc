"""What happens when: Trio tasks that wait, wire and count, and compute nothing."""
