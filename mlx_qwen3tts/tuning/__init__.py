"""Teaching a voice: recordings in, a vector out that speaks like them, or an adapter with it."""
