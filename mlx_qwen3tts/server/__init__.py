"""The local server: one model, one running batch, any number of clients."""
