"""What layers, maps and programs are made of: equality, copies, JSON, fingerprints; and what is
computed once for all that are built alike.
"""
