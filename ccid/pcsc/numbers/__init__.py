"""Numbers that the faces towards PC/SC share; no module here imports anything of the driver."""
