"""Types shared by the stages: states, facts, ports; and facts about machine, base and processes."""
