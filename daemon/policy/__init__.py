"""Policy files: the decisions of operations people, checked and versioned."""
