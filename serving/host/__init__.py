"""The daemon's side of the model server."""
