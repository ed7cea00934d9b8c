"""Values that travel between applications, gateway, daemon and trainer; in the base install."""
