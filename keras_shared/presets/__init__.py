"""Published models: found by name, loaded, published."""
