"""``speecheq``, the console command: one module of subcommands a package."""
