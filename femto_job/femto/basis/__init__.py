"""What is learned before a picture is coded: `bases` reads and writes it, `training` learns it from
pictures, `adaptation` fits it to those of one's own.
"""
