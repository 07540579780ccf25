"""`onward explain`: where a message would go, and why."""
