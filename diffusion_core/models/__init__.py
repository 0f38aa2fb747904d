"""The two U-Nets, their fastest form for sampling, and the trace of their shapes and cost."""
