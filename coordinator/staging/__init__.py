"""Where uploaded artifacts are until enough sleds hold them."""
