"""The side that takes associations (SCP): objects off the wire and into the archive."""
