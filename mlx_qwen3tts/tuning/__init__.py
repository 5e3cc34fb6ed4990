"""Teaching a voice: recordings in, a vector that speaks like them out."""
