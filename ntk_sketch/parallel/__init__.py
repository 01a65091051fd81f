"""Several devices and several processes: meshes, sums over them, and work in step."""
