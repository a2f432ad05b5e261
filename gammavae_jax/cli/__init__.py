"""The `gammavae` command, one module per subcommand."""
