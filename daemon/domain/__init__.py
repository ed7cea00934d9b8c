"""Pure types shared by every process: events, states, routes, ports, errors. No I/O."""
