"""How long things take, apart from how accurate they are."""
