"""The HTTP neighbours: one thin class for each service of the cloud."""
