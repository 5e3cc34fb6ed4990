"""Life on a desk: speaking through the server that runs already, and keeping one running."""
