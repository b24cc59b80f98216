"""Where the project keeps what it needs: contracts in `base`, formats in `records`, one module per place."""
