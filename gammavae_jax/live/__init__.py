"""Live monitoring: a folder that is watched, and a service that is asked."""
