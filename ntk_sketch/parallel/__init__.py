"""Work on several devices and processes: meshes, sums over processes and synchronisation."""
