"""What embeddings retrieve: an order of the database, grades of what comes first, and numbers made of both."""
