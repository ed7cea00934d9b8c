"""What travels between applications, gateway, daemon and trainer. Part of the base install."""
