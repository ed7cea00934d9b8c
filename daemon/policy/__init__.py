"""Policy files: what operations people may decide, checked and versioned."""
