"""What the supervisor writes down of the sites: their histories, and what they count until the document has it.

Face: `recorder`, `journal`.
"""
