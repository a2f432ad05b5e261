"""The subcommands of gammavae, one module each."""
