"""What a score rests on."""
