"""What survives: ordinary blocking file code."""
