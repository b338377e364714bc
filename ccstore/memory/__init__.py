"""What is kept: samples of all series, in columns. One owner, no waiting, no clock, no files."""
