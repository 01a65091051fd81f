"""Files of arrays: one safetensors file each, written whole or not at all."""
