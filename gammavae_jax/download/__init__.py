"""The challenge's archives of recordings, got whole and checked."""
