"""What ships with the library: the emoji bundle and ogen-tiny."""
