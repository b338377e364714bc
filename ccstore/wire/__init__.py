"""What bytes mean: formats and protocols, to and from values. No sockets, no files, no clock."""
