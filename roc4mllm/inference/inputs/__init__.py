"""What a person names, as a stream of pictures."""
