"""Planning: the cross-entropy method, the controller around it, and how well both do."""
