"""The slider of the timestep that the components of a page follow."""
